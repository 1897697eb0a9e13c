"""Collecting at the end of a build, as `--gc` or `$PYBUILD_GC` says, and the one line about it."""

from __future__ import annotations

import time

from builder.collect.room import has_room
from builder.events import VertexCompleted, VertexStarted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment
    from builder.collect.limits import Limits
    from builder.events import EventSink
    from builder.store import Store


class Collecting:
    """What is collected when a build ends.

    Args:
        arguments: of the parser of `build`.
        environment: the surroundings.
        sink: is told what was removed.

    Raises:
        UsageError: the option or the variable cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace, environment: Environment, sink: EventSink) -> None:
        self._sink = sink
        self._limits: Limits | None = None
        text, option = environment.gc(arguments.gc)
        self._is_default = not text
        if text:
            from builder.cli.space_limits import parse_limits  # noqa: PLC0415  only where it is asked for

            self._limits = parse_limits(text, option=option)

    def collect(self, store: Store, error: BaseException | None = None, *, is_inside: bool) -> None:
        """Hold the cache to its limits.

        Args:
            store: of the build.
            error: what the build ended with, which may have been a lack of space; nothing is done if it was ended.
            is_inside: whether this is the namespace.
        """
        is_ended = error is not None and not isinstance(error, Exception)
        if is_ended or (has_room(store.root) if self._is_default else self._limits is None):
            return
        from builder.cli.units import format_size  # noqa: PLC0415  only when there is something to do
        from builder.collect.automatic import collect_after_build  # noqa: PLC0415  as above
        from builder.collect.limits import DEFAULT_LIMITS  # noqa: PLC0415  as above

        freed = collect_after_build(store, self._limits or DEFAULT_LIMITS, is_inside=is_inside)
        if freed:
            self._tell(f"[internal] removed {format_size(freed)} of cache, least recently used first, for disk space")

    def _tell(self, name: str) -> None:
        from builder.cache.key import derive_key  # noqa: PLC0415  as above

        vertex = f"sha256:{derive_key([('work', name)])}"
        self._sink(VertexStarted(vertex=vertex, name=name, time=time.time()))
        self._sink(VertexCompleted(vertex=vertex, time=time.time()))
