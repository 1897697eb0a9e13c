"""Source roots: the directories that a step may copy from.

That is the build context, or a read-only view of a stage or an image. What is in it is read by `builder.context.walk`.
Apart, and light, since every build has one and those that copy nothing look at none.
"""

from __future__ import annotations

from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.context.ignore import IgnoreRules
    from runtime.ownership import Owners

KEPT = 1 << 16
"""How many things of a source root are remembered (`builder.context.contents`), so that they are looked for only once."""


class Room:
    """Counts what is still to be remembered of a source root."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = KEPT


@frozen
class SourceRoot:
    """A directory to copy from.

    Attributes:
        fd: descriptor of the directory; the caller closes it.
        shown: what the user knows it by, e.g. "build context" or "stage `build`".
        ignore: what the build does not see of it; None for stages and images.
        keep_owner: whether files keep their owner; files of a context belong to 0:0.
        owners: tells who that is; None if the kernel does, or nobody asks.
        young: for a directory that others may write to while it is read; None where nobody does: stages, images, what
            was fetched. Device, inode and digest of files that were changed so shortly before they were digested that
            one more change may not show. Who digests files adds to it, who copies them compares.
        room: for what is remembered of it.
    """

    fd: int
    shown: str
    ignore: IgnoreRules | None = None
    keep_owner: bool = False
    owners: Owners | None = None
    young: dict[tuple[int, int], bytes] | None = field(default=None, compare=False)
    room: Room = field(default_factory=Room, compare=False)


def image_root(fd: int, shown: str) -> SourceRoot:
    """Return the source root of a mounted stage or image; works only inside the namespace."""
    from runtime.ownership import Owners  # noqa: PLC0415  outside, where contexts are read, nobody asks

    return SourceRoot(fd=fd, shown=shown, keep_owner=True, owners=Owners.here())
