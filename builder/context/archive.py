"""A build context that comes as a tar: unpacked into a folder, by descriptor, as the calling user.

Everything in the archive is untrusted: names stay inside the folder, symbolic links are written as they are and never
lead out when something is put behind them. Owners are left alone, since files of a context belong to 0:0 in an image.

Source: spec, section 1.17; runtime/layers/read.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

from builder.context.walk import shown
from builder.errors import ContextError
from registry.errors import LayerDamagedError, RegistryError
from runtime.errors import LayerError
from runtime.layers.entry import Entry, EntryKind
from runtime.paths import mkdirs_in_root, open_in_root, remove_tree

if TYPE_CHECKING:
    from runtime.layers.read import Member

_HEAD: Final = 512
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def looks_like_archive(head: bytes) -> bool:
    """Tell by its first 512 bytes whether a stream is a tar, plain or compressed, rather than a Dockerfile."""
    if head.startswith(_COMPRESSED):
        return True
    if len(head) < _HEAD:
        return False
    if head[257:262] == b"ustar" or not any(head):
        return True
    try:
        expected = int(head[148:156].strip(b"\0 ") or b"-1", 8)
    except ValueError:
        return False
    return sum(head[:148]) + 8 * 0x20 + sum(head[156:_HEAD]) == expected


def unpack_context(stream: BinaryIO, root_fd: int, *, subject: str) -> int | None:
    """Unpack a tar, compressed or not, below an empty directory.

    Args:
        stream: only `read(n)` is used; read to its end.
        root_fd: the directory.
        subject: what the user knows the archive by, for errors.

    Returns:
        The time of its newest file in seconds, None if it has none.

    Raises:
        ContextError: the archive is damaged, holds what a context cannot hold, or cannot be written.
    """
    from registry.content.layer_stream import open_archive  # noqa: PLC0415  compressors are slow to load
    from runtime.layers.read import read_archive  # noqa: PLC0415  only archives need it

    newest: int | None = None
    directories: dict[bytes, Entry] = {}
    path = b""
    try:
        for member in read_archive(open_archive(stream)):
            entry = member.entry
            path = entry.path
            newest = _newer(newest, entry)
            if not path:
                continue
            _unpack(member, root_fd)
            if entry.kind is EntryKind.DIRECTORY:
                directories[path] = entry
            else:
                directories.pop(path, None)
        for _, entry in sorted(directories.items(), reverse=True):
            _finish_directory(entry, root_fd)
    except (RegistryError, LayerError, EOFError) as error:
        text = getattr(error, "message", str(error))
        raise ContextError(f"{subject} is damaged, {text}", hint="make the archive anew") from error
    except OSError as error:
        raise _cannot_write(error, path, subject) from error
    return newest


def find_newest(stream: BinaryIO) -> int | None:
    """Find the time of the newest file of a tar, compressed or not, in seconds; None if it has none or is no tar.

    Args:
        stream: only `read(n)` is used.
    """
    from registry.content.layer_stream import open_archive  # noqa: PLC0415  compressors are slow to load
    from runtime.layers.read import read_archive  # noqa: PLC0415  only archives need it

    newest: int | None = None
    try:
        for member in read_archive(open_archive(stream)):
            newest = _newer(newest, member.entry)
    except (LayerDamagedError, LayerError, EOFError):
        return None
    return newest


def _newer(newest: int | None, entry: Entry) -> int | None:
    """Return the later of two times; only files count. Source: BuildKit, dockerfile2llb/epoch.go."""
    if entry.kind not in {EntryKind.FILE, EntryKind.HARDLINK}:
        return newest
    return entry.mtime if newest is None else max(newest, entry.mtime)


def _cannot_write(error: OSError, path: bytes, subject: str) -> ContextError:
    reason = os.strerror(error.errno or 0).lower()
    return ContextError(f"{subject} cannot be unpacked, {reason}: `{shown(path)}`")


def _unpack(member: Member, root_fd: int) -> None:
    entry = member.entry
    folder, _, name = entry.path.rpartition(b"/")
    parent = mkdirs_in_root(root_fd, folder)
    try:
        _make_room(parent, name, entry)
        match entry.kind:
            case EntryKind.FILE:
                _write_file(member, parent, name)
            case EntryKind.DIRECTORY:
                if not _is_directory(parent, name):
                    os.mkdir(name, 0o700, dir_fd=parent)
            case EntryKind.SYMLINK:
                os.symlink(entry.linkname, name, dir_fd=parent)
                os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
            case EntryKind.HARDLINK:
                _link(entry.linkname, root_fd, parent, name)
            case EntryKind.FIFO:
                os.mkfifo(name, entry.mode & 0o777, dir_fd=parent)
            case EntryKind.CHARACTER | EntryKind.BLOCK:
                raise LayerError("a build context cannot hold a device node", entry=shown(entry.path))
    finally:
        os.close(parent)


def _write_file(member: Member, parent: int, name: bytes) -> None:
    entry = member.entry
    fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
    try:
        for offset, data in member.pieces():
            view, at = memoryview(data), offset
            while view:
                count = os.pwrite(fd, view, at)
                view, at = view[count:], at + count
        os.ftruncate(fd, entry.size)
        os.fchmod(fd, entry.mode & 0o777)
        os.utime(fd, (entry.mtime, entry.mtime))
    finally:
        os.close(fd)


def _link(target: bytes, root_fd: int, parent: int, name: bytes) -> None:
    folder, _, last = target.rpartition(b"/")
    source = open_in_root(root_fd, folder or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(source)


def _make_room(parent: int, name: bytes, entry: Entry) -> None:
    """Remove what an earlier entry of the same name left, unless both are directories."""
    if entry.kind is EntryKind.DIRECTORY and _is_directory(parent, name):
        return
    remove_tree(parent, name)


def _is_directory(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _finish_directory(entry: Entry, root_fd: int) -> None:
    fd = open_in_root(root_fd, entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchmod(fd, entry.mode & 0o777)
        os.utime(fd, (entry.mtime, entry.mtime))
    finally:
        os.close(fd)
