"""Calls about files: giving them away, asking whose they are, making them.

Handing a call back to the kernel is right whenever nothing is recorded. So errors, too, are the kernel's wherever there
is nothing to act on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from runtime import ownership, syscalls
from runtime.ownership import ROOT, Record
from runtime.supervisor import calls, layouts
from runtime.supervisor.callers import MOST_LINKS, PATH_MAX, place, signed, unsigned
from runtime.supervisor.credentials import UNCHANGED, check_change_of_owner, wide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.supervisor.callers import Callers

Handler = Callable[[int, Sequence[int]], int | None]
"""Answers a call by the pid of the caller and the arguments: with a result, or None to leave it to the kernel. What it
raises is answered as the call's error."""

_ADDFD: Final = struct.Struct("=QIIII")
_ADDFD_FLAG_SEND: Final = 2
_NOTIF_ADDFD: Final = 0x4018_2103  # from the kernel, include/uapi/linux/seccomp.h
_OPEN_FLAGS: Final = 0x7F_FFC3  # all there are; openat2(2) refuses others, open(2) does not
_OPEN_HOW: Final = struct.Struct("=QQQ")
_CHOWN_FLAGS: Final = syscalls.AT_SYMLINK_NOFOLLOW | syscalls.AT_EMPTY_PATH
_STATUS_FLAGS: Final = _CHOWN_FLAGS | syscalls.AT_NO_AUTOMOUNT | syscalls.AT_STATX_SYNC_TYPE
_RESOLVE_HARMLESS: Final = (
    syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_SYMLINKS
)  # those of openat2(2) that only refuse


