"""Apply a layer's tar to a root directory: what unpacking an image is.

The root already shows the layers below: it is a plain directory for the first layer, a mounted overlay for the others.
Whiteouts delete, entries replace, and nothing outside the root is read or written, whatever the layer holds: parents
are opened inside the root, and the last component of a path is never followed.

Source: image-spec, layer.md, section Applying Changesets; containerd, pkg/archive/tar.go, for what it leaves open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

from runtime.errors import IdNotMappedError, KernelError, LayerError
from runtime.layers.entry import Entry, EntryKind
from runtime.layers.read import Member, read_archive
from runtime.layers.whiteouts import META_PREFIX, OPAQUE_NAME, WHITEOUT_PREFIX
from runtime.layers.xattrs import CAPABILITY, layer_value, travels
from runtime.ownership import Owners
from runtime.paths import mkdirs_in_root, open_directory_in_root, remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path


_PARENTS_KEPT: Final = 64
"""Directories kept open: sorted archives come back to the same few."""

_NODE_TYPES: Final = {
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_ITSELF: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BAD_NAME_ERRORS: Final = {
    errno.ENAMETOOLONG: "its name is longer than the kernel allows",
    errno.ELOOP: "too many symbolic links on the way to it",
    errno.ENOTDIR: "something on the way to it is no directory",
    errno.EMFILE: "its name has too many components",
}


def apply_layer(stream: BinaryIO, root: Path, *, on_entry: Callable[[Entry], None] | None = None) -> None:
    """Apply one change set to *root*, which must be used by nobody else meanwhile.

    Must run with the rights to give files away: as root, in a user namespace or not. In one with a single id, owners and
    devices are recorded (runtime.ownership). Device nodes that the kernel refuses are left out, as are xattrs that do
    not travel (runtime.layers.xattrs).

    Args:
        stream: the layer's tar, not compressed; read to its very end, closed by the caller.
        root: a directory that shows the layers below.
        on_entry: called with every entry, whiteouts included, after it was applied.

    Raises:
        LayerError: the tar is damaged, tries to leave the root, or contradicts itself; *root* is then half changed.
        IdNotMappedError: an owner is outside the id map.
        KernelError: the kernel refused something.
    """
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", error.errno or 0, subject=str(root)) from error
    application = _Application(root_fd)
    try:
        for member in read_archive(stream):
            application.apply(member)
            if on_entry is not None:
                on_entry(member.entry)
        application.set_directory_times()
    finally:
        application.close()
        os.close(root_fd)


class _Application:
    """The state while one layer is applied.

    Args:
        root_fd: the root directory, open.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._owners = Owners.here()
        # Name of a parent in the archive -> its descriptor, and its path without symbolic links.
        self._parents: dict[bytes, tuple[int, bytes]] = {}
        # Paths, without symbolic links in their parents, of what this layer wrote, and of the directories above it:
        # whiteouts of the same layer leave it alone.
        self._written: set[bytes] = set()
        self._times: dict[bytes, int] = {}

    def close(self) -> None:
        self._forget_parents()

    def apply(self, member: Member) -> None:
        entry = member.entry
        try:
            if not entry.path:
                self._apply_root(entry)
                return
            directory, _, name = entry.path.rpartition(b"/")
            if b".wh." in entry.path and self._apply_whiteout(entry, directory, name):
                return
            parent_fd, location = self._parent(directory)
            path = location + b"/" + name if location else name
            self._written.add(path)
            match entry.kind:
                case EntryKind.FILE:
                    self._apply_file(member, parent_fd, name)
                case EntryKind.DIRECTORY:
                    self._apply_directory(entry, parent_fd, name)
                    self._times[path] = entry.mtime
                    return
                case EntryKind.HARDLINK:
                    self._apply_hard_link(entry, parent_fd, name)
                case EntryKind.SYMLINK:
                    self._apply_symlink(entry, parent_fd, name)
                case _:
                    self._apply_node(entry, parent_fd, name)
            self._times.pop(path, None)
        except OSError as error:
            raise _entry_error(entry, error) from error

    def set_directory_times(self) -> None:
        """Set the times of the layer's directories, which making their children has changed."""
        for path, mtime in sorted(self._times.items(), reverse=True):
            try:
                self._set_directory_time(path, mtime)
            except FileNotFoundError:
                continue  # the layer itself replaced a parent later on
            except OSError as error:
                raise KernelError(
                    "utimensat", error.errno or 0, subject=path.decode(errors="backslashreplace")
                ) from error

    def _set_directory_time(self, path: bytes, mtime: int) -> None:
        if not path:
            os.utime(self._root_fd, (mtime, mtime))
            return
        directory, _, name = path.rpartition(b"/")
        found = self._find_parent(directory)
        if found is not None:
            os.utime(name, (mtime, mtime), dir_fd=found[0], follow_symlinks=False)

    def _parent(self, directory: bytes) -> tuple[int, bytes]:
        """Return the descriptor of a parent directory, made if missing, and where it is without symbolic links."""
        if not directory:
            return self._root_fd, b""
        found = self._find_parent(directory, errno.ENOTDIR)
        if found is None:
            os.close(mkdirs_in_root(self._root_fd, directory, 0o755, owner=(0, 0)))
            found = self._parents[directory] = open_directory_in_root(self._root_fd, directory)
        location = found[1]
        while location and location not in self._written:
            self._written.add(location)
            location = location.rpartition(b"/")[0]
        return found

    def _find_parent(self, directory: bytes, *fatal: int) -> tuple[int, bytes] | None:
        """Return as `_parent`, or None where there is no such directory; errors in *fatal* are raised."""
        if not directory:
            return self._root_fd, b""
        found = self._parents.pop(directory, None)
        if found is None:
            try:
                found = open_directory_in_root(self._root_fd, directory)
            except KernelError as error:
                if error.errno in {errno.ENOENT, errno.ENOTDIR}.difference(fatal):
                    return None
                raise
            if len(self._parents) >= _PARENTS_KEPT:
                os.close(self._parents.pop(next(iter(self._parents)))[0])
        self._parents[directory] = found  # the last used is the last to be closed
        return found

    def _forget_parents(self) -> None:
        for fd, _ in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def _apply_root(self, entry: Entry) -> None:
        if entry.kind is not EntryKind.DIRECTORY:
            raise LayerError("only a directory can be the root", entry=_shown(entry))
        self._set_metadata(entry, self._root_fd)
        self._times[b""] = entry.mtime

    def _apply_whiteout(self, entry: Entry, directory: bytes, name: bytes) -> bool:
        """Carry out a deletion; False if the entry is none."""
        if entry.path.startswith(META_PREFIX) or b"/" + META_PREFIX in entry.path:
            if name == OPAQUE_NAME and not _is_bookkeeping(directory):
                self._empty(directory)
            return True
        if directory.startswith(WHITEOUT_PREFIX) or b"/" + WHITEOUT_PREFIX in directory:
            raise LayerError("an entry lies below a whiteout", entry=_shown(entry))
        if not name.startswith(WHITEOUT_PREFIX):
            return False
        target = name[len(WHITEOUT_PREFIX) :]
        if target in {b"", b".", b".."}:
            raise LayerError("a whiteout deletes nothing that can be named", entry=_shown(entry))
        found = self._find_parent(directory)
        if found is not None:
            parent_fd, location = found
            self._remove_below(parent_fd, target, location + b"/" + target if location else target)
        return True

    def _empty(self, directory: bytes) -> None:
        """Remove what a directory shows of the layers below."""
        found = self._find_parent(directory)
        if found is not None:
            self._remove_children_below(*found)

    def _remove_below(self, parent_fd: int, name: bytes, path: bytes) -> None:
        """Remove *name* as far as it comes from the layers below."""
        if path not in self._written:
            self._remove(parent_fd, name)
            return
        with contextlib.suppress(NotADirectoryError, FileNotFoundError):
            fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
            try:
                self._remove_children_below(fd, path)
            finally:
                os.close(fd)

    def _remove_children_below(self, directory_fd: int, path: bytes) -> None:
        fd = os.open(b".", _DIRECTORY_ITSELF, dir_fd=directory_fd)
        try:
            for child in os.listdir(fd):
                name = os.fsencode(child)
                self._remove_below(fd, name, path + b"/" + name if path else name)
        finally:
            os.close(fd)

    def _remove(self, parent_fd: int, name: bytes) -> None:
        # A directory or symbolic link that goes may be one that an open parent was reached through.
        self._forget_parents_unless(parent_fd, name)
        remove_tree(parent_fd, name)

    def _forget_parents_unless(self, parent_fd: int, name: bytes) -> None:
        try:
            mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
            return
        for directory, (fd, _) in list(self._parents.items()):
            if fd != parent_fd:
                os.close(fd)
                del self._parents[directory]

    def _apply_file(self, member: Member, parent_fd: int, name: bytes) -> None:
        entry = member.entry
        try:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent_fd)
        except FileExistsError:
            self._remove(parent_fd, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent_fd)
        try:
            if entry.size:
                _write_content(member, fd)
            self._set_metadata(entry, fd)
            os.utime(fd, (entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _apply_directory(self, entry: Entry, parent_fd: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                self._remove(parent_fd, name)
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        fd = os.open(name, _DIRECTORY_ITSELF, dir_fd=parent_fd)
        try:
            _drop_xattrs(fd, {name for name, _ in entry.xattrs})
            self._set_metadata(entry, fd)
        finally:
            os.close(fd)

    def _apply_hard_link(self, entry: Entry, parent_fd: int, name: bytes) -> None:
        directory, _, base = entry.linkname.rpartition(b"/")
        if not base:
            raise LayerError("a hard link points to the root", entry=_shown(entry))
        found = self._find_parent(directory)
        if found is None:
            raise _missing_target(entry)
        source_fd = found[0]
        source = _find_status(source_fd, base)
        if source is None:
            raise _missing_target(entry)
        if stat.S_ISDIR(source.st_mode):
            raise LayerError("a hard link points to a directory", entry=_shown(entry))
        target = _find_status(parent_fd, name)
        if target is not None:
            if os.path.samestat(source, target):
                return
            # Looking up the source may have closed the parent, and removing must not touch the source.
            self._remove(parent_fd, name)
            source_fd = self._parent(directory)[0]
        os.link(base, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

    def _apply_symlink(self, entry: Entry, parent_fd: int, name: bytes) -> None:
        if not entry.linkname:
            raise LayerError("a symbolic link without target", entry=_shown(entry))
        try:
            os.symlink(entry.linkname, name, dir_fd=parent_fd)
        except FileExistsError:
            self._remove(parent_fd, name)
            os.symlink(entry.linkname, name, dir_fd=parent_fd)
        self._set_owner_and_time(entry, parent_fd, name)

    def _apply_node(self, entry: Entry, parent_fd: int, name: bytes) -> None:
        self._remove(parent_fd, name)
        device = os.makedev(*entry.device)
        if entry.kind is EntryKind.CHARACTER and device == 0:
            # An overlay takes it for a deletion and refuses to make one; a plain directory must not be tricked.
            _tell("left out the device 0:0 %r", entry.path)
            return
        try:
            if entry.kind is EntryKind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=parent_fd)
            else:
                self._owners.make_device(name, _NODE_TYPES[entry.kind] | 0o600, device, dir_fd=parent_fd)
        except PermissionError:
            if entry.kind is EntryKind.FIFO:
                raise
            _tell("left out the device %r, which this namespace may not make", entry.path)
            return
        self._set_owner_and_time(entry, parent_fd, name)
        # A node just made is no symbolic link; the C library lacks chmod for the link itself.
        os.chmod(name, entry.mode, dir_fd=parent_fd)

    def _set_owner_and_time(self, entry: Entry, parent_fd: int, name: bytes) -> None:
        try:
            self._owners.give(name, entry.uid, entry.gid, dir_fd=parent_fd)
        except OSError as error:
            _refine_owner_error(
                entry, error, lambda: os.chown(name, entry.uid, -1, dir_fd=parent_fd, follow_symlinks=False)
            )
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent_fd, follow_symlinks=False)

    def _set_metadata(self, entry: Entry, fd: int) -> None:
        """Set owner, mode and xattrs of an open file or directory; chown comes first, as it clears setuid bits."""
        try:
            self._owners.give(fd, entry.uid, entry.gid)
        except OSError as error:
            _refine_owner_error(entry, error, lambda: os.fchown(fd, entry.uid, -1))
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs:
            if travels(name):
                _set_xattr(fd, name, layer_value(name, value))


def _write_content(member: Member, fd: int) -> None:
    end = 0
    for offset, data in member.pieces():
        if offset != end:
            os.lseek(fd, offset, os.SEEK_SET)
        end = offset + len(data)
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
    if end < member.entry.size:
        os.ftruncate(fd, member.entry.size)


def _drop_xattrs(fd: int, kept: Collection[str]) -> None:
    """Take from a directory that was there before what its entry does not name: it may be another one by now."""
    for name in os.listxattr(fd):
        if travels(name) and name not in kept:
            os.removexattr(fd, name)


def _set_xattr(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP and (name == CAPABILITY or error.errno != errno.EPERM):
            raise
        _tell("left out the xattr %s: %s", name, error)


def _refine_owner_error(entry: Entry, error: OSError, change_uid: Callable[[], None]) -> None:
    """Raise the error of a failed chown; an id outside the map is named, found by setting the uid alone."""
    if error.errno != errno.EINVAL:
        raise error
    try:
        change_uid()
    except OSError as again:
        if again.errno == errno.EINVAL:
            raise IdNotMappedError(_shown(entry), "uid", entry.uid) from error
    raise IdNotMappedError(_shown(entry), "gid", entry.gid) from error


def _find_status(directory_fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_bookkeeping(directory: bytes) -> bool:
    return directory.startswith(META_PREFIX) or b"/" + META_PREFIX in directory


def _missing_target(entry: Entry) -> LayerError:
    target = entry.linkname.decode(errors="backslashreplace")
    return LayerError(f"a hard link points to {target!r}, which does not exist", entry=_shown(entry))


def _entry_error(entry: Entry, error: OSError) -> Exception:
    reason = _BAD_NAME_ERRORS.get(error.errno or 0)
    if reason is not None:
        return LayerError(f"an entry cannot be unpacked, {reason}", entry=_shown(entry))
    hint = None
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "free some space, or choose a directory on a larger disk with --root"
    elif error.errno == errno.EPERM:
        hint = "run inside a user namespace, or as root"
    call = error.call if isinstance(error, KernelError) else "unpack"
    return KernelError(call, error.errno or 0, subject=_shown(entry), hint=hint)


def _shown(entry: Entry) -> str:
    return entry.path.decode(errors="backslashreplace")


def _tell(text: str, *values: object) -> None:
    import logging  # noqa: PLC0415 - takes some milliseconds, and most layers have nothing that is left out

    logging.getLogger("pybuild." + __name__).debug(text, *values)
