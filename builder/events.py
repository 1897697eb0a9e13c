"""Progress as a stream of frozen records.

Whatever happens below the command line is told to an *event sink*, a callable that takes one event and returns at
once. Renderers are sinks. Times are seconds since the epoch (`time.time()`). Sinks may be called from any thread.

Source: field names follow BuildKit's status records (`vertexes`, `statuses`, `logs`, `warnings`).
"""

from __future__ import annotations

from collections.abc import Callable

from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    CacheReason = Literal[
        "cached",  # the store had it
        "imported",  # a cache of --cache-from had it
        "changed",  # something that goes into the step is not what it was
        "new",  # nothing like it was done before
        "record removed",  # nothing changed, but the store forgot it
        "layer removed",  # nothing changed, but the store lost the layer
        "past removed",  # something changed, but the store forgot what was before
        "other version",  # nothing changed but the way in which pybuild asks the cache
        "no-cache",  # --no-cache
        "no-cache-filter",  # --no-cache-filter names the stage
    ]
    """Why a step was done again, or was not."""


@frozen(kw_only=False)
class CacheChange:
    """One thing that goes into a step and is not what it was.

    Attributes:
        kind: what it is, e.g. `variable`, `base image`, `file content`.
        name: which of them, e.g. the name of the variable; empty where there is but one.
        before: its value then; None if it was not there, or is not known.
        now: its value now; None if it is not there, or says nothing.
    """

    kind: str
    name: str = ""
    before: str | None = None
    now: str | None = None


@frozen(kw_only=False)
class CacheAnswer:
    """What the cache said to a vertex.

    Attributes:
        number: the place of the vertex in the plan.
        reason: why it was done again, or was not.
        changes: what changed, where that is the reason.
        more: how many files changed beside those in *changes*.
        place: the cache that an imported layer comes from.
        elsewhere: whether it is compared with another build that had the same instruction, since the last build of
            the Dockerfile had none.
    """

    number: int
    reason: CacheReason
    changes: tuple[CacheChange, ...] = ()
    more: int = 0
    place: str = ""
    elsewhere: bool = False

    @property
    def is_hit(self) -> bool:
        """Whether the step was not done again."""
        return self.reason in {"cached", "imported"}


@frozen
class VertexStarted:
    """A vertex is looked at: named for people, identified by *vertex* for machines."""

    vertex: str
    name: str
    inputs: tuple[str, ...] = ()
    time: float


@frozen
class VertexCompleted:
    """A vertex is done: from the cache, by work, or with an error.

    *answer* is what the cache said, where that was asked for and the vertex has a key.
    """

    vertex: str
    cached: bool = False
    answer: CacheAnswer | None = None
    error: str | None = None
    canceled: bool = False
    time: float


@frozen
class VertexLog:
    """Bytes a step wrote: stream 1 is its standard output, 2 its standard error. Not cut at line ends."""

    vertex: str
    stream: Literal[1, 2]
    data: bytes
    time: float


@frozen
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


@frozen
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