class FileCalls:
    """Answers calls about files.

    Args:
        callers: who makes them.
        listener: takes descriptors for the caller.

    Attributes:
        is_answered: whether the call that was just handled has its answer already; whoever sees it sets it back.
    """

    def __init__(self, callers: Callers, listener: int) -> None:
        self._callers = callers
        self._listener = listener
        self.is_answered = False

    def handlers(self) -> Mapping[str, Handler]:
        """Return what answers each call."""
        return {
            "chown": lambda pid, a: self._chown_at(pid, syscalls.AT_FDCWD, a[0], a[1], a[2], 0),
            "lchown": lambda pid, a: self._chown_at(
                pid, syscalls.AT_FDCWD, a[0], a[1], a[2], syscalls.AT_SYMLINK_NOFOLLOW
            ),
            "fchownat": lambda pid, a: self._chown_at(pid, signed(a[0]), a[1], a[2], a[3], a[4]),
            "fchown": lambda pid, a: self._chown_open(pid, a[0], a[1], a[2]),
            "chown16": lambda pid, a: self._chown_at(pid, syscalls.AT_FDCWD, a[0], wide(a[1]), wide(a[2]), 0),
            "lchown16": lambda pid, a: self._chown_at(
                pid, syscalls.AT_FDCWD, a[0], wide(a[1]), wide(a[2]), syscalls.AT_SYMLINK_NOFOLLOW
            ),
            "fchown16": lambda pid, a: self._chown_open(pid, a[0], wide(a[1]), wide(a[2])),
            "stat": lambda pid, a: self._status(pid, syscalls.AT_FDCWD, a[0], 0, a[1], layouts.pack_status),
            "lstat": lambda pid, a: self._status(
                pid, syscalls.AT_FDCWD, a[0], syscalls.AT_SYMLINK_NOFOLLOW, a[1], layouts.pack_status
            ),
            "newfstatat": lambda pid, a: self._status(pid, signed(a[0]), a[1], a[3], a[2], layouts.pack_status),
            "fstat": lambda pid, a: self._status_of_open(pid, a[0], a[1], layouts.pack_status),
            "stat64": lambda pid, a: self._status(pid, syscalls.AT_FDCWD, a[0], 0, a[1], layouts.pack_status_64),
            "lstat64": lambda pid, a: self._status(
                pid, syscalls.AT_FDCWD, a[0], syscalls.AT_SYMLINK_NOFOLLOW, a[1], layouts.pack_status_64
            ),
            "fstat64": lambda pid, a: self._status_of_open(pid, a[0], a[1], layouts.pack_status_64),
            "fstatat64": lambda pid, a: self._status(pid, signed(a[0]), a[1], a[3], a[2], layouts.pack_status_64),
            "statx": self._statx,
            "open": lambda pid, a: self._open_new(pid, syscalls.AT_FDCWD, a[0], a[1], a[2]),
            "openat": lambda pid, a: self._open_new(pid, signed(a[0]), a[1], a[2], a[3]),
            "creat": lambda pid, a: self._open_new(
                pid, syscalls.AT_FDCWD, a[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, a[1]
            ),
            "openat2": self._openat2,
            "mkdir": lambda pid, a: self._make_directory(pid, syscalls.AT_FDCWD, a[0], a[1]),
            "mkdirat": lambda pid, a: self._make_directory(pid, signed(a[0]), a[1], a[2]),
            "symlink": lambda pid, a: self._make_link(pid, a[0], syscalls.AT_FDCWD, a[1]),
            "symlinkat": lambda pid, a: self._make_link(pid, a[0], signed(a[1]), a[2]),
            "mknod": lambda pid, a: self._make_node(pid, syscalls.AT_FDCWD, a[0], a[1], a[2]),
            "mknodat": lambda pid, a: self._make_node(pid, signed(a[0]), a[1], a[2], a[3]),
            "chroot": self._chroot,
            "listxattr": lambda pid, a: self._list_xattrs(pid, a, syscalls.AT_FDCWD, 0),
            "llistxattr": lambda pid, a: self._list_xattrs(pid, a, syscalls.AT_FDCWD, syscalls.AT_SYMLINK_NOFOLLOW),
            "flistxattr": lambda pid, a: self._list_xattrs(pid, a, signed(a[0]), syscalls.AT_EMPTY_PATH),
        }

    def _chroot(self, _pid: int, _arguments: Sequence[int]) -> None:
        """Note that roots may differ from now on; the kernel carries it out."""
        self._callers.may_have_roots = True

    def _chown_at(self, pid: int, dirfd: int, address: int, uid: int, gid: int, flags: int) -> int | None:
        path = self._callers.read_path(pid, address)
        if flags & ~_CHOWN_FLAGS & 0xFFFF_FFFF or (not path and not flags & syscalls.AT_EMPTY_PATH):
            return None
        fd = self._callers.open(pid, dirfd, path, follow=not flags & syscalls.AT_SYMLINK_NOFOLLOW)
        return self._chown(pid, fd, uid, gid)

    def _chown_open(self, pid: int, fd: int, uid: int, gid: int) -> int | None:
        return self._chown(pid, self._callers.open(pid, signed(fd), b"", follow=True), uid, gid)

    def _chown(self, pid: int, fd: int | None, uid: int, gid: int) -> int | None:
        """Give a file away: let the kernel do what else belongs to that, and record the owner. Closes *fd*."""
        if fd is None:
            return None
        uid, gid = unsigned(uid), unsigned(gid)
        where = b"self/fd/%d" % fd
        try:
            mode = os.fstat(fd).st_mode
            old = ownership.find_record(where, mode, follow=True) or ROOT
            check_change_of_owner(self._callers.credentials(pid), old[:2], uid, gid)
            # Copies it up, clears set-id bits and capabilities, sets the time of change, or says why it cannot be.
            os.chown(where, -1 if uid == UNCHANGED else 0, -1 if gid == UNCHANGED else 0)
            new = old._replace(
                uid=old.uid if uid == UNCHANGED else uid,
                gid=old.gid if gid == UNCHANGED else gid,
            )
            # The kernel took the record of a link for the capability of a program, and cleared it.
            if new != old or not ownership.takes_user_xattrs(mode):
                ownership.write_record(where, mode, new, follow=True)
        finally:
            os.close(fd)
        return 0

    # What stat says

    def _find_hint(self, pid: int, dirfd: int, path: bytes, *, follow: bool) -> bool:
        """Tell fast whether a file may have a record. Who is asked about is only certain for what has none."""
        # To this process /proc shows others than to the caller.
        if self._callers.may_have_roots or len(path) > PATH_MAX - 64 or b"proc/" in path or path.startswith(b"/dev/"):
            return True
        where = path if path.startswith(b"/") else place(pid, dirfd) + (b"/" + path if path else b"")
        try:
            os.getxattr(where, ownership.RECORD, follow_symlinks=follow or not path)
        except OSError as error:
            if error.errno != errno.ENODATA:
                return False
            try:
                value = os.getxattr(where, ownership.LINK_RECORD, follow_symlinks=follow or not path)
            except OSError:
                return False
            return ownership.decode_link(value) is not None
        return True

    def _open_recorded(self, pid: int, dirfd: int, address: int, flags: int) -> tuple[int, Record] | None:
        """Return a descriptor of the file a call asks about, and its record; None if it has none."""
        path = self._callers.read_path(pid, address) if address else b""
        if flags & ~_STATUS_FLAGS & 0xFFFF_FFFF or (not path and not flags & syscalls.AT_EMPTY_PATH):
            return None
        follow = not flags & syscalls.AT_SYMLINK_NOFOLLOW
        if not self._find_hint(pid, dirfd, path, follow=follow):
            return None
        fd = self._callers.open(pid, dirfd, path, follow=follow)
        if fd is None:
            return None
        record = ownership.find_record(b"self/fd/%d" % fd, os.fstat(fd).st_mode, follow=True)
        if record is None:
            os.close(fd)
            return None
        return fd, record

    def _status(
        self, pid: int, dirfd: int, address: int, flags: int, target: int, pack: Callable[[os.stat_result], bytes]
    ) -> int | None:
        found = self._open_recorded(pid, dirfd, address, flags)
        if found is None:
            return None
        fd, record = found
        try:
            status = ownership.with_record(os.fstat(fd), record)
        finally:
            os.close(fd)
        self._callers.write(pid, target, pack(status))
        return 0

    def _status_of_open(self, pid: int, fd: int, target: int, pack: Callable[[os.stat_result], bytes]) -> int | None:
        return self._status(pid, signed(fd), 0, syscalls.AT_EMPTY_PATH, target, pack)

    def _statx(self, pid: int, arguments: Sequence[int]) -> int | None:
        dirfd, address, flags, mask, target = arguments[:5]
        found = self._open_recorded(pid, signed(dirfd), address, flags)
        if found is None:
            return None
        fd, record = found
        try:
            sync = flags & syscalls.AT_STATX_SYNC_TYPE
            answer = bytearray(syscalls.statx(fd, b"", sync | syscalls.AT_EMPTY_PATH, unsigned(mask)))
        finally:
            os.close(fd)
        struct.pack_into("=II", answer, 20, record.uid, record.gid)
        if record.type:
            mode = int.from_bytes(answer[28:30], "little")
            struct.pack_into("=H", answer, 28, record.type | stat.S_IMODE(mode))
            struct.pack_into("=II", answer, 128, os.major(record.device), os.minor(record.device))
        self._callers.write(pid, target, bytes(answer))
        return 0

    # Making files

    def _owner_of_new(self, pid: int, dirfd: int, path: bytes) -> Record:
        """Return whom a new file belongs to: the caller, and its group that of a directory that passes its group on."""
        acting = self._callers.credentials(pid)
        owner = Record(acting.uid.filesystem, acting.gid.filesystem)
        folder = path.rstrip(b"/").rpartition(b"/")[0] or (b"/" if path.startswith(b"/") else b".")
        if self._find_hint(pid, dirfd, folder, follow=True):
            fd = self._callers.open(pid, dirfd, folder, follow=True)
            if fd is not None:
                mode = os.fstat(fd).st_mode
                record = ownership.find_record(b"self/fd/%d" % fd, mode, follow=True)
                os.close(fd)
                if mode & stat.S_ISGID:
                    return owner._replace(gid=record.gid if record else 0)
        elif owner.gid:
            mode = self._mode_of_folder(pid, dirfd, folder)
            if mode & stat.S_ISGID:
                return owner._replace(gid=0)
        return owner

    def _mode_of_folder(self, pid: int, dirfd: int, folder: bytes) -> int:
        fd = self._callers.open(pid, dirfd, folder, follow=True)
        if fd is None:
            return 0
        mode = os.fstat(fd).st_mode
        os.close(fd)
        return mode

    def _open_new(self, pid: int, dirfd: int, address: int, flags: int, mode: int, resolve: int = 0) -> int | None:
        """Open a file that may have to be made, for somebody whose files do not belong to root."""
        path = self._callers.read_path(pid, address)
        owner = self._owner_of_new(pid, dirfd, path)
        if owner == ROOT or not path or path.endswith(b"/"):
            return None
        flags &= _OPEN_FLAGS
        fd = self._try_new(pid, dirfd, path, flags, mode & 0o7777 & ~self._callers.umask(pid), resolve)
        if fd is None:
            return None
        try:
            ownership.write_record(b"self/fd/%d" % fd, stat.S_IFREG, owner, follow=True)
            close = os.O_CLOEXEC if flags & os.O_CLOEXEC else 0
            fcntl.ioctl(self._listener, _NOTIF_ADDFD, _ADDFD.pack(self._callers.call, _ADDFD_FLAG_SEND, fd, 0, close))
            self.is_answered = True
        finally:
            os.close(fd)
        return 0

    def _try_new(self, pid: int, dirfd: int, path: bytes, flags: int, mode: int, resolve: int) -> int | None:
        """Make a file and open it; None if it is there, or cannot be, which the kernel finds out once more."""
        is_unnamed = flags & os.O_TMPFILE == os.O_TMPFILE
        try:
            self._callers.enter_root(pid)
            for _ in range(MOST_LINKS):
                base = syscalls.AT_FDCWD
                if not path.startswith(b"/"):
                    base = os.open(place(pid, dirfd), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    self._callers.check_waiting()
                    new = flags | os.O_CLOEXEC | os.O_NOCTTY | (0 if is_unnamed else os.O_EXCL)
                    return syscalls.openat2(base, path, new, mode, resolve | syscalls.RESOLVE_NO_MAGICLINKS)
                except FileExistsError:
                    # Only a link to nothing makes a file of another name.
                    if flags & (os.O_EXCL | os.O_NOFOLLOW) or resolve:
                        return None
                    target = os.readlink(path, dir_fd=base if base >= 0 else None)
                    path = target if target.startswith(b"/") else path.rpartition(b"/")[0] + b"/" + target
                finally:
                    if base >= 0:
                        os.close(base)
        except OSError:
            return None
        return None

    def _openat2(self, pid: int, arguments: Sequence[int]) -> int | None:
        dirfd, address, how, size = arguments[:4]
        if size < _OPEN_HOW.size:
            return None
        flags, mode, resolve = _OPEN_HOW.unpack(self._callers.read(pid, how, _OPEN_HOW.size))
        if not flags & calls.CREATES or resolve & ~_RESOLVE_HARMLESS:
            return None
        return self._open_new(pid, signed(dirfd), address, flags, mode, resolve)

    def _prepare_new(self, pid: int, dirfd: int, path: bytes) -> tuple[int, bytes] | None:
        """Open the directory in which something is to be made; return it with the name, None if the kernel judges."""
        folder, slash, name = path.rstrip(b"/").rpartition(b"/")
        if name in {b"", b".", b".."}:
            return None
        parent = self._callers.open(pid, dirfd, folder or (b"/" if slash else b"."), follow=True)
        return None if parent is None else (parent, name)

    def _make_directory(self, pid: int, dirfd: int, address: int, mode: int) -> int | None:
        path = self._callers.read_path(pid, address)
        owner = self._owner_of_new(pid, dirfd, path)
        prepared = None if owner == ROOT else self._prepare_new(pid, dirfd, path)
        if prepared is None:
            return None
        parent, name = prepared
        try:
            os.mkdir(name, mode & 0o1777 & ~self._callers.umask(pid), dir_fd=parent)
            ownership.write_record(b"self/fd/%d/%s" % (parent, name), stat.S_IFDIR, owner)
        finally:
            os.close(parent)
        return 0

    def _make_link(self, pid: int, target: int, dirfd: int, address: int) -> int | None:
        path = self._callers.read_path(pid, address)
        owner = self._owner_of_new(pid, dirfd, path)
        text = b"" if owner == ROOT else self._callers.read_path(pid, target)
        prepared = self._prepare_new(pid, dirfd, path) if text and not path.endswith(b"/") else None
        if prepared is None:
            return None
        parent, name = prepared
        try:
            os.symlink(text, name, dir_fd=parent)
            ownership.write_record(b"self/fd/%d/%s" % (parent, name), stat.S_IFLNK, owner)
        finally:
            os.close(parent)
        return 0

    def _make_node(self, pid: int, dirfd: int, address: int, mode: int, device: int) -> int | None:
        """Make a node; a device is an empty file with a record."""
        mode &= 0xFFFF
        kind = stat.S_IFMT(mode)
        is_device = kind in {stat.S_IFCHR, stat.S_IFBLK}
        if kind == stat.S_IFCHR and not device & 0xFFFF_FFFF:
            return None  # what overlay takes for a deletion
        path = self._callers.read_path(pid, address)
        owner = self._owner_of_new(pid, dirfd, path)
        if owner == ROOT and not is_device:
            return None
        if is_device and not self._callers.credentials(pid).is_privileged:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        prepared = self._prepare_new(pid, dirfd, path) if not path.endswith(b"/") else None
        if prepared is None:
            return None
        parent, name = prepared
        permissions = stat.S_IMODE(mode) & ~self._callers.umask(pid)
        made = stat.S_IFREG if is_device or not kind else kind
        try:
            os.mknod(name, made | permissions, dir_fd=parent)
            record = owner._replace(type=kind, device=_decode_device(device)) if is_device else owner
            ownership.write_record(b"self/fd/%d/%s" % (parent, name), made, record)
        finally:
            os.close(parent)
        return 0

    # Attributes

    def _list_xattrs(self, pid: int, arguments: Sequence[int], dirfd: int, flags: int) -> int | None:
        """List attributes without records."""
        target, size = arguments[1:3]
        found = self._open_recorded(pid, dirfd, 0 if flags & syscalls.AT_EMPTY_PATH else arguments[0], flags)
        if found is None:
            return None
        fd, _ = found
        try:
            hidden = ownership.RECORD if ownership.takes_user_xattrs(os.fstat(fd).st_mode) else ownership.LINK_RECORD
            names = [os.fsencode(name) for name in os.listxattr(b"self/fd/%d" % fd) if name != hidden]
        finally:
            os.close(fd)
        data = b"".join(name + b"\0" for name in names)
        if size:
            if size < len(data):
                raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
            self._callers.write(pid, target, data)
        return len(data)


def _decode_device(number: int) -> int:
    """Return the number of a device, as os.makedev makes it, from that of mknod(2). Source: linux/kdev_t.h."""
    return os.makedev((number & 0xFFF00) >> 8, (number & 0xFF) | ((number >> 12) & 0xFFF00))
