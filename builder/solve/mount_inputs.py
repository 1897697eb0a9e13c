"""What a RUN reads through its mounts: part of its cache key, and the places in file systems that it names.

Small, because a build that is cached needs it.

Source: spec, section 3.5: the content of what is mounted is in the key, that of caches, secrets and agents is not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.context.root import image_root
from builder.context.select import Selected, Selection, select_sources
from builder.dockerfile.mounts import BindMount, CacheMount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builder.cache.key import Ingredient
    from builder.context.local import LocalContext
    from builder.context.remote import RemoteContext
    from builder.plan.graph import RunCommand, Vertex
    from builder.plan.mounts import PlannedMount


def select_mounted(context: LocalContext | RemoteContext, vertex: Vertex, mount: PlannedMount) -> Selection:
    """Find what a mount shows of the build context."""
    return context.select((literal_path(mount),), excludes=(), parents=False, span=vertex.span)


def select_mounted_from(root_fd: int, vertex: Vertex, mount: PlannedMount) -> Selection:
    """Find what a mount shows of the opened file system of a stage or image."""
    shown = f"`{vertex.sources[mount.source or 0].name}`"
    root = image_root(root_fd, shown)
    return Selection(root=root, sources=select_sources(root, (literal_path(mount),), span=vertex.span))


def check_mounted(context: LocalContext | RemoteContext, vertex: Vertex, op: RunCommand) -> None:
    """Make sure that the files of the context that a command has seen are those that its key was made of.

    Raises:
        ContextError: one changed meanwhile.
    """
    from builder.context.digest import check_unchanged  # noqa: PLC0415  a build that is cached has no use for it

    for mount in op.mounts:
        if mount.reads_context:
            before = select_mounted(context, vertex, mount)
            sources = select_sources(context.root, (literal_path(mount),), span=vertex.span)
            check_unchanged(before, Selection(root=context.root, sources=sources))


def selected_of(selection: Selection) -> Selected:
    """Return the one file or directory that a mount shows."""
    (selected,) = (source for source in selection.sources if isinstance(source, Selected))
    return selected


def literal_path(mount: PlannedMount) -> str:
    """Return the path a mount names below its root, its wildcards quoted: they mean nothing in a mount."""
    source = mount.mount.source if isinstance(mount.mount, BindMount | CacheMount) else "/"
    return re.sub(r"([*?\[\\])", r"\\\1", source)


def cheap_ingredients(
    op: RunCommand, contents: Sequence[str], digest: Callable[[PlannedMount], str]
) -> list[Ingredient]:
    """Name what is mounted, other file systems by the content of all of them.

    Args:
        op: the command.
        contents: the content of each source of its vertex.
        digest: digests what a mount shows of the build context.
    """
    ingredients: list[Ingredient] = []
    for mount in op.mounts:
        if mount.reads_context:
            ingredients.append(("mounted files", digest(mount)))
        elif mount.source is not None:
            ingredients.append(("mounted path", literal_path(mount)))
            ingredients.append(("mounted file system", contents[mount.source]))
    return ingredients


def exact_ingredients(op: RunCommand, digest: Callable[[PlannedMount], str]) -> list[Ingredient]:
    """Name what is mounted by the content of what is seen of it; *digest* digests that of a mount."""
    reading = (mount for mount in op.mounts if mount.reads_context or mount.source is not None)
    return [("mounted files", digest(mount)) for mount in reading]
