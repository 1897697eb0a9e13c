"""Progress as a stream of frozen records.

Whatever happens below the command line is told to an *event sink*, a callable that takes one event and returns at
once. Renderers are sinks. Times are seconds since the epoch (`time.time()`). Sinks may be called from any thread.

Source: field names follow BuildKit's status records (`vertexes`, `statuses`, `logs`, `warnings`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexStarted:
    """A vertex is looked at: named for people, identified by *vertex* for machines."""

    vertex: str
    name: str
    inputs: tuple[str, ...] = ()
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexCompleted:
    """A vertex is done: from the cache, by work, or with an error."""

    vertex: str
    cached: bool = False
    error: str | None = None
    canceled: bool = False
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexLog:
    """Bytes a step wrote: stream 1 is its standard output, 2 its standard error. Not cut at line ends."""

    vertex: str
    stream: Literal[1, 2]
    data: bytes
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexStatus:
    """How far a transfer or another measured part of a vertex is.

    *id* names the part, e.g. a digest or "exporting layers"; *total* is 0 when unknown; *completed* says that it ended.
    Units: bytes where *current* or *total* is not 0.
    """

    vertex: str
    id: str
    current: int = 0
    total: int = 0
    completed: bool = False
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the user should know that does not stop the build.

    *location* is `file:line`, or empty; *url* is a page about it, or empty.
    """

    vertex: str | None
    message: str
    detail: str = ""
    location: str = ""
    url: str = ""
    time: float


Event = VertexStarted | VertexCompleted | VertexLog | VertexStatus | Warned
"""Everything a sink can be given."""

EventSink = Callable[[Event], None]
"""Takes one event; may be called from any thread."""
