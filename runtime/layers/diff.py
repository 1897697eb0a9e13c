"""Write what changed as a layer: an overlay upper directory becomes a change set.

Only the upper directory is walked. The layers below are asked about names that the upper directory has too: whether a
deletion deletes something, whether a copied-up object differs. The order is that of containerd: a directory, then its
children by name, a deletion where the deleted name sorts; an emptied directory begins with its marker.

Source: image-spec, layer.md, section Representing Changes; linux/Documentation/filesystems/overlayfs.rst; BuildKit,
util/overlay/overlay_linux.go.
"""

from __future__ import annotations

import itertools
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime.errors import KernelError, LayerError
from runtime.layers.archive import READ_SIZE, ArchiveWriter
from runtime.layers.entry import Entry, EntryKind
from runtime.layers.whiteouts import WHITEOUT_PREFIX, is_whiteout_device, opaque_entry, whiteout_entry
from runtime.layers.xattrs import check_self_contained, find_overlay_value, read_xattrs
from runtime.ownership import RECORD, Owners

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Nothing runs on the tree any more; O_NONBLOCK keeps a FIFO that took a file's place all the same from blocking.
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_MOST_NAMES: Final = 1000
"""In a directory of a layer that is listed."""

_NODE_KINDS: Final = {
    stat.S_IFCHR: EntryKind.CHARACTER,
    stat.S_IFBLK: EntryKind.BLOCK,
    stat.S_IFIFO: EntryKind.FIFO,
}

_Xattrs = tuple[tuple[str, bytes], ...]


def write_changes(
    upper: Path,
    lowers: Sequence[Path],
    writer: ArchiveWriter,
    *,
    ignore: Collection[bytes] = (),
    on_entry: Callable[[Entry], None] | None = None,
    known: KnownTrees | None = None,
) -> None:
    """Write the changes that an overlay upper directory holds; `writer.finish` is left to the caller.

    Left out: sockets; objects equal to what lies below, as after `chmod` forth and back; directories without a change
    in or on them; the root directory itself, which layers do not describe. Directories above a change are written.

    Args:
        upper: the upper directory, not mounted any more or at rest; for a first layer any directory.
        lowers: the layers below, base first, in overlay form.
        writer: takes the entries.
        ignore: paths in the form of `Entry.path` that are left out with all below them. What their making did to the
            time of their directory is no change either.
        on_entry: called with every entry after it was written, whiteouts included.
        known: what was found in the layers below by earlier calls.

    Raises:
        LayerError: something cannot be said in a layer (a name that begins with `.wh.`), or changed while it was read.
        KernelError: something could not be read.
    """
    _Diff(writer, frozenset(ignore), on_entry, known or KnownTrees()).run(upper, tuple(reversed(lowers)))


class KnownTrees:
    """What was found in the trees of layers, which do not change, so that many of them are not asked again and again.

    A directory is listed when it is looked into for the second time, unless it is large: one name alone is found faster
    than a list. Used from many threads.
    """

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._names: dict[bytes, frozenset[bytes] | None] = {}
        self._opaque: dict[bytes, bool] = {}

    def lacks(self, directory: bytes, name: bytes) -> bool:
        """Tell whether a directory is known to have no such name."""
        names = self._names.get(directory)
        if names is None:
            if directory in self._names:
                return False
            if directory not in self._seen:
                self._seen.add(directory)
                return False
            names = self._names[directory] = _list_small(directory)
        return names is not None and name not in names

    def is_opaque(self, directory: bytes) -> bool | None:
        """Tell whether a directory of a layer hides those below; None if it is not known to be one."""
        return self._opaque.get(directory)

    def note_directory(self, directory: bytes) -> bool:
        """Find out and remember whether a directory hides those below."""
        opaque = self._opaque[directory] = _is_opaque(directory)
        return opaque


class _Below(NamedTuple):
    """What the layers below show under one name.

    Attributes:
        status: of the object that is seen, None if there is none.
        path: of the object that is seen.
        directories: those that a directory of this name is merged from, top first; empty if it is no directory.
    """

    status: os.stat_result | None
    path: bytes
    directories: tuple[bytes, ...]


