"""Progress line by line, in BuildKit's plain form.

    #5 [stage-0 2/3] RUN make        a step starts, or is shown again
    #5 0.312 cc -c main.c            what it wrote, with the seconds since its start
    #5 sha256:… 1.05MB / 3.40MB 0.2s a transfer
    #5 ...                           another step takes over for a while
    #5 DONE 0.4s                     or CACHED, ERROR: …, CANCELED

Steps that run at the same time are not mixed line by line: the lines of the others wait until the one that is shown
ends, or until they have waited `PATIENCE` seconds. Lines are never dropped or cut.

Source: moby/buildkit, util/progress/progressui/printer.go.
"""

from __future__ import annotations

import threading
import time

from builder.cli.lines import LineAssembler, escape_line
from builder.events import Event, VertexCompleted, VertexLog, VertexStarted, VertexStatus, Warned
from registry.value import field, mutable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

PATIENCE = 2.0
"""Seconds a line of a step in the background waits at most."""

STATUS_INTERVAL = 1.0
"""Seconds between two lines about one transfer."""


@mutable(kw_only=False)
class _Part:
    """One transfer or other measured part of a vertex."""

    started: float
    shown: float = 0.0
    completed: bool = False


@mutable(kw_only=False)
class _Vertex:
    """What is known of a vertex and not yet written.

    *waiting* is when the oldest of *lines* came, by the renderer's clock; *last* is the time of the last log event.
    """

    number: int
    name: str
    started: float
    last: float
    lines: list[str] = field(default_factory=list)
    waiting: float = 0.0
    streams: dict[int, LineAssembler] = field(default_factory=dict)
    parts: dict[str, _Part] = field(default_factory=dict)


