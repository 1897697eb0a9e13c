"""ADD: local tar archives are unpacked, everything else is copied.

An archive is known by its content, never by its name: a tar, or one compressed with gzip, bzip2, xz or zstd, of which
at least one entry can be read. Its entries go below the destination, which is always a directory.

A tar cannot be sorted without reading it twice, so unpacked entries keep the order of the archive. Directories that an
archive does not name stand before the first entry below them; of entries with the same name the last one counts, as
when unpacking. FIFOs and device nodes are left out. The result depends on the archive and the image alone.

Source: spec, section 1.14 and its corrections in section 6; moby/buildkit, solver/llbsolver/file/unpack_root.go.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO, cast

from builder.context.digest import CheckedFile
from builder.context.select import InlineFile
from builder.context.walk import Opener, shown
from builder.errors import ContextError, CopyError
from builder.solve.ops.place import PlacedEntry, Placement, only_directory
from builder.tree import Below, resolve
from registry.errors import RegistryError
from runtime.errors import LayerError
from runtime.layers.entry import EntryKind
from runtime.layers.whiteouts import WHITEOUT_PREFIX
from runtime.layers.xattrs import travels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.context.root import SourceRoot
    from builder.context.select import Selected, Selection
    from builder.plan.mode import Mode
    from builder.solve.ops.ownership import Owner
    from builder.source import Span
    from builder.tree import Tree
    from runtime.layers.entry import Entry
    from runtime.layers.read import Member

_DAMAGED = (RegistryError, LayerError, EOFError)
"""What reading a damaged archive ends in."""

_LEFT_OUT = (EntryKind.FIFO, EntryKind.CHARACTER, EntryKind.BLOCK)
"""What ADD does not unpack."""

_SMALLEST = 20
"""Bytes below which nothing is an archive, not even a compressed empty one."""


def place_add(
    selection: Selection,
    tree: Tree,
    destination: bytes,
    *,
    unpack: bool = True,
    owner: Owner | None,
    mode: Mode | None,
    now: int,
    span: Span | None = None,
) -> Iterator[PlacedEntry]:
    """Place *selection* at *destination*, unpacking archives.

    Args:
        selection: what is added.
        tree: the image; an `EmptyTree` for scratch and for `--link`.
        destination: absolute; a slash at the end names a directory.
        unpack: False for `--unpack=false`.
        owner: of `--chown`; it also overrides the owners in archives.
        mode: of `--chmod`; archives are left alone by it.
        now: seconds since the epoch that count as the time of the build.
        span: the instruction, for errors.

    Yields:
        Entries in the order of the tar; the content of an unpacked one must be read before the next is taken.

    Raises:
        ContextError: an archive is damaged, or cannot be read.
        CopyError: an entry does not fit.
    """
    placement = Placement(tree, owner=owner, mode=mode, now=now, span=span)
    if (directory := only_directory(selection)) is not None:
        yield from placement.copy_directory(directory, destination, root=selection.root)
        return
    yield from add_selection(placement, selection, destination, unpack=unpack, owner=owner, span=span)


def add_selection(
    placement: Placement,
    selection: Selection,
    destination: bytes,
    *,
    unpack: bool,
    owner: Owner | None,
    span: Span | None,
) -> Iterator[PlacedEntry]:
    """Place one selection on top of what *placement* has; arguments and raises are those of `place_add`."""
    root = selection.root
    for source in selection.sources:
        if unpack and root is not None and not isinstance(source, InlineFile) and is_archive(root, source):
            yield from _Unpacking(placement, owner, span).run(root, source, destination)
        else:
            placement.copy(source, destination, root=root)
    yield from placement.take()


def is_archive(root: SourceRoot, source: Selected) -> bool:
    """Tell whether a selected file is a tar archive, compressed or not, with at least one entry."""
    status = source.item.stat
    if not stat.S_ISREG(status.st_mode) or status.st_size < _SMALLEST:
        return False
    from registry.content.layer_stream import open_archive  # noqa: PLC0415 - compressors are slow to load
    from runtime.layers.read import read_archive  # noqa: PLC0415 - only ADD needs it

    with Opener(root) as opener, os.fdopen(opener.open(source.item), "rb") as stream:
        try:
            return next(iter(read_archive(open_archive(stream))), None) is not None
        except LayerError as error:
            return bool(error.entry)  # a tar whose first entry is hostile is a tar, and is refused as one
        except (*_DAMAGED, OSError, ValueError):
            return False


class _Content:
    """The content of a member of an archive, with errors that name the archive.

    Args:
        member: of the archive.
        archive: path of the archive.
        span: the instruction, for errors.
    """

    __slots__ = ("_archive", "_member", "_span")

    def __init__(self, member: Member, archive: bytes, span: Span | None) -> None:
        self._member = member
        self._archive = archive
        self._span = span

    def read(self, size: int = -1) -> bytes:
        """Give the next bytes of the content, none at its end."""
        try:
            return self._member.read(size)
        except _DAMAGED as error:
            raise _damaged(self._archive, error, self._span) from error


class _Unpacking:
    """One archive on its way into a layer.

    Args:
        placement: the layer in the making.
        owner: of `--chown`, or None.
        span: the instruction, for errors.
    """

    def __init__(self, placement: Placement, owner: Owner | None, span: Span | None) -> None:
        self._placement = placement
        self._owner = owner
        self._span = span
        self._folders: dict[bytes, bytes] = {}
        self._base = b""

    def run(self, root: SourceRoot, source: Selected, destination: bytes) -> Iterator[PlacedEntry]:
        """Unpack *source* below *destination*."""
        from registry.content.layer_stream import open_archive  # noqa: PLC0415 - compressors are slow to load
        from runtime.layers.read import read_archive  # noqa: PLC0415 - only ADD needs it

        placement = self._placement
        self._base = placement.make_directory(destination)
        placement.touch(self._base)
        name = source.item.path
        with Opener(root) as opener, os.fdopen(opener.open(source.item), "rb") as file:
            stream = CheckedFile(root, opener, source.item, file.fileno())
            try:
                for member in read_archive(open_archive(cast("BinaryIO", stream))):
                    if member.entry.kind in _LEFT_OUT:
                        continue
                    entry = self._place(member.entry)
                    if entry is None:
                        continue
                    yield from placement.take()
                    if entry.kind is EntryKind.FILE and entry.size:
                        # It reads like a binary stream, which is all that the writer asks for.
                        yield PlacedEntry(entry, cast("BinaryIO", _Content(member, name, self._span)))
                    else:
                        yield PlacedEntry(entry)
            except _DAMAGED as error:
                stream.check()  # tells an archive that changed meanwhile from a damaged one
                raise _damaged(name, error, self._span) from error
            stream.check()
        yield from placement.take()

    def _place(self, entry: Entry) -> Entry | None:
        """Find the place of one entry and put the directories it needs; None for the root of the archive."""
        if not entry.path:
            return None
        placement = self._placement
        path = self._locate(entry.path)
        folder = path.rpartition(b"/")[0]
        placement.make_directory(folder)
        there = placement.tree.find(path)
        if folder not in placement.tree.added:
            placement.touch(folder)
        linkname = entry.linkname
        if entry.kind is EntryKind.HARDLINK:
            linkname = self._locate(linkname)
            if placement.tree.added.get(linkname) is None:
                raise CopyError(
                    f"hard link to a file that is not in the archive: `{shown(path)}`",
                    hint="make the archive anew, or copy it as a file with --unpack=false",
                    span=self._span,
                )
        uid, gid = self._owner or (entry.uid, entry.gid)
        xattrs = tuple(pair for pair in entry.xattrs if travels(pair[0]))
        placed = entry._replace(path=path, uid=uid, gid=gid, linkname=linkname, xattrs=xattrs)
        if entry.kind is EntryKind.SYMLINK or (there is not None and there.kind is EntryKind.SYMLINK):
            self._folders.clear()
        placement.tree.add(placed)
        return placed

    def _locate(self, path: bytes) -> bytes:
        """Find where a path of the archive lies in the image: links on the way followed, its last name kept.

        The destination is the root for links, also for those that the image has: an absolute one begins there, and
        none leaves it.
        """
        folder, _, name = path.rpartition(b"/")
        if name.startswith(WHITEOUT_PREFIX):
            raise CopyError(
                f"a layer cannot hold a file whose name begins with .wh.: `{shown(path)}`",
                hint="make the archive without it, or copy it as a file with --unpack=false",
                span=self._span,
            )
        located = self._folders.get(folder)
        if located is None:
            below = resolve(Below(self._placement.tree, self._base), folder, follow_last=True)
            located = b"/".join(filter(None, (self._base, below)))
            self._folders[folder] = located
        return located + b"/" + name if located else name


def _damaged(archive: bytes, error: Exception, span: Span | None) -> ContextError:
    return ContextError(
        f"archive is damaged, {error}: `{shown(archive)}`",
        hint="make the archive anew, or copy it as a file with --unpack=false",
        span=span,
    )