_NOTHING: Final = _Below(None, b"", ())


class _Directory:
    """A directory of the upper tree while its children are walked.

    Attributes:
        entry: what is written for it, None once it is written or if it is the root.
        fd: its descriptor.
        path: in the form of `Entry.path`.
        lowers: the directories below that it is merged with, top first.
        has_xattr_whiteouts: empty files in it may be deletions (`overlay.opaque=x`).
        names: children still to come, the next one last.
    """

    __slots__ = ("entry", "fd", "has_xattr_whiteouts", "lowers", "names", "path")

    def __init__(self, fd: int, path: bytes, lowers: tuple[bytes, ...], names: list[bytes]) -> None:
        self.entry: Entry | None = None
        self.fd = fd
        self.path = path
        self.lowers = lowers
        self.has_xattr_whiteouts = False
        self.names = names


class _Diff:
    """The state while one upper directory is written.

    Args:
        writer: takes the entries.
        ignore: paths left out.
        on_entry: called with every entry.
        known: what is known of the layers below.
    """

    def __init__(
        self,
        writer: ArchiveWriter,
        ignore: frozenset[bytes],
        on_entry: Callable[[Entry], None] | None,
        known: KnownTrees,
    ) -> None:
        self._known = known
        self._writer = writer
        self._ignore = ignore
        self._ignored_parents = {path.rpartition(b"/")[0] for path in ignore}
        self._on_entry = on_entry
        self._owners = Owners.here()
        # (device, inode) of files with several names -> the name that was written.
        self._links: dict[tuple[int, int], bytes] = {}
        self._stack: list[_Directory] = []

    def run(self, upper: Path, lowers: tuple[Path, ...]) -> None:
        path = b""
        try:
            root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            top = _Directory(root, b"", tuple(map(os.fsencode, lowers)), _names(root))
            self._stack.append(top)
            top.has_xattr_whiteouts = find_overlay_value(root, os.listxattr(root), "opaque") == b"x"
            while self._stack:
                directory = self._stack[-1]
                if not directory.names:
                    os.close(self._stack.pop().fd)
                    continue
                name = directory.names.pop()
                path = directory.path + b"/" + name if directory.path else name
                if path not in self._ignore:
                    self._visit(directory, name, path)
        except KernelError:
            raise
        except OSError as error:
            raise KernelError("read", error.errno or 0, subject=path.decode(errors="backslashreplace")) from error
        finally:
            while self._stack:
                os.close(self._stack.pop().fd)

    def _visit(self, directory: _Directory, name: bytes, path: bytes) -> None:
        status = os.lstat(name, dir_fd=directory.fd)
        if is_whiteout_device(status):
            self._delete(directory, name, path)
            return
        if name.startswith(WHITEOUT_PREFIX):
            shown = path.decode(errors="backslashreplace")
            raise LayerError(
                "a name that begins with .wh. means a deletion and cannot be put into a layer", entry=shown
            )
        mode = status.st_mode
        if stat.S_ISREG(mode):
            self._visit_file(directory, name, path, status)
        elif stat.S_ISDIR(mode):
            self._visit_directory(directory, name, path, status)
        elif stat.S_ISLNK(mode):
            target = os.readlink(name, dir_fd=directory.fd)
            status = self._owners.true_status(status, name, dir_fd=directory.fd)
            lower = self._look_below(directory, name)
            if not _is_same(status, lower.status) or os.readlink(lower.path) != target:
                self._add(_entry(path, EntryKind.SYMLINK, status, linkname=target), status)
        elif not stat.S_ISSOCK(mode):
            self._visit_node(directory, name, path, self._owners.true_status(status, name, dir_fd=directory.fd))

    def _visit_node(self, directory: _Directory, name: bytes, path: bytes, status: os.stat_result) -> None:
        lower = self._look_below(directory, name)
        if not _is_same(status, lower.status) or (lower.status and lower.status.st_rdev != status.st_rdev):
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
            self._add(_entry(path, _NODE_KINDS[stat.S_IFMT(status.st_mode)], status, device=device), status)

    def _delete(self, directory: _Directory, name: bytes, path: bytes) -> None:
        # A deletion of what never was makes containerd refuse the image.
        if self._look_below(directory, name).status is not None:
            self._write(whiteout_entry(path), None)

    def _visit_file(self, directory: _Directory, name: bytes, path: bytes, status: os.stat_result) -> None:
        fd = os.open(name, _FILE_FLAGS, dir_fd=directory.fd)
        try:
            names = os.listxattr(fd)
            xattrs: _Xattrs = ()
            if names:
                check_self_contained(names, path)
                if (
                    directory.has_xattr_whiteouts
                    and not status.st_size
                    and find_overlay_value(fd, names, "whiteout") is not None
                ):
                    self._delete(directory, name, path)
                    return
                xattrs = read_xattrs(fd, names)
                if RECORD in names:
                    status = self._owners.true_status(status, fd)
                    if not stat.S_ISREG(status.st_mode):
                        self._visit_node(directory, name, path, status)
                        return
            # A file with several names stays, or its new names would lose their content.
            if status.st_nlink == 1 and directory.lowers:
                lower = self._look_below(directory, name)
                if _is_same(status, lower.status) and _has_same_content(fd, status.st_size, xattrs, lower.path):
                    return
            # Spelled out, as _entry and keywords cost a microsecond a file.
            mode = status.st_mode & 0o7777
            mtime = status.st_mtime_ns // 1_000_000_000
            entry = Entry(
                path, EntryKind.FILE, mode, status.st_uid, status.st_gid, mtime, status.st_size, b"", (0, 0), xattrs
            )
            self._add(entry, status, fd)
        finally:
            os.close(fd)

    def _add(self, entry: Entry, status: os.stat_result, fd: int | None = None) -> None:
        """Write an entry, or a hard link to the name of the same object that was written before."""
        if status.st_nlink > 1:
            written = self._links.setdefault((status.st_dev, status.st_ino), entry.path)
            if written != entry.path:
                # xattrs belong to the object and stand with its first name.
                entry = entry._replace(kind=EntryKind.HARDLINK, linkname=written, size=0, device=(0, 0), xattrs=())
                fd = None
        self._write(entry, fd if entry.size else None)

    def _visit_directory(self, directory: _Directory, name: bytes, path: bytes, status: os.stat_result) -> None:
        fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=directory.fd)
        child = _Directory(fd, path, (), [])
        self._stack.append(child)
        names = os.listxattr(fd)
        xattrs: _Xattrs = ()
        opaque = None
        if names:
            check_self_contained(names, path)
            opaque = find_overlay_value(fd, names, "opaque")
            xattrs = read_xattrs(fd, names)
            if RECORD in names:
                status = self._owners.true_status(status, fd)
        child.entry = _entry(path, EntryKind.DIRECTORY, status, xattrs=xattrs)
        child.names = _names(fd)
        child.has_xattr_whiteouts = opaque == b"x"
        lower = self._look_below(directory, name)
        if opaque == b"y":
            self._write_parents()
            # The kernel also marks new directories that hide nothing.
            if lower.directories:
                self._write(opaque_entry(path), None)
            return
        child.lowers = lower.directories
        any_time = path in self._ignored_parents
        if not _is_same(status, lower.status, any_time=any_time) or _directory_xattrs(lower.path) != xattrs:
            self._write_parents()

    def _look_below(self, directory: _Directory, name: bytes) -> _Below:
        found = _look_below(directory, name, self._known)
        if found.status is None:
            return found
        return found._replace(status=self._owners.true_status(found.status, found.path))

    def _write_parents(self) -> None:
        for directory in self._stack:
            if directory.entry is not None:
                entry = directory.entry
                directory.entry = None
                self._writer.add(entry)
                if self._on_entry is not None:
                    self._on_entry(entry)

    def _write(self, entry: Entry, fd: int | None) -> None:
        if self._stack[-1].entry is not None:
            self._write_parents()
        self._writer.add(entry, fd)
        if self._on_entry is not None:
            self._on_entry(entry)


