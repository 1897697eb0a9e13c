"""Copy trees: objects with all their metadata, and layers in overlay form laid over one another.

Everything is reached by descriptor and nothing is followed, though nobody else should be at these trees: what a step
left running by mistake must not lead us elsewhere. Content is shared where the file system can (FICLONE), and is copied
by the kernel otherwise; holes stay holes.

Source: ioctl_ficlone(2), copy_file_range(2), lseek(2) section "Seeking file data and holes".
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runtime.errors import LayerError
from runtime.layers.whiteouts import is_whiteout_device
from runtime.layers.xattrs import find_overlay_value, travels
from runtime.ownership import RECORD, Owners
from runtime.paths import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST: Final = 400
"""Levels of directories that can be copied."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE: Final = 0x4004_9409
_SMALL: Final = 1 << 16
_ACL_PREFIX: Final = "system.posix_acl_"
_CANNOT_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK})


class Copier:
    """Copies objects between trees of one or two file systems; remembers what the file systems can do.

    Args:
        links: give files of the copy the inode of the original where possible: for trees that are only read.
    """

    def __init__(self, *, links: bool = False) -> None:
        self._links = links
        self._clones = True
        self._owners = Owners.here()

    def lay_over(self, layer_fd: int, tree_fd: int) -> None:
        """Change a tree as the layer above it says.

        Args:
            layer_fd: the layer in overlay form, open for reading.
            tree_fd: what shows the layers below, open for reading; an empty directory for the first.

        Raises:
            OSError: something could not be read or written.
            LayerError: the directories are nested too deep.
        """
        self._lay_over(layer_fd, tree_fd, {}, is_new=not os.listdir(tree_fd), depth=0)

    def copy_tree(self, source_fd: int, target_fd: int, written: dict[tuple[int, int], bytes], *, depth: int) -> None:
        """Copy what a directory holds into an empty one, then its metadata; hard links stay among themselves.

        Args:
            source_fd: open for reading.
            target_fd: as well.
            written: of files with several names, (device, inode) to the first name written, below /proc/self/fd.
            depth: of the directory in its tree.
        """
        self._lay_over(source_fd, target_fd, written, is_new=True, depth=depth, plain=True)

    def copy_object(self, source_fd: int, name: bytes, status: os.stat_result, target_fd: int) -> None:
        """Copy one object that is no directory, with its metadata, to where nothing is.

        Raises:
            OSError: something could not be read or written.
        """
        mode = status.st_mode
        if self._links:
            try:
                os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
            else:
                return
        if stat.S_ISREG(mode):
            self._copy_file(source_fd, name, status, target_fd)
            return
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
            self._give(source_fd, name, status, target_fd)
        else:
            os.mknod(name, mode, status.st_rdev, dir_fd=target_fd)
            self._give(source_fd, name, status, target_fd)
            os.chmod(name, stat.S_IMODE(mode), dir_fd=target_fd)  # a node just made is no symbolic link
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)

    def _give(self, source_fd: int, name: bytes, status: os.stat_result, target_fd: int) -> None:
        found = self._owners.true_status(status, name, dir_fd=source_fd)
        self._owners.give(name, found.st_uid, found.st_gid, dir_fd=target_fd)

    def _lay_over(
        self,
        source_fd: int,
        target_fd: int,
        written: dict[tuple[int, int], bytes],
        *,
        is_new: bool,
        depth: int,
        plain: bool = False,
    ) -> None:
        if depth > DEEPEST:
            raise LayerError(f"directories are nested more than {DEEPEST} levels deep")
        has_marks = not plain and find_overlay_value(source_fd, os.listxattr(source_fd), "opaque") == b"x"
        with os.scandir(source_fd) as children:
            found = [(os.fsencode(child.name), child.stat(follow_symlinks=False)) for child in children]
        for name, status in found:
            if is_whiteout_device(status) or (has_marks and _is_marked(source_fd, name, status)):
                if not is_new:
                    remove_tree(target_fd, name)
                continue
            if stat.S_ISDIR(status.st_mode):
                with open_directory(source_fd, name) as inner:
                    was_made = is_new or _make_way(inner, name, target_fd)
                    if was_made:
                        os.mkdir(name, 0o700, dir_fd=target_fd)
                    with open_directory(target_fd, name) as target:
                        self._lay_over(inner, target, written, is_new=was_made, depth=depth + 1, plain=plain)
                continue
            if not is_new:
                remove_tree(target_fd, name)
            if status.st_nlink > 1 and not self._links:
                first = written.get((status.st_dev, status.st_ino))
                if first is not None:
                    os.link(first, name, dst_dir_fd=target_fd)
                    continue
                written[status.st_dev, status.st_ino] = path_of(target_fd) + b"/" + name
            self.copy_object(source_fd, name, status, target_fd)
        copy_metadata(source_fd, target_fd)

    def _copy_file(self, source_fd: int, name: bytes, status: os.stat_result, target_fd: int) -> None:
        source = os.open(name, _READ, dir_fd=source_fd)
        try:
            target = os.open(name, _CREATE, 0o600, dir_fd=target_fd)
            try:
                if status.st_size:
                    self._copy_content(source, target, status)
                copy_metadata(source, target, status)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _copy_content(self, source: int, target: int, status: os.stat_result) -> None:
        if status.st_size <= _SMALL and not _has_holes(status):
            data = os.read(source, _SMALL)
            if os.write(target, data) == status.st_size:
                return
            os.ftruncate(target, 0)
            os.lseek(target, 0, os.SEEK_SET)
        if self._clones and self._clone(source, target):
            return
        _copy_ranges(source, target, status.st_size)

    def _clone(self, source: int, target: int) -> bool:
        import fcntl  # noqa: PLC0415 - only where trees are copied

        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            self._clones = False  # EOPNOTSUPP, ENOTTY, EXDEV: it will not do so for the next file either
            return False
        return True


