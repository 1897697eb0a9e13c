"""COPY and ADD: from a selection to a layer."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from builder.context.digest_copied import CopiedSelection
from builder.context.root import image_root
from builder.context.select import InlineFile, Selection, select_sources
from builder.solve.ops.archive import place_add
from builder.solve.ops.ownership import resolve_owner
from builder.solve.ops.place import encode_destination, only_directory, place_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.context.digest import Listed
    from builder.context.fingerprint import Fingerprints
    from builder.image.assemble import Layer
    from builder.plan.graph import CopyFiles, Vertex
    from builder.solve.layer import LayerMaker
    from builder.tree import Tree


def select_from_stage(vertex: Vertex, op: CopyFiles, root_fd: int) -> Selection:
    """Find what a COPY takes from the mounted file system of a stage or image."""
    shown = f"`{vertex.sources[0].name}`"
    root = image_root(root_fd, shown)
    sources = select_sources(root, op.paths, excludes=op.exclude, parents=op.parents, span=vertex.span)
    return Selection(root=root, sources=sources)


class CopiedLayer(NamedTuple):
    """The layer of a COPY, and the digest of what was copied as it stands in its key."""

    layer: Layer
    digest: str


def copy_and_digest(
    vertex: Vertex,
    op: CopyFiles,
    selection: Selection,
    tree: Tree,
    layers: LayerMaker,
    fingerprints: Fingerprints,
    listed: Listed,
) -> CopiedLayer:
    """Make the layer of a COPY or ADD of files that were not digested before, each of which is read once.

    Args:
        vertex: for the place of errors.
        op: what is asked for; no archives and nothing from the network is among it.
        selection: the files it takes, without the inline ones.
        tree: the file system it is put on.
        layers: makes the layer.
        fingerprints: take the digests of the files.
        listed: takes what the digest is made of.

    Raises:
        ContextError: a file cannot be read, or was written to meanwhile.
    """
    copied = CopiedSelection(selection, fingerprints, now_ns=time.time_ns(), listed=listed, span=vertex.span)
    layer = copy_files(vertex, op, selection, tree, layers, copied=copied)
    return CopiedLayer(layer, copied.digest)


def copy_files(
    vertex: Vertex,
    op: CopyFiles,
    selection: Selection,
    tree: Tree,
    layers: LayerMaker,
    *,
    remotes: Sequence[Selection] = (),
    copied: CopiedSelection | None = None,
) -> Layer:
    """Make the layer of a COPY or ADD.

    Args:
        vertex: for the place of errors.
        op: what is asked for.
        selection: the files it takes, without the inline ones.
        tree: the file system it is put on.
        layers: makes the layer.
        remotes: what each of the remote sources of *op* gave.
        copied: digests *selection* on the way; None if that was done before.
    """
    owner = resolve_owner(op.chown, tree, span=vertex.span) if op.chown else None
    mode = None
    if op.chmod:
        from builder.plan.mode import Mode  # noqa: PLC0415  few builds have one

        mode = Mode(op.chmod, span=vertex.span)
    inline = tuple(
        InlineFile(name=os.fsencode(file.name), content=file.text.encode("utf-8", "surrogateescape"))
        for file in op.inline
    )
    everything = Selection(root=selection.root, sources=(*selection.sources, *inline))
    directory = None if remotes else only_directory(everything)
    if directory is not None and copied is not None:
        everything = Selection(root=selection.root, sources=(copied.watched(directory),))
    destination = encode_destination(op.destination, span=vertex.span)
    now = int(time.time()) if op.epoch is None else op.epoch
    if remotes:
        from builder.solve.ops.add_remote import place_remotes  # noqa: PLC0415  only for what came over the network

        placed = place_remotes(
            op, everything, remotes, tree, destination, owner=owner, mode=mode, now=now, span=vertex.span
        )
    elif op.unpack:
        placed = place_add(everything, tree, destination, owner=owner, mode=mode, now=now, span=vertex.span)
    else:
        placed = iter(place_copy(everything, tree, destination, owner=owner, mode=mode, now=now, span=vertex.span))
    # Archives are unpacked in their own order; all else is in that of the tar.
    in_order = not op.unpack or directory is not None
    return layers.make_placed(placed, root=everything.root, copied=copied, in_order=in_order and not remotes)