def _names(fd: int) -> list[bytes]:
    """Return the names in a directory, the first one in byte order last."""
    names = [os.fsencode(name) for name in os.listdir(fd)]
    names.sort(reverse=True)
    return names


def _entry(
    path: bytes,
    kind: EntryKind,
    status: os.stat_result,
    *,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: _Xattrs = (),
) -> Entry:
    mtime = status.st_mtime_ns // 1_000_000_000
    return Entry(path, kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, mtime, 0, linkname, device, xattrs)


def _look_below(directory: _Directory, name: bytes, known: KnownTrees) -> _Below:
    """Return what the layers below show as *name*: the topmost object, merged with directories under it."""
    seen: os.stat_result | None = None
    seen_path = b""
    directories: list[bytes] = []
    for lower in directory.lowers:
        if known.lacks(lower, name):
            continue
        path = lower + b"/" + name
        opaque = known.is_opaque(path)
        if seen is None or opaque is None:
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if is_whiteout_device(status) or _is_xattr_whiteout(lower, path, status):
                break
            if seen is None:
                seen, seen_path = status, path
            if not stat.S_ISDIR(status.st_mode):
                break
            if opaque is None:
                opaque = known.note_directory(path)
        directories.append(path)
        if opaque:
            break
    return _Below(seen, seen_path, tuple(directories)) if seen is not None else _NOTHING


