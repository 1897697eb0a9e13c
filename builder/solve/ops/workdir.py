"""WORKDIR: the directory is made at once, for the user that is current.

Source: spec, section 1.9 and its corrections in section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.solve.ops.ownership import resolve_owner
from builder.solve.ops.place import PlacedEntry, Placement

if TYPE_CHECKING:
    from builder.source import Span
    from builder.tree import Tree


def place_workdir(path: str, tree: Tree, *, user: str, now: int, span: Span | None = None) -> list[PlacedEntry]:
    """Make the missing directories of *path*: mode 0755, owned by *user*.

    Args:
        path: the working directory, absolute; symbolic links in it are followed inside the image.
        tree: the image.
        user: the current USER, empty for root. A number alone is also the number of the group.
        now: seconds since the epoch that count as the time of the build.
        span: the instruction, for errors.

    Returns:
        The entries of the layer; none if the directory exists, which keeps its mode, owner and content.

    Raises:
        CopyError: something on the way is no directory, or the user is unknown.
    """
    encoded = path.encode("utf-8", "surrogateescape")
    owner = resolve_owner(user, tree, span=span) if user else (0, 0)
    placement = Placement(tree, owner=owner, mode=None, now=now, span=span)
    placement.make_directory(encoded)
    return placement.take()
