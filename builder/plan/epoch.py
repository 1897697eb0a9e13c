"""SOURCE_DATE_EPOCH: the time that stands for the present, so that a build can be repeated to the byte.

Its value is a number of seconds, or names what has a time: the build context, a named context, a stage.

Source: reproducible-builds.org, SOURCE_DATE_EPOCH specification; BuildKit, docs/build-repro.md and
dockerfile2llb/epoch.go.
"""

from __future__ import annotations

import re
import time

from builder.dockerfile import instructions as dockerfile
from builder.errors import UsageError
from builder.plan.image_state import SCRATCH
from builder.plan.scope import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from builder.context.named import NamedContexts
    from builder.context.remote import RemoteSource
    from builder.dockerfile.stages import Dockerfile, Stage
    from builder.request import BuildRequest
    from builder.source import Span

EPOCH_ARG = "SOURCE_DATE_EPOCH"
"""The build argument that says it; an ARG of this name before the first FROM gives a default."""

CONTEXT = "context"
"""The value that takes the time of the context: of a commit, of a file on a server."""

_NUMBER: Final = r"[+-]?[0-9]+"


class EpochNames:
    """What the value of the argument can name, and when that was made. Only what is named is looked at.

    Args:
        source: its stages; one that is `FROM scratch` with one ADD from the network has the time of that.
        contexts: named contexts, which come before stages.
        context_time: what `context` means, in seconds; None if the context has no time of its own, as a folder.
        remote_time: finds the time of what is on the network, in seconds.
    """

    def __init__(
        self,
        source: Dockerfile,
        contexts: NamedContexts | None,
        context_time: int | None,
        remote_time: Callable[[RemoteSource, Span], int | None],
    ) -> None:
        self._source = source
        self._contexts = contexts
        self._context_time = context_time
        self._remote_time = remote_time

    def time(self, name: str, request: BuildRequest, environ: Mapping[str, str]) -> int | None:
        """Find the time of what is named, in seconds; None if it has none, as a folder.

        Args:
            name: `context`, a named context, or a stage in any case of letters.
            request: the platform, and arguments for the ARGs of a stage.
            environ: the arguments before the first FROM.

        Raises:
            UsageError: there is nothing of that name, or it is a stage that has other things in it.
            DockerfileError, SourceError: what it names cannot be had.
        """
        if name == CONTEXT:
            return self._context_time
        named = self._contexts.find(name, request.platform) if self._contexts else None
        if named is not None and self._contexts is not None:
            return self._contexts.time(named.key)
        for stage in self._source.stages:
            if stage.name == name.lower():
                visible = {key: value for key, value in environ.items() if key != EPOCH_ARG}
                return self._time_of_stage(stage, request, visible)
        known = [CONTEXT, *(self._contexts.names() if self._contexts else ())]
        known += [stage.name for stage in self._source.stages if stage.name]
        raise UsageError(
            f"invalid SOURCE_DATE_EPOCH: `{name}`",
            hint=f"give seconds since 1970 as a number, or a name: {', '.join(dict.fromkeys(known))}",
        )

    def _time_of_stage(self, stage: Stage, request: BuildRequest, environ: dict[str, str]) -> int | None:
        from builder.plan.remote_sources import split_sources  # noqa: PLC0415  most builds name no stage

        scope = Scope(environ, self._source.directives.escape, stage.base.span)
        found: list[tuple[RemoteSource, Span]] = []
        is_plain = scope.text(stage.base.image) == SCRATCH
        for instruction in stage.instructions:
            scope.span = instruction.span
            match instruction:
                case dockerfile.Arg():
                    for name, default in instruction.pairs:
                        if name in request.build_args:
                            environ[name] = request.build_args[name]
                        elif default is not None:
                            environ[name] = scope.text(default)
                case dockerfile.Add(sources=[path], files=()):
                    checksum = scope.optional(instruction.checksum)
                    _, remotes = split_sources(instruction, (scope.text(path),), checksum)
                    found += [(remote, instruction.span) for remote in remotes]
                    is_plain = is_plain and bool(remotes)
                case _:
                    is_plain = False
        if not is_plain or len(found) != 1:
            raise UsageError(
                f"SOURCE_DATE_EPOCH names a stage without a time: `{stage.name}`",
                hint="a stage has one if it is FROM scratch and one ADD of one address",
                span=stage.span,
            )
        return self._remote_time(*found[0])


def resolve_epoch(text: str | None, names: EpochNames, request: BuildRequest, environ: Mapping[str, str]) -> int | None:
    """Find the time that the value of the argument says, in seconds since 1970.

    Args:
        text: a number, or a name; empty and None leave the clock in charge.
        names: what can be named.
        request: as for `EpochNames.time`.
        environ: as for `EpochNames.time`.

    Raises:
        UsageError: it says none, or one outside of what a time stamp can say.
        DockerfileError, SourceError: what it names cannot be had.
    """
    if not text:
        return None
    if not re.fullmatch(_NUMBER, text):
        return names.time(text, request, environ)
    try:
        format_epoch(int(text))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"SOURCE_DATE_EPOCH is not a time: `{text}`", hint="give seconds since 1970, e.g. `git log -1 --format=%ct`"
        ) from error
    return int(text)


def format_epoch(seconds: int) -> str:
    """Write a time as image configs do, RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
