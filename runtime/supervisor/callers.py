"""Whoever has made a call: whether it still waits, its memory, the files it names, whom it acts as.

A *caller* is a thread of the step, by the number the kernel gave with its call. The number may be another thread's as soon
as the caller is gone, so what was opened by it counts only after asking whether the caller still waits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING, Final, TypeVar

from runtime import syscalls
from runtime.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.supervisor.credentials import Credentials

SLACK: Final = 50_000
"""Timer slack in nanoseconds that stands for the credentials a step begins with; the kernel's default."""

PATH_MAX: Final = 4096
MOST_LINKS: Final = 40  # MAXSYMLINKS of the kernel

_MOST_CREDENTIALS: Final = 1 << 16
_PAGE: Final = 4096
_PROC_ROOT: Final = 1  # inode of the root of every proc file system
_PIDFD_THREAD: Final = os.O_EXCL
_NOTIF_ID_VALID: Final = 0x4008_2102  # from the kernel, include/uapi/linux/seccomp.h
_ID: Final = struct.Struct("=Q")
_T = TypeVar("_T")


class Callers:
    """What is known of the callers of one step, and access to them.

    The working directory of the process becomes *proc*: names there are written relative to it.

    Args:
        listener: of the step.
        proc: a /proc of the own PID namespace, or of one around it.
        begin: whom the step begins as.
        may_have_roots: whether callers may have other roots than the own one.

    Attributes:
        call: the id of the call that is being answered.
        may_have_roots: as given, or once a caller has changed its root.
        translate_pid: makes numbers as this /proc has them of those of the own PID namespace, None where they are equal.
    """

    def __init__(self, listener: int, proc: int, begin: Credentials, *, may_have_roots: bool = False) -> None:
        self.call = 0
        self.may_have_roots = may_have_roots
        self.translate_pid: Callable[[int], int | None] | None = None
        self._listener = listener
        self._proc = proc
        self._known = [begin]
        self._slots = {begin: 0}
        self._memory: syscalls.OtherMemory | None = syscalls.OtherMemory(_PAGE)
        os.fchdir(proc)
        if not os.path.exists("self/timerslack_ns"):
            raise KernelError("open", errno.ENOENT, subject="/proc/self/timerslack_ns")
        if os.readlink("self") != str(os.getpid()):  # the /proc of a PID namespace around this one
            self.translate_pid = _translate_pid
            self._memory = None  # whose calls take numbers of this namespace
        self._proc_device = 0
        self._is_proc_fresh = False
        with contextlib.suppress(OSError):
            seen = os.stat("/proc")
            if seen.st_ino == _PROC_ROOT:
                self._proc_device = seen.st_dev
                # A process of another PID namespace has no `self` there, and so nothing of it can be reached.
                self._is_proc_fresh = not os.path.lexists("/proc/self/status")

    def check_waiting(self) -> None:
        """Make sure that what was opened by the number of the caller was the caller's.

        Raises:
            OSError: the caller is gone; nothing may be done in its name.
        """
        fcntl.ioctl(self._listener, _NOTIF_ID_VALID, _ID.pack(self.call))

    def read(self, pid: int, address: int, size: int) -> bytes:
        """Read the caller's memory.

        Raises:
            OSError: EFAULT if it is not all there.
        """
        fd = os.open(b"%d/mem" % pid, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.check_waiting()
            data = _access(os.pread, fd, size, address)
        finally:
            os.close(fd)
        if len(data) != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    def write(self, pid: int, address: int, data: bytes) -> None:
        """Write into the caller's memory.

        Raises:
            OSError: EFAULT if it is not all there.
        """
        fd = os.open(b"%d/mem" % pid, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self.check_waiting()  # the descriptor stands for one address space, whoever gets the number later
            written = _access(os.pwrite, fd, data, address)
        finally:
            os.close(fd)
        if written != len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def read_path(self, pid: int, address: int) -> bytes:
        """Read a path from the caller's memory. That it was the caller's is certain once `open` has opened it.

        Raises:
            OSError: EFAULT, ENAMETOOLONG.
        """
        path = b""
        while len(path) < PATH_MAX:
            piece, is_whole = self._read_text(pid, address, _PAGE - address % _PAGE)
            path += piece
            if is_whole:
                break
            address += len(piece)
        if len(path) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return path

    def _read_text(self, pid: int, address: int, size: int) -> tuple[bytes, bool]:
        """Read up to *size* bytes and to a zero byte; tell whether there was one."""
        if self._memory is not None:
            try:
                return self._memory.read_text(pid, address, size)
            except KernelError as error:
                if error.errno not in {errno.EPERM, errno.ENOSYS}:
                    raise
                self._memory = None  # a filter of the container around this one refuses the call
        data, zero, _ = self.read(pid, address, size).partition(b"\0")
        return data, bool(zero)

    @property
    def are_all_root(self) -> bool:
        """Whether nobody in the step has ever been anybody else than plain root."""
        return len(self._known) == 1 and self._known[0].is_plain_root

    def credentials(self, pid: int) -> Credentials:
        """Return whom a caller acts as."""
        known = self._known
        if len(known) == 1:
            return known[0]
        return known[self._slot(pid)]

    def _slot(self, pid: int) -> int:
        try:
            fd = os.open(b"%d/timerslack_ns" % pid, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it was killed
            return 0
        try:
            slot = int(os.read(fd, 32) or b"0") - SLACK
        finally:
            os.close(fd)
        return slot if 0 < slot < len(self._known) else 0

    def become(self, pid: int, wanted: Credentials) -> None:
        """Remember whom a thread acts as from now on, and all that it clones.

        Raises:
            OSError: EAGAIN if the step has had more credentials than anybody needs.
        """
        slot = self._slots.get(wanted)
        if slot is None:
            slot = len(self._known)
            if slot >= _MOST_CREDENTIALS:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._slots[wanted] = slot
            self._known.append(wanted)
        fd = os.open(b"%d/timerslack_ns" % pid, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self.check_waiting()
            os.write(fd, b"%d" % (SLACK + slot))
        finally:
            os.close(fd)

    def umask(self, pid: int) -> int:
        """Return the file mode creation mask of a caller."""
        with open(b"%d/status" % pid, "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
        return 0o022

    def number_inside(self, pid: int) -> int:
        """Return the number of a process in the innermost PID namespace it has one in."""
        with contextlib.suppress(OSError), open(b"%d/status" % pid, "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):
                    return int(line.split()[-1])
        return 0

    def open(self, pid: int, dirfd: int, path: bytes, *, follow: bool) -> int | None:
        """Open what a call means as O_PATH; None if the kernel should judge that, as it does of what is not there.

        Raises:
            OSError: the caller is gone.
        """
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        try:
            self.enter_root(pid)
            if not path:
                return self._checked(os.open(place(pid, dirfd), os.O_PATH | os.O_CLOEXEC))
            base = syscalls.AT_FDCWD
            if not path.startswith(b"/"):
                base = os.open(place(pid, dirfd), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # A link of /proc would be one of this process, or lead out of the root.
                found: int | None = syscalls.openat2(base, path, flags, 0, syscalls.RESOLVE_NO_MAGICLINKS)
            except KernelError as error:
                if error.errno not in {errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.ENOSYS}:
                    raise
                found = self._walk(pid, base, path, follow=follow)
            finally:
                if base >= 0:
                    os.close(base)
        except OSError:
            return None
        return None if found is None else self._checked(found)

    def _checked(self, fd: int) -> int:
        try:
            self.check_waiting()
        except OSError:
            os.close(fd)
            raise
        return fd

    def enter_root(self, pid: int) -> None:
        """Make the caller's root the own one, where it may be another than that of the step."""
        if not self.may_have_roots:
            return
        root = os.open(b"%d/root" % pid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(root)
            try:
                os.chroot(b".")
            finally:
                os.fchdir(self._proc)
        finally:
            os.close(root)

    def _walk(self, pid: int, base: int, path: bytes, *, follow: bool) -> int | None:
        """Follow a path name by name, for the links of /proc that lead to what the caller has open.

        Raises:
            OSError: there is no such path.
        """
        ahead = path.split(b"/")[::-1]
        here = os.open(b"/", os.O_PATH | os.O_CLOEXEC) if base < 0 else os.dup(base)
        links = 0
        try:
            while ahead:
                name = ahead.pop()
                if name in {b"", b"."}:
                    continue
                if name in {b"self", b"thread-self"} and self._is_proc_root(here):
                    found = _open_own(pid, ahead)
                else:
                    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                    status = os.fstat(found)
                    if stat.S_ISLNK(status.st_mode) and (follow or any(ahead)):
                        links += 1
                        if links > MOST_LINKS:
                            os.close(found)
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                        if status.st_dev != self._proc_device:
                            target = os.readlink(b"", dir_fd=found)
                            os.close(found)
                            ahead += target.split(b"/")[::-1]
                            if target.startswith(b"/"):
                                os.close(here)
                                here = -1
                                here = os.open(b"/", os.O_PATH | os.O_CLOEXEC)
                            continue
                        os.close(found)
                        if not self._is_proc_fresh:  # it shows processes that are none of the step's
                            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
                        found = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = found
        except OSError:
            if here >= 0:
                os.close(here)
            raise
        return here

    def _is_proc_root(self, fd: int) -> bool:
        status = os.fstat(fd)
        return status.st_ino == _PROC_ROOT and status.st_dev == self._proc_device


def place(pid: int, dirfd: int) -> bytes:
    """Return what relative paths of a call begin at, below /proc."""
    return b"%d/cwd" % pid if dirfd == syscalls.AT_FDCWD else b"%d/fd/%d" % (pid, dirfd)


def _open_own(pid: int, ahead: list[bytes]) -> int:
    """Open what follows `/proc/self` in a path, if that is a link to something the caller has.

    Raises:
        OSError: it is something else, which is the kernel's business.
    """
    name = ahead.pop() if ahead else b""
    if name == b"fd" and ahead and ahead[-1].isdigit():
        return os.open(b"%d/fd/%s" % (pid, ahead.pop()), os.O_PATH | os.O_CLOEXEC)
    if name in {b"cwd", b"root", b"exe"}:
        return os.open(b"%d/%s" % (pid, name), os.O_PATH | os.O_CLOEXEC)
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def _translate_pid(pid: int) -> int | None:
    """Return the number that a thread of this PID namespace has in the /proc that is the working directory.

    None if the kernel does not tell: of threads that are no leaders before Linux 6.9, whose calls it answers then.
    """
    try:
        pidfd = os.pidfd_open(pid, _PIDFD_THREAD)
    except OSError:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
    try:
        with open(b"self/fdinfo/%d" % pidfd, "rb") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(b"Pid:")), None)
    finally:
        os.close(pidfd)


def _access(call: Callable[..., _T], *arguments: object) -> _T:
    """Read or write memory of another process; where that is not possible is a bad address."""
    try:
        return call(*arguments)
    except (OSError, OverflowError) as error:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from error


def signed(value: int) -> int:
    """Return the int that an argument holds in its low 32 bits."""
    value &= 0xFFFF_FFFF
    return value - 0x1_0000_0000 if value & 0x8000_0000 else value


def unsigned(value: int) -> int:
    """Return the unsigned int that an argument holds in its low 32 bits."""
    return value & 0xFFFF_FFFF