class PlainRenderer:
    """Writes events as lines of text.

    Args:
        stream: where they go; each write is flushed, so that a fork finds nothing in the buffer.
        clock: monotonic seconds, for the patience with steps in the background.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())
        self._vertices: dict[str, _Vertex] = {}
        self._open: dict[int, _Vertex] = {}
        self._current: _Vertex | None = None
        self._first = True
        self._warnings: list[Warned] = []
        self._thread: threading.Thread | None = None
        self._paused = True
        self._closed = False
        self._broken = False

    def sink(self, event: Event) -> None:
        """Write *event*, or keep it while another step is shown."""
        with self._changed:
            if not (self._closed or self._broken):
                self._take(event)

    def start(self) -> None:
        """Bring steps in the background to light after a while from now on; until then they are shown at once."""
        with self._changed:
            self._paused = False
            if any(vertex.lines for vertex in self._open.values()):
                self._wake()

    def pause(self) -> None:
        """Do that no more, and have no thread; what waits comes to light after the next `start`."""
        with self._changed:
            self._paused = True
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def close(self, error: BaseException | None = None) -> None:
        """Write all that waits, then the warnings; steps still open are canceled if *error* is given."""
        with self._changed:
            if self._closed:
                return
            for vertex in list(self._open.values()):
                self._finish_streams(vertex)
                if error is not None:
                    self._complete(vertex, "CANCELED")
            self._write_waiting(patience=0.0)
            self._write_warnings()
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _take(self, event: Event) -> None:
        match event:
            case VertexStarted():
                self._start_vertex(event.vertex, event.name, event.time)
            case VertexLog():
                vertex = self._vertex(event.vertex, event.time)
                self._add(vertex, self._log_lines(vertex, event))
            case VertexStatus():
                vertex = self._vertex(event.vertex, event.time)
                self._add(vertex, _status_lines(vertex, event))
            case VertexCompleted():
                vertex = self._vertex(event.vertex, event.time)
                if vertex.number in self._open:
                    self._finish_streams(vertex)
                    self._complete(vertex, _outcome(vertex, event))
            case Warned():
                self._warnings.append(event)
                if event.vertex is not None:
                    vertex = self._vertex(event.vertex, event.time)
                    self._add(vertex, [f"WARN: {escape_line(event.message)}"])
            case _:
                from typing import assert_never  # noqa: PLC0415  (only type checkers come here)

                assert_never(event)

    def _start_vertex(self, key: str, name: str, now: float) -> None:
        known = self._vertices.get(key)
        if known is not None:
            known.name = escape_line(name)
            return
        vertex = _Vertex(len(self._vertices) + 1, escape_line(name), now, now)
        self._vertices[key] = self._open[vertex.number] = vertex
        if self._current is None:
            self._show(vertex)

    def _vertex(self, key: str, now: float) -> _Vertex:
        if key not in self._vertices:
            self._start_vertex(key, key, now)
        return self._vertices[key]

    def _log_lines(self, vertex: _Vertex, event: VertexLog) -> list[str]:
        lines = vertex.streams.setdefault(event.stream, LineAssembler()).feed(event.data)
        stamp = _format_stamp(event.time - vertex.started)
        vertex.last = event.time
        return [f"{stamp} {line}" for line in lines]

    def _finish_streams(self, vertex: _Vertex) -> None:
        stamp = _format_stamp(vertex.last - vertex.started)
        for stream in vertex.streams.values():
            self._add(vertex, [f"{stamp} {line}" for line in stream.finish()])

    def _add(self, vertex: _Vertex, lines: list[str]) -> None:
        """Write *lines* of *vertex* now or later."""
        if not lines:
            return
        if not vertex.lines:
            vertex.waiting = self._clock()
        vertex.lines += lines
        if vertex.number not in self._open or vertex is self._current or self._current is None or self._paused:
            self._show(vertex)
        else:
            self._wake()

    def _complete(self, vertex: _Vertex, outcome: str) -> None:
        del self._open[vertex.number]
        vertex.lines.append(outcome)
        self._show(vertex)
        self._current = None
        if self._open:
            others = self._open.values()
            self._show(min(others, key=lambda other: (not other.lines, other.waiting, other.number)))

    def _show(self, vertex: _Vertex) -> None:
        """Make *vertex* the one that is shown and write its lines."""
        prefix = f"#{vertex.number} "
        text = []
        if vertex is not self._current:
            if self._current is not None:
                text.append(f"#{self._current.number} ...\n")
            if not self._first:
                text.append("\n")
            self._first = False
            text.append(f"{prefix}{vertex.name}\n")
            self._current = vertex
        text += [f"{prefix}{line}\n" for line in vertex.lines]
        vertex.lines = []
        self._write("".join(text))

    def _write_waiting(self, *, patience: float) -> None:
        """Write the lines of vertices that have waited for *patience* seconds, the oldest first."""
        now = self._clock()
        waiting = [vertex for vertex in self._open.values() if vertex.lines and now - vertex.waiting >= patience]
        for vertex in sorted(waiting, key=lambda vertex: vertex.waiting):
            self._show(vertex)

    def _write_warnings(self) -> None:
        if not self._warnings:
            return
        count = len(self._warnings)
        text = [f"\n {count} warning{'s' if count > 1 else ''} found:\n"]
        text += [f" - {escape_line(warning.message)}\n" for warning in self._warnings]
        self._write("".join(text))

    def _write(self, text: str) -> None:
        if self._broken:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._broken = True  # nobody reads any more; the build goes on

    def _wake(self) -> None:
        """Have a thread show what waits; many builds need none."""
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not (self._closed or self._paused):
                oldest = min((vertex.waiting for vertex in self._open.values() if vertex.lines), default=None)
                left = None if oldest is None else oldest + PATIENCE - self._clock()
                if left is not None and left <= 0:
                    self._write_waiting(patience=PATIENCE)
                else:
                    self._changed.wait(left)


def _outcome(vertex: _Vertex, event: VertexCompleted) -> str:
    if event.canceled:
        return "CANCELED"
    if event.error is not None:
        return f"ERROR: {escape_line(event.error)}"
    if event.cached:
        return "CACHED"
    return f"DONE {max(0.0, event.time - vertex.started):.1f}s"


def _status_lines(vertex: _Vertex, event: VertexStatus) -> list[str]:
    part = vertex.parts.get(event.id)
    if part is None:
        part = vertex.parts[event.id] = _Part(event.time)
    elif part.completed or (event.time - part.shown < STATUS_INTERVAL and not event.completed):
        return []
    part.shown, part.completed = event.time, event.completed
    text = escape_line(event.id)
    if event.total or event.current:
        from builder.cli.units import format_transfer  # noqa: PLC0415  (a build that is cached transfers nothing)

        text += f" {format_transfer(event.current)}"
        if event.total:
            text += f" / {format_transfer(event.total)}"
    elapsed = event.time - part.started
    if elapsed > 0.01:
        text += f" {elapsed:.1f}s"
    return [f"{text} done" if event.completed else text]


def _format_stamp(seconds: float) -> str:
    """Return seconds with four significant digits, as far as that means decimals."""
    seconds = max(0.0, seconds)
    decimals = 3 if seconds < 10 else 2 if seconds < 100 else 1
    return f"{seconds:.{decimals}f}"
