"""ADD of what came over the network: files of URLs and git checkouts, in one layer with local sources.

Source: spec, section 1.14.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, cast

from builder.context.remote import UrlSource
from builder.context.walk import Found, Opener
from builder.solve.ops.archive import add_selection
from builder.solve.ops.place import PlacedEntry, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.context.root import SourceRoot
    from builder.context.select import Selection
    from builder.plan.graph import CopyFiles
    from builder.plan.mode import Mode
    from builder.solve.ops.ownership import Owner
    from builder.source import Span
    from builder.tree import Tree


def place_remotes(
    op: CopyFiles,
    local: Selection,
    remotes: Sequence[Selection],
    tree: Tree,
    destination: bytes,
    *,
    owner: Owner | None,
    mode: Mode | None,
    now: int,
    span: Span | None,
) -> Iterator[PlacedEntry]:
    """Place local sources, then remote ones.

    Args:
        op: what is asked for.
        local: sources from the context and inline files.
        remotes: what each remote source of *op* gave, each from a root of its own.
        tree: the image.
        destination: absolute; a slash at the end names a directory.
        owner: of `--chown`, or None.
        mode: of `--chmod`, or None.
        now: seconds since the epoch that count as the time of the build.
        span: the instruction, for errors.

    Yields:
        Entries in the order of the tar. Contents of remote sources are streams, since a layer reads files of one root.

    Raises:
        ContextError, CopyError: as `place_add`.
    """
    placement = Placement(tree, owner=owner, mode=mode, now=now, span=span)
    yield from add_selection(placement, local, destination, unpack=op.unpack, owner=owner, span=span)
    for remote, selection in zip(op.remotes, remotes, strict=True):
        unpack = isinstance(remote, UrlSource) and remote.unpack
        for placed in add_selection(placement, selection, destination, unpack=unpack, owner=owner, span=span):
            if isinstance(placed.content, Found) and selection.root is not None:
                # It reads like a binary stream, which is all that the writer asks for.
                yield placed._replace(content=cast("BinaryIO", _File(selection.root, placed.content)))
            else:
                yield placed


class _File:
    """A file of a source root that is open only while it is read.

    Args:
        root: where it was found.
        found: the file.
    """

    __slots__ = ("_ended", "_fd", "_found", "_root")

    def __init__(self, root: SourceRoot, found: Found) -> None:
        self._root = root
        self._found = found
        self._fd = -1
        self._ended = False

    def read(self, size: int) -> bytes:
        """Give the next bytes of the content, none at its end."""
        if self._ended:
            return b""
        if self._fd < 0:
            with Opener(self._root) as opener:
                self._fd = opener.open(self._found)
        data = os.read(self._fd, size)
        if not data:
            self._ended = True
            self._close()
        return data

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self._close()
