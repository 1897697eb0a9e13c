"""`--explain-cache`: which steps the cache had, and what changed for the others, as text at the end of a build.

    Cache: 1 of 3 steps was there.
     CACHED  [2/4] RUN apk add gcc
     MISSED  [3/4] COPY . /src
             src/main.c: other content, sha256:2c26b46b68ff -> sha256:fcde2b2edba5
     MISSED  [4/4] RUN make
             the step before gave another result: COPY . /src

What the answers are made of is in `builder.events`; `--progress rawjson` shows them as they are.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from builder.cli.lines import escape_line
from builder.events import Event, VertexCompleted, VertexStarted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builder.cli.render import Renderer
    from builder.events import CacheAnswer, CacheChange

_LONGEST = 60
"""Characters of a value that are shown."""

_LEAD = 20
"""How many of them stand before the first that differs."""

_SHORT_DIGEST = 12

_DIGEST = re.compile(r"\b(?:sha256:)?([0-9a-f]{64})\b", re.ASCII)

_REASONS = {
    "record removed": "nothing changed, but the store no longer has its record: it was pruned, or was only in a cache that "
    "was imported",
    "layer removed": "nothing changed, but its layer is no longer in the store",
    "past removed": "it changed, and what it was made of is no longer in the store, so nothing more can be said",
    "other version": "nothing changed, but another version of pybuild made it",
    "new": "it is in no cache, and no earlier build had it in this place",
    "no-cache": "--no-cache asks for every step to be done",
    "no-cache-filter": "--no-cache-filter names its stage",
}

_FILES = {
    "file added": "added",
    "file removed": "removed",
    "file content": "other content",
    "file mode": "other mode",
    "file owner": "other owner",
    "file type": "is something else",
    "link target": "other target",
    "device number": "other device number",
}

_LABELS = {
    "user": "USER",
    "working directory": "working directory",
    "shared memory": "--shm-size",
    "limit": "--ulimit",
    "extra host": "--add-host",
    "chown": "--chown",
    "chmod": "--chmod",
    "exclude": "--exclude",
    "parents": "--parents",
    "link": "--link",
    "epoch": "SOURCE_DATE_EPOCH",
    "git commit": "commit of the repository",
    "git directory": "directory of the repository",
    "git flags": "what is taken of the repository",
    "url body": "content of the address",
    "url name": "name of the file at the address",
    "url modified": "time of the file at the address",
    "url unpack": "--unpack",
    "unpack": "whether archives are unpacked",
    "security": "--security",
}
"""What a kind of change is called, where that is not its own name."""


class CacheReport:
    """A renderer that shows what another one shows, and at its end what the cache said.

    Args:
        renderer: shows the events.
        stream: where the text goes.
        is_alone: whether the other one shows nothing, so that the text need not be set off.
    """

    def __init__(self, renderer: Renderer, stream: TextIO, *, is_alone: bool) -> None:
        self._renderer = renderer
        self._stream = stream
        self._before = "" if is_alone else "\n"
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._answers: dict[str, CacheAnswer] = {}
        self._closed = False

    def sink(self, event: Event) -> None:
        """Take one event and pass it on."""
        with self._lock:
            if isinstance(event, VertexStarted):
                self._names[event.vertex] = event.name
            elif isinstance(event, VertexCompleted) and event.answer is not None:
                self._answers[event.vertex] = event.answer
        self._renderer.sink(event)

    def start(self) -> None:
        """Start the other renderer."""
        self._renderer.start()

    def pause(self) -> None:
        """Pause the other renderer."""
        self._renderer.pause()

    def close(self, error: BaseException | None = None) -> None:
        """Close the other renderer, then write what the cache said. Idempotent."""
        self._renderer.close(error)
        if self._closed:
            return
        self._closed = True
        with self._lock:
            steps = [(self._names.get(vertex, vertex), answer) for vertex, answer in self._answers.items()]
        lines = list(describe_answers(steps, failed=error is not None))
        with suppress(OSError, ValueError):  # nobody reads any more
            self._stream.write(self._before + "".join(f"{line}\n" for line in lines))
            self._stream.flush()


def describe_answers(steps: Iterable[tuple[str, CacheAnswer]], *, failed: bool = False) -> Iterator[str]:
    """Give the lines that say what the cache said to steps.

    Args:
        steps: name and answer of each.
        failed: whether the build ended before all of its steps were done.
    """
    ordered = sorted(steps, key=lambda step: step[1].number)
    total, hits = len(ordered), sum(answer.is_hit for _, answer in ordered)
    if not total:
        yield "Cache: it was not asked for any step."
        return
    if hits == total and not failed:
        places = list(dict.fromkeys(answer.place for _, answer in ordered if answer.place))
        taken = sum(bool(answer.place) for _, answer in ordered)
        origin = f", {taken} of them in {', '.join(map(escape_line, places))}" if places else ""
        yield (
            f"Cache: all {total} steps were there{origin}." if total > 1 else f"Cache: the one step was there{origin}."
        )
        return
    reached = " that were reached" if failed else ""
    yield f"Cache: {hits} of {total} steps{reached} {'was' if hits == 1 else 'were'} there."
    for name, answer in ordered:
        origin = f", from the cache {escape_line(answer.place)}" if answer.place else ""
        yield f" {'CACHED' if answer.is_hit else 'MISSED'}  {escape_line(name)}{origin}"
        if not answer.is_hit:
            yield from (f"         {line}" for line in _explain(answer))


def _explain(answer: CacheAnswer) -> Iterator[str]:
    if answer.reason in _REASONS:
        yield _REASONS[answer.reason]
    if answer.elsewhere:
        yield "compared with the most similar step that was done before, which is not of this Dockerfile's last build:"
    yield from map(_describe, answer.changes)
    if answer.more:
        yield f"and {answer.more} other file{'s' if answer.more > 1 else ''}"


def _describe(change: CacheChange) -> str:
    name, values = escape_line(change.name), _show_values(change.before, change.now)
    match change.kind:
        case kind if kind in _FILES:
            return f"{name}: {_FILES[kind]}{values and f', {values}'}"
        case "step before" if change.name:
            return f"the step before gave another result: {name}"
        case "step before":
            return f"the step before is another, {values}"
        case "files":
            return f"the files it reads from {name} are others" if name else "the files it reads are others"
        case "order of variables":
            return "the order of ENV and ARG is another"
        case _:
            pass
    label = " ".join(filter(None, [_LABELS.get(change.kind, change.kind), name]))
    if change.before is None and change.now is None:
        return f"another {label}"
    if change.before is None:
        return f"{label}: now {_show(change.now)}"
    return f"{label}: {values}" if change.now is not None else f"{label}: no longer {_show(change.before)}"


def _show_values(before: str | None, now: str | None) -> str:
    """Show both values, if there are both, around the first place where they differ."""
    if before is None or now is None:
        return ""
    shared = next((at for at, (old, new) in enumerate(zip(before, now, strict=False)) if old != new), 0)
    return f"{_show(before, shared)} -> {_show(now, shared)}"


def _show(value: str | None, differs_at: int = 0) -> str:
    """Show a value in one line of limited length."""
    text = value or ""
    digest = _DIGEST.fullmatch(text)
    if digest:
        return f"sha256:{digest[1][:_SHORT_DIGEST]}"
    start = differs_at - _LEAD if len(text) > _LONGEST and differs_at > _LONGEST // 2 else 0
    end = start + _LONGEST
    shown = escape_line(text[start:end])
    return f"{'…' if start else ''}{shown}{'…' if end < len(text) else ''}" if text else "(empty)"