def copy_metadata(source: int, target: int, status: os.stat_result | None = None) -> None:
    """Give an open object owner, mode, xattrs and times of another; of xattrs those that travel, ACLs, and records.

    Raises:
        OSError: the kernel refused.
    """
    found = status or os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))  # after the owner, whose change clears setuid bits
    for name in os.listxattr(source):
        if travels(name) or name == RECORD or name.startswith(_ACL_PREFIX):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


@contextmanager
def open_directory(parent_fd: int, name: bytes) -> Iterator[int]:
    """Open a directory for reading for the time of the block; a symbolic link is none."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def path_of(fd: int) -> bytes:
    """Return where an open directory of our own lies; its parents do not change while it is used."""
    return os.readlink(f"/proc/self/fd/{fd}").encode(errors="surrogateescape")


def _make_way(inner: int, name: bytes, target_fd: int) -> bool:
    """Prepare for a directory of the layer above; return whether it has to be made."""
    try:
        status = os.stat(name, dir_fd=target_fd, follow_symlinks=False)
    except FileNotFoundError:
        return True
    is_opaque = find_overlay_value(inner, os.listxattr(inner), "opaque") == b"y"
    if stat.S_ISDIR(status.st_mode) and not is_opaque:
        return False
    remove_tree(target_fd, name)
    return True


def _is_marked(directory_fd: int, name: bytes, status: os.stat_result) -> bool:
    if status.st_size or not stat.S_ISREG(status.st_mode):
        return False
    fd = os.open(name, _READ, dir_fd=directory_fd)
    try:
        return find_overlay_value(fd, os.listxattr(fd), "whiteout") is not None
    finally:
        os.close(fd)


def _has_holes(status: os.stat_result) -> bool:
    return status.st_blocks * 512 < status.st_size


def _copy_ranges(source: int, target: int, size: int) -> None:
    """Copy content without its holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole is left
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        _copy_range(source, target, start, end)
        position = end
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    position = start
    while position < end:
        try:
            done = os.copy_file_range(source, target, end - position, position, position)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
                raise
            data = os.pread(source, min(end - position, 1 << 20), position)
            done = os.pwrite(target, data, position)
        if not done:
            return  # it became shorter
        position += done