def _list_small(directory: bytes) -> frozenset[bytes] | None:
    """Return the names in a directory, None if there are many."""
    with os.scandir(directory) as entries:
        names = frozenset(entry.name for entry in itertools.islice(entries, _MOST_NAMES + 1))
    return names if len(names) <= _MOST_NAMES else None


def _is_opaque(path: bytes) -> bool:
    fd = os.open(path, _DIRECTORY_FLAGS)
    try:
        return find_overlay_value(fd, os.listxattr(fd), "opaque") == b"y"
    finally:
        os.close(fd)


def _is_xattr_whiteout(lower: bytes, path: bytes, status: os.stat_result) -> bool:
    if status.st_size or not stat.S_ISREG(status.st_mode):
        return False
    fd = os.open(path, _FILE_FLAGS)
    try:
        names = os.listxattr(fd)
        if not names or find_overlay_value(fd, names, "whiteout") is None:
            return False
    finally:
        os.close(fd)
    fd = os.open(lower, _DIRECTORY_FLAGS)
    try:
        return find_overlay_value(fd, os.listxattr(fd), "opaque") == b"x"
    finally:
        os.close(fd)


def _is_same(status: os.stat_result, below: os.stat_result | None, *, any_time: bool = False) -> bool:
    """Tell whether type, mode, owner, time, and for all but directories the size, are equal."""
    return (
        below is not None
        and status.st_mode == below.st_mode
        and status.st_uid == below.st_uid
        and status.st_gid == below.st_gid
        and (any_time or status.st_mtime_ns == below.st_mtime_ns)
        and (stat.S_ISDIR(status.st_mode) or status.st_size == below.st_size)
    )


def _directory_xattrs(path: bytes) -> _Xattrs:
    fd = os.open(path, _DIRECTORY_FLAGS)
    try:
        return read_xattrs(fd, os.listxattr(fd))
    finally:
        os.close(fd)


def _has_same_content(fd: int, size: int, xattrs: _Xattrs, path: bytes) -> bool:
    """Tell whether a file equals an open one in xattrs and content; the position of *fd* does not move."""
    other = os.open(path, _FILE_FLAGS)
    try:
        if read_xattrs(other, os.listxattr(other)) != xattrs:
            return False
        for offset in range(0, size, READ_SIZE):
            if os.pread(fd, READ_SIZE, offset) != os.pread(other, READ_SIZE, offset):
                return False
        return True
    finally:
        os.close(other)
