"""Placing a selection onto an image: the entries of the layer that a COPY makes.

Nothing is mounted or unpacked for it. The destination is a `Tree`, the result a list of entries in the order of the
layer's tar: each directory before its contents, names in byte order. With each changed entry stand the directories
above it, as a snapshotter that compares file systems would write them; a directory in which something was made or
replaced has the time of the build.

Source: spec, sections 1.12 and 2.3; tonistiigi/fsutil, copy/copy.go, which BuildKit carries COPY out with.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from builder.context.digest import CheckedFile, read_capability
from builder.context.digest_copied import CopiedFile
from builder.context.select import InlineFile, Selected
from builder.context.walk import KINDS, Found, Opener, changed_error, encode_path, shown
from builder.errors import CopyError
from builder.tree import OverlayTree, resolve
from runtime.errors import LayerError
from runtime.layers.archive import READ_SIZE
from runtime.layers.entry import Entry, EntryKind
from runtime.layers.whiteouts import WHITEOUT_PREFIX
from runtime.layers.xattrs import CAPABILITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builder.context.digest import FileDigests
    from builder.context.root import SourceRoot
    from builder.context.select import Selection
    from builder.plan.mode import Mode
    from builder.solve.ops.ownership import Owner
    from builder.source import Span
    from builder.tree import Tree
    from runtime.layers.archive import ArchiveWriter


_RIGHTS = stat.S_ISUID | stat.S_ISGID
_MOST = 0o170000 | 0o7000
"""Type of a file, and the mode bits that few have."""


class PlacedEntry(NamedTuple):
    """An entry of the layer to be made, and where its content is.

    Attributes:
        entry: as it will stand in the layer.
        content: a file of the source root, the bytes themselves, a stream that must be read before the next entry is
            taken, or None.
    """

    entry: Entry
    content: Found | bytes | BinaryIO | None = None


def encode_destination(text: str, *, span: Span | None = None) -> bytes:
    """Turn the text of a destination into a path.

    Raises:
        CopyError: it holds a NUL, or what is no text.
    """
    path = encode_path(text)
    if path is None:
        raise CopyError(f"destination cannot be a path: `{text!r}`", hint="write another path", span=span)
    return path


def place_copy(
    selection: Selection,
    tree: Tree,
    destination: bytes,
    *,
    owner: Owner | None,
    mode: Mode | None,
    now: int,
    span: Span | None = None,
) -> Iterable[PlacedEntry]:
    """Place *selection* at *destination*; if it is one directory, while its entries are taken.

    Args:
        selection: what is copied.
        tree: the image; an `EmptyTree` for scratch and for `--link`.
        destination: absolute; a slash at the end names a directory.
        owner: of `--chown`, or None to keep owners (0:0 for everything from a context).
        mode: of `--chmod`, or None.
        now: seconds since the epoch that count as the time of the build.
        span: the instruction, for errors.

    Returns:
        The entries of the layer, possibly none.

    Raises:
        CopyError: a file would replace a directory, a directory a file, or several sources one another.
    """
    placement = Placement(tree, owner=owner, mode=mode, now=now, span=span)
    if (directory := only_directory(selection)) is not None:
        return placement.copy_directory(directory, destination, root=selection.root)
    for source in selection.sources:
        placement.copy(source, destination, root=selection.root)
    return placement.take()


def only_directory(selection: Selection) -> Selected | None:
    """Give the directory that is all of a selection; None if it is something else."""
    match selection.sources:
        case (Selected() as source,) if source.is_directory:
            return source
        case _:
            return None


def write_entries(
    placed: Iterable[PlacedEntry],
    writer: ArchiveWriter,
    *,
    root: SourceRoot | None,
    digests: FileDigests | None = None,
) -> None:
    """Write *placed* into a layer, with the content of the files. Does not finish the writer.

    Args:
        placed: entries in the order of the tar.
        writer: of the layer.
        root: where the content of files is read; None if there are only inline files.
        digests: takes the digest of each file that is read; None if they were digested before.

    Raises:
        ContextError: a file cannot be read, or changed since it was selected.
    """
    add = writer.add
    with Opener(root) as opener:
        for entry, content in placed:
            if content is None:
                add(entry)
            elif not isinstance(content, Found):
                add(entry, content)
            elif digests is None or root is None:
                _add_file(writer, entry, content, opener, root)
            else:
                _add_digested(writer, entry, content, opener, root, digests)


def _add_digested(
    writer: ArchiveWriter, entry: Entry, found: Found, opener: Opener, root: SourceRoot, digests: FileDigests
) -> None:
    """Write a file that was not read before."""
    status = found[1]
    if entry[6] < READ_SIZE and not status.st_mode & 0o111:
        data = opener.read(found)
        writer.add(entry, data)
        digest = sha256(data).digest()
    else:
        digest = _add_program(writer, entry, found, opener, root)
    if digests.setdefault((status.st_dev, status.st_ino), digest) != digest:
        raise changed_error(root, found.path)


def _add_program(writer: ArchiveWriter, entry: Entry, found: Found, opener: Opener, root: SourceRoot) -> bytes:
    """Write a file that is large or may have capabilities; returns its digest."""
    fd = opener.open(found)
    try:
        capability = read_capability(fd) if found.stat.st_mode & 0o111 else None
        if capability is not None:
            entry = entry._replace(xattrs=((CAPABILITY, capability),))
        file = CopiedFile(root, opener, found, fd)
        try:
            writer.add(entry, cast("BinaryIO", file))
        except LayerError:
            opener.check(found, fd)  # tells a file that changed meanwhile from other faults
            raise
        return file.digest(capability)
    finally:
        os.close(fd)


def _add_file(writer: ArchiveWriter, entry: Entry, found: Found, opener: Opener, root: SourceRoot | None) -> None:
    fd = opener.open(found)
    try:
        status = found[1]
        if status.st_mode & 0o111 and (capability := read_capability(fd)) is not None:
            entry = entry._replace(xattrs=((CAPABILITY, capability),))
        if root is not None and root.young and (status.st_dev, status.st_ino) in root.young:
            file = CheckedFile(root, opener, found, fd)
            writer.add(entry, cast("BinaryIO", file))
            file.check()
        else:
            writer.add(entry, fd)
            opener.check(found, fd)
    except LayerError:
        os.close(opener.open(found))  # tells a file that changed meanwhile from other faults
        raise
    finally:
        os.close(fd)


class Placement:
    """A layer in the making: sources are placed one after the other, later ones on top of earlier ones.

    Args:
        tree: the image below.
        owner: of `--chown`, or None.
        mode: of `--chmod`, or None.
        now: the time of the build, in seconds.
        span: the instruction, for errors.
    """

    def __init__(self, tree: Tree, *, owner: Owner | None, mode: Mode | None, now: int, span: Span | None) -> None:
        self.tree = OverlayTree(tree)
        self._owner = owner
        self._mode = mode
        self._now = now
        self._span = span
        self._contents: dict[bytes, Found | bytes | None] = {}
        self._links: dict[bytes, tuple[int, int, int]] = {}
        self._taken: set[bytes] = set()
        self._named: set[bytes] = set()
        self._source = 0

    def copy(self, source: Selected | InlineFile, destination: bytes, *, root: SourceRoot | None) -> None:
        """Place one source.

        Raises:
            CopyError: it does not fit what is there.
        """
        target, there = self._begin(destination)
        if isinstance(source, InlineFile) or not source.is_directory:
            name = source.name.rpartition(b"/")[2]
            if there is not None and there.kind is EntryKind.DIRECTORY and name:
                target = target + b"/" + name if target else name
            elif target in self._named:
                raise CopyError(
                    f"several sources would be written over one another: `{shown(target)}`",
                    hint=f"end the destination with a slash if it is a directory: {shown(target)}/",
                    span=self._span,
                )
            else:
                self._named.add(target)
            if isinstance(source, InlineFile):
                self._put_file(target, None, source.content, keep_owner=False)
            else:
                self._put_file(target, source.item, None, keep_owner=root is not None and root.keep_owner)
        else:
            self._open_directory(target, there)
            self._put_contents(source, target, keep_owner=root is not None and root.keep_owner)
            self._put_top(source, target)

    def copy_directory(self, source: Selected, destination: bytes, *, root: SourceRoot | None) -> Iterator[PlacedEntry]:
        """Place one directory and nothing else, entry by entry, in the order of the tar.

        That is the order in which a directory is walked, so however much lies in it, little of it is in memory.

        Yields:
            What `take` would give after `copy`.

        Raises:
            CopyError: it does not fit what is there; perhaps only when some entries were given.
        """
        target, there = self._begin(destination)
        self._open_directory(target, there)
        self._put_top(source, target)
        yield from self.take()
        yield from self._place_contents(source, target, keep_owner=root is not None and root.keep_owner)

    def _begin(self, destination: bytes) -> tuple[bytes, Entry | None]:
        """Begin a source: give the path that its destination leads to, and what is there."""
        self._source += 1
        folder, slash, last = destination.rpartition(b"/")
        self.make_directory(destination if slash and not last else folder)
        target = self._resolve(destination)
        return target, self.tree.find(target)

    def _open_directory(self, target: bytes, there: Entry | None) -> None:
        if there is not None and there.kind is not EntryKind.DIRECTORY:
            raise self._not_a_directory(target)
        self.make_directory(target)

    def _place_contents(self, source: Selected, target: bytes, *, keep_owner: bool) -> Iterator[PlacedEntry]:
        firsts: dict[tuple[int, int], bytes] = {}
        regular = EntryKind.FILE
        placed, new = PlacedEntry, tuple.__new__
        for item, made in self._merge(source, target, keep_owner=keep_owner, is_first=True):
            entry = made
            content: Found | None = None
            if entry[1] is regular:
                content = item if entry[6] else None
                status = item[1]
                if status.st_nlink > 1:
                    path = entry[0]
                    first = firsts.setdefault((status.st_dev, status.st_ino), path)
                    if first is not path:
                        entry, content = entry._replace(kind=EntryKind.HARDLINK, size=0, linkname=first), None
            yield new(placed, (entry, content))

    def make_directory(self, path: bytes) -> bytes:
        """Make the directory *path* and those above it that are missing; returns it with its links followed.

        Raises:
            CopyError: something on the way is no directory.
        """
        target = self._resolve(path)
        missing: list[bytes] = []
        at = target
        while at:
            there = self.tree.find(at)
            if there is not None:
                if there.kind is not EntryKind.DIRECTORY:
                    raise self._not_a_directory(at)
                break
            missing.append(at)
            at = at.rpartition(b"/")[0]
        if missing:
            self.touch(at)
            uid, gid = self._owner or (0, 0)
            mode = 0o755 if self._mode is None else self._mode.of_made_directory()
            for directory in reversed(missing):
                self._check_name(directory)
                self.put(Entry(directory, EntryKind.DIRECTORY, mode, uid, gid, self._now))
        return target

    def put(self, entry: Entry, content: Found | bytes | None = None) -> None:
        """Put one entry on top; the directory it lies in must be there."""
        self.tree.add(entry)
        self._links.pop(entry.path, None)
        self._contents[entry.path] = content

    def touch(self, path: bytes) -> None:
        """Give a directory the time of the build, because something in it was made or replaced."""
        if not path:
            return
        there = self.tree.find(path)
        if there is None or (there.mtime == self._now and (path in self._contents or path in self._taken)):
            return
        self.put(there._replace(mtime=self._now))

    def take(self) -> list[PlacedEntry]:
        """Take what was placed since the last time, in the order of the tar, with the directories above it."""
        contents, added = self._contents, self.tree.added
        above = {path[: path.rfind(b"/")] for path in contents if b"/" in path}
        for folder in tuple(above):
            at = folder.rfind(b"/")
            while at > 0 and (parent := folder[:at]) not in above:
                above.add(parent)
                at = parent.rfind(b"/")
        entries = dict.fromkeys(contents)
        for folder in above:
            if folder not in contents and folder not in self._taken:
                entries[folder] = None
        paths = sorted(entries, key=_tar_order)
        placed: list[PlacedEntry] = []
        links, firsts = self._links, dict[tuple[int, int, int], bytes]()
        for path in paths:
            entry = added.get(path) or self.tree.find(path)
            if entry is None:
                continue
            content = contents.get(path)
            if links and (inode := links.get(path)) is not None:
                first = firsts.setdefault(inode, path)
                if first is not path:
                    entry, content = entry._replace(kind=EntryKind.HARDLINK, size=0, linkname=first), None
            placed.append(PlacedEntry(entry, content))
        self._taken.update(above)
        self._taken.update(path for path in contents if added[path].kind is EntryKind.DIRECTORY)
        self._contents = {}
        self._links = {}
        return placed

    def _put_file(self, target: bytes, item: Found | None, content: bytes | None, *, keep_owner: bool) -> None:
        there = self.tree.find(target)
        if there is not None and there.kind is EntryKind.DIRECTORY:
            raise self._is_a_directory(target)
        self._check_name(target)
        folder = target.rpartition(b"/")[0]
        self.make_directory(folder)
        self.touch(folder)
        if item is None:
            mode = 0o644 if self._mode is None else self._mode.apply(0o644, is_directory=False)
            uid, gid = self._owner or (0, 0)
            data = content or b""
            self.put(Entry(target, EntryKind.FILE, mode, uid, gid, self._now, len(data)), data)
            return
        entry = self._entry(item, target, keep_owner=keep_owner)
        self.put(entry, item if entry.size else None)

    def _put_contents(self, source: Selected, target: bytes, *, keep_owner: bool) -> None:
        """Merge the contents of a directory into the directory *target*."""
        added, contents, links = self.tree.added, self._contents, self._links
        number, regular = self._source, EntryKind.FILE
        is_first = number == 1 and not self._taken
        for item, entry in self._merge(source, target, keep_owner=keep_owner, is_first=is_first):
            path = entry[0]
            if links:
                links.pop(path, None)
            added[path] = entry
            if entry[1] is regular:
                contents[path] = item if entry[6] else None
                status = item[1]
                if status.st_nlink > 1:
                    links[path] = (number, status.st_dev, status.st_ino)
            else:
                contents[path] = None

    def _merge(
        self, source: Selected, target: bytes, *, keep_owner: bool, is_first: bool
    ) -> Iterator[tuple[Found, Entry]]:
        """Give what is copied of a directory, each with its entry in the directory *target*.

        Args:
            source: the directory.
            target: where its contents go.
            keep_owner: whether they keep their owner.
            is_first: nothing but the image below can be in the way, as no other source was placed before.

        Raises:
            CopyError: a file would replace a directory, or the other way round.
        """
        tree = self.tree
        added = tree.added
        occupied: dict[bytes, dict[bytes, Entry]] = {target: {one.path: one for one in tree.children_below(target)}}
        is_busy = bool(occupied[target]) or not is_first
        prefix = target + b"/" if target else b""
        skip = source.skip
        directory, regular = EntryKind.DIRECTORY, EntryKind.FILE
        make, new = self._entry, tuple.__new__
        is_plain = self._mode is None and self._owner is None and not keep_owner
        for item in source.below:
            path = prefix + item[0][skip:]
            status = item[1]
            full = status.st_mode
            if is_plain and full & _MOST == stat.S_IFREG:
                # What `_entry` would give; nearly everything is such a file.
                entry = new(Entry, (path, regular, full & 0o777, 0, 0, status[8], status.st_size, b"", (0, 0), ()))
            else:
                entry = make(item, path, keep_owner=keep_owner)
            if is_busy:
                kind = entry[1]
                there = added.get(path)
                if there is None:
                    around = occupied.get(path[: max(path.rfind(b"/"), 0)])
                    there = around.get(path) if around else None
                if there is not None and (kind is directory) is not (there.kind is directory):
                    raise self._not_a_directory(path) if kind is directory else self._is_a_directory(path)
                if there is not None and kind is directory:
                    occupied[path] = {one.path: one for one in tree.children_below(path)}
            if b".wh." in path:
                self._check_name(path)
            yield item, entry

    def _put_top(self, source: Selected, target: bytes) -> None:
        """Give the directory that takes the contents of another in the time of that."""
        top = self.tree.find(target)
        if target and top is not None:
            self.put(top._replace(mtime=int(source.item.stat[stat.ST_MTIME])))

    def _entry(self, item: Found, path: bytes, *, keep_owner: bool) -> Entry:
        """Make the entry of a file as it lies at *path*."""
        _, status, linkname = item
        full = status.st_mode
        kind = KINDS[full & 0o170000]
        mode = full & 0o7777
        if not keep_owner and mode & _RIGHTS and kind is EntryKind.FILE:
            mode = _without_rights(mode)
        if self._mode is not None and kind is not EntryKind.SYMLINK:
            mode = self._mode.apply(mode, is_directory=kind is EntryKind.DIRECTORY)
        if self._owner is not None:
            uid, gid = self._owner
        elif keep_owner:
            uid, gid = status.st_uid, status.st_gid
        else:
            uid = gid = 0
        mtime = int(status[stat.ST_MTIME])
        if kind is EntryKind.FILE:
            return Entry(path, kind, mode, uid, gid, mtime, status.st_size)
        if kind is EntryKind.CHARACTER or kind is EntryKind.BLOCK:
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
            return Entry(path, kind, mode, uid, gid, mtime, 0, b"", device)
        return Entry(path, kind, mode, uid, gid, mtime, 0, linkname)

    def _resolve(self, path: bytes) -> bytes:
        try:
            return resolve(self.tree, path, follow_last=True)
        except CopyError as error:
            error.span = error.span or self._span
            raise

    def _check_name(self, path: bytes) -> None:
        """Refuse a name that a layer cannot hold.

        Raises:
            CopyError: it would mean a deletion.
        """
        if path.rpartition(b"/")[2].startswith(WHITEOUT_PREFIX):
            raise CopyError(
                f"a layer cannot hold a file whose name begins with .wh.: `{shown(path)}`",
                hint="rename it, or leave it out with an ignore rule",
                span=self._span,
            )

    def _is_a_directory(self, path: bytes) -> CopyError:
        return CopyError(
            f"cannot replace to directory {shown(path)} with file",
            hint="copy to another name, or remove the directory in a RUN before",
            span=self._span,
        )

    def _not_a_directory(self, path: bytes) -> CopyError:
        return CopyError(
            f"cannot copy to non-directory: {shown(path)}",
            hint="copy to another name, or remove what is there in a RUN before",
            span=self._span,
        )


def _tar_order(path: bytes) -> bytes:
    """Sort key that puts each directory directly before its contents: no name holds a NUL."""
    return path.replace(b"/", b"\0")


def _without_rights(mode: int) -> int:
    """Take from the mode of a file what the kernel takes when one without rights over the host writes its content.

    So files of a context lose setuid, and setgid where it is no mark of mandatory locking, in BuildKit without root.

    Source: inode(7), on S_ISUID and S_ISGID; Linux, fs/attr.c, setattr_should_drop_suidgid.
    """
    return mode & ~(_RIGHTS if mode & stat.S_IXGRP else stat.S_ISUID)
