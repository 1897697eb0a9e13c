"""Call the kernel where Python has no function for it.

Thin wrappers over syscall(2) through ctypes. Names and arguments are the kernel's; a failure is a `KernelError` with
the call, the error number and what it was asked about. Descriptors that are returned have close-on-exec set and belong
to the caller. Paths are bytes, text (encoded as the file system's) or None for a null pointer.

Every wrapper but `clone` releases the GIL, so a call that blocks does not hold up other threads.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from typing import Final

from runtime.errors import HostUnsupportedError, KernelError

MACHINE: Final = os.uname().machine

# Only calls whose number differs between machines; from 424 on all machines share one table.
# Source: linux/arch/x86/entry/syscalls/syscall_64.tbl, linux/include/uapi/asm-generic/unistd.h
_NUMBERS_BY_MACHINE: Final = {
    "x86_64": {
        "clone": 56,
        "prctl": 157,
        "capget": 125,
        "capset": 126,
        "mount": 165,
        "pivot_root": 155,
        "read": 0,
        "seccomp": 317,
        "sethostname": 170,
        "setns": 308,
        "statx": 332,
        "umount2": 166,
        "unshare": 272,
    },
    "aarch64": {
        "clone": 220,
        "prctl": 167,
        "capget": 90,
        "capset": 91,
        "mount": 40,
        "pivot_root": 41,
        "read": 63,
        "seccomp": 277,
        "sethostname": 161,
        "setns": 268,
        "statx": 291,
        "umount2": 39,
        "unshare": 97,
    },
}
_NUMBERS: Final = {
    **_NUMBERS_BY_MACHINE.get(MACHINE, {}),
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_NO_AUTOMOUNT: Final = 0x800
AT_STATX_SYNC_TYPE: Final = 0x6000
AT_SYMLINK_NOFOLLOW: Final = 0x100

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWCGROUP: Final = 0x0200_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000
_CLONE_CHILD_CLEARTID: Final = 0x0020_0000
_CLONE_CHILD_SETTID: Final = 0x0100_0000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
MS_SLAVE: Final = 0x8_0000
MNT_DETACH: Final = 2

FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_SET_FD: Final = 5
FSCONFIG_CMD_CREATE: Final = 6
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
OPEN_TREE_CLONE: Final = 1
MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8

SECCOMP_SET_MODE_FILTER: Final = 1
CLOSE_RANGE_CLOEXEC: Final = 4
LAST_FD: Final = 0xFFFF_FFFF
"""As the end of `close_range`: all there are."""

LANDLOCK_CREATE_RULESET_VERSION: Final = 1
LANDLOCK_RULE_PATH_BENEATH: Final = 1

_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_OPENAT2_TRIES: Final = 128
_EAGAIN: Final = 11
_ENOSYS: Final = 38
_STATX_BTIME: Final = 0x800
_STATX_BTIME_OFFSET: Final = 80
_STATX_SIZE: Final = 256
_PR_CAPBSET_DROP: Final = 24
_PR_GET_TID_ADDRESS: Final = 40
_LINUX_CAPABILITY_VERSION_3: Final = 0x2008_0522

_Path = bytes | str | None

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long  # the default, int, would cut 64-bit results
# One of its own, with types: contexts open thousands of directories, and converting arguments is half of each call.
_openat2 = ctypes.CDLL(None, use_errno=True).syscall
_openat2.restype = ctypes.c_long
_openat2.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall_holding_gil = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_holding_gil.restype = ctypes.c_long


def _encode(path: _Path) -> bytes | None:
    return path.encode(errors="surrogateescape") if isinstance(path, str) else path


def _shown(*paths: _Path) -> str:
    texts = (p.decode(errors="backslashreplace") if isinstance(p, bytes) else p for p in paths)
    return " ".join(text for text in texts if text)


def _number(name: str) -> int:
    try:
        return _NUMBERS[name]
    except KeyError:
        raise unknown_machine(MACHINE) from None


def check_machine() -> None:
    """Check that the numbers of system calls are known here.

    Raises:
        HostUnsupportedError: they are not.
    """
    if MACHINE not in _NUMBERS_BY_MACHINE:
        raise unknown_machine(MACHINE)


def unknown_machine(machine: str) -> HostUnsupportedError:
    """Return the error for a *machine* whose system call numbers are not known here."""
    return HostUnsupportedError(
        "system calls by the numbers known here", f"the machine is `{machine}`, not `x86_64` or `aarch64`"
    )


def _call(name: str, *arguments: int | bytes | None, subject: str = "") -> int:
    # An int without its width would go through C varargs as 32 bits.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _syscall(ctypes.c_long(_number(name)), *wide)
    if result == -1:
        raise KernelError(name, ctypes.get_errno(), subject=subject)
    return result


def openat2(dirfd: int, path: bytes | str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open *path* below *dirfd* under the restrictions of *resolve* (RESOLVE_*).

    Close-on-exec is added to *flags*. EAGAIN, which the kernel gives when a rename raced with "..", is tried again.

    Raises:
        KernelError: the call failed; errno 38 (ENOSYS) on kernels before 5.6, EPERM under old seccomp profiles.

    Source: openat2(2).
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    encoded = _encode(path)
    number = _EAGAIN
    for _ in range(_OPENAT2_TRIES):
        fd: int = _openat2(_NUMBERS["openat2"], dirfd, encoded, how, len(how))
        if fd != -1:
            return fd
        number = ctypes.get_errno()
        if number != _EAGAIN:
            break
    raise KernelError("openat2", number, subject=_shown(path))


def mknodat(dirfd: int, path: bytes | str, mode: int, device: tuple[int, int] = (0, 0)) -> None:
    """Make a device node, FIFO or file: *mode* holds type and permission bits, *device* is (major, minor).

    Raises:
        KernelError: the call failed; EPERM for devices inside a user namespace, except the overlay whiteout (0, 0).

    Source: mknodat(2).
    """
    try:
        os.mknod(path, mode, os.makedev(*device), dir_fd=dirfd if dirfd != AT_FDCWD else None)
    except OSError as error:
        raise KernelError("mknodat", error.errno or 0, subject=_shown(path)) from error


def unshare(flags: int) -> None:
    """Move this process into new namespaces (CLONE_NEW*).

    Source: unshare(2).
    """
    _call("unshare", flags)


def setns(fd: int, nstype: int = 0) -> None:
    """Join the namespace (or those of the process) that *fd* stands for.

    Source: setns(2).
    """
    _call("setns", fd, nstype)


def sethostname(name: bytes) -> None:
    """Set the host name of this UTS namespace.

    Source: sethostname(2).
    """
    _call("sethostname", name, len(name), subject=_shown(name))


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close the descriptors *first* to *last*, both included.

    Source: close_range(2).
    """
    _call("close_range", first, last, flags)


def mount(source: _Path, target: bytes | str, fstype: _Path, flags: int = 0, data: _Path = None) -> None:
    """Mount, bind, move, remount or change propagation as *flags* (MS_*) say.

    Source: mount(2).
    """
    subject = _shown(source, target) if source != target else _shown(target)
    _call("mount", _encode(source), _encode(target), _encode(fstype), flags, _encode(data), subject=subject)


def umount2(target: bytes | str, flags: int = 0) -> None:
    """Unmount *target*.

    Source: umount2(2).
    """
    _call("umount2", _encode(target), flags, subject=_shown(target))


def pivot_root(new_root: bytes | str, put_old: bytes | str) -> None:
    """Swap the root mount; both "." stacks the old root over the new one.

    Source: pivot_root(2), section Notes.
    """
    _call("pivot_root", _encode(new_root), _encode(put_old), subject=_shown(new_root))


def fsopen(fstype: str) -> int:
    """Return a descriptor of a new file system context.

    Source: fsopen(2).
    """
    return _call("fsopen", _encode(fstype), _FSOPEN_CLOEXEC, subject=fstype)


def fsconfig(fd: int, command: int, key: str | None = None, value: _Path = None, aux: int = 0) -> None:
    """Set a parameter of the context *fd*, or create its superblock (FSCONFIG_*).

    Raises:
        KernelError: with what the context logged about it as `detail`.

    Source: fsconfig(2).
    """
    try:
        _call("fsconfig", fd, command, _encode(key), _encode(value), aux)
    except KernelError as error:
        raise KernelError("fsconfig", error.errno or 0, subject=_shown(key, value), detail=_context_log(fd)) from None


def fsmount(fd: int, attributes: int = 0) -> int:
    """Return a descriptor of a detached mount of the created context *fd* (MOUNT_ATTR_*).

    Source: fsmount(2).
    """
    try:
        return _call("fsmount", fd, _FSMOUNT_CLOEXEC, attributes)
    except KernelError as error:
        raise KernelError("fsmount", error.errno or 0, detail=_context_log(fd)) from None


def _context_log(fd: int) -> str:
    """Return the messages queued on a file system context: the only explanation of an EINVAL there is."""
    messages: list[str] = []
    while True:
        try:
            message = os.read(fd, 4096)
        except OSError:  # ENODATA once the queue is empty
            return "; ".join(messages)
        if not message:
            return "; ".join(messages)
        messages.append(message.decode(errors="replace").strip())


def move_mount(from_fd: int, from_path: bytes | str, to_fd: int, to_path: bytes | str, flags: int) -> None:
    """Attach or move a mount (MOVE_MOUNT_*).

    Source: move_mount(2).
    """
    _call("move_mount", from_fd, _encode(from_path), to_fd, _encode(to_path), flags, subject=_shown(from_path, to_path))


def open_tree(dirfd: int, path: bytes | str, flags: int) -> int:
    """Return a descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy.

    Source: open_tree(2).
    """
    return _call("open_tree", dirfd, _encode(path), flags | os.O_CLOEXEC, subject=_shown(path))


def mount_setattr(
    dirfd: int,
    path: bytes | str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change attributes of a mount, or with AT_RECURSIVE of a tree of mounts.

    Source: mount_setattr(2).
    """
    attributes = struct.pack("=QQQQ", attr_set, attr_clr, propagation, userns_fd)
    _call("mount_setattr", dirfd, _encode(path), flags, attributes, len(attributes), subject=_shown(path))


def birth_time_ns(fd: int) -> int:
    """Return when the object that *fd* stands for was made, in nanoseconds; 0 where the file system does not tell.

    Source: statx(2).
    """
    found = statx(fd, b"", AT_EMPTY_PATH, _STATX_BTIME)
    (mask,) = struct.unpack_from("=I", found, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", found, _STATX_BTIME_OFFSET)
    return seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set the capability sets of this thread, each a mask with bit n for capability n.

    Source: capset(2).
    """
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    low = (effective & 0xFFFF_FFFF, permitted & 0xFFFF_FFFF, inheritable & 0xFFFF_FFFF)
    high = (effective >> 32, permitted >> 32, inheritable >> 32)
    _call("capset", header, struct.pack("=6I", *low, *high))


def drop_bounding_capability(capability: int) -> None:
    """Drop one capability from this thread's bounding set, by number.

    Raises:
        KernelError: EINVAL for a number that this kernel does not know.

    Source: prctl(2), PR_CAPBSET_DROP.
    """
    _call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0, subject="PR_CAPBSET_DROP")


def capget() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable capability masks of this thread.

    Source: capget(2).
    """
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if _syscall(ctypes.c_long(_number("capget")), header, data) == -1:
        raise KernelError("capget", ctypes.get_errno())
    words = struct.unpack("=6I", data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def seccomp_set_filter(program: bytes, flags: int = 0) -> int:
    """Install a classic BPF *program* (8 bytes an instruction) as filter of this thread.

    Source: seccomp(2).
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    sock_fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    return _call("seccomp", SECCOMP_SET_MODE_FILTER, flags, sock_fprog)


def landlock_create_ruleset(attributes: bytes | None, flags: int = 0) -> int:
    """Return a descriptor of a new ruleset, or with LANDLOCK_CREATE_RULESET_VERSION the version of the interface.

    Source: landlock_create_ruleset(2).
    """
    return _call("landlock_create_ruleset", attributes, len(attributes or b""), flags)


def landlock_add_rule(ruleset: int, kind: int, attributes: bytes) -> None:
    """Add a rule (LANDLOCK_RULE_*) to a ruleset.

    Source: landlock_add_rule(2).
    """
    _call("landlock_add_rule", ruleset, kind, attributes, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """Put this thread and what it starts under a ruleset. It cannot be taken off.

    Source: landlock_restrict_self(2).
    """
    _call("landlock_restrict_self", ruleset, 0)


def statx(dirfd: int, path: bytes, flags: int, mask: int) -> bytes:
    """Return a struct statx as the kernel fills it.

    Source: statx(2).
    """
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    # The address as a number: the wrapper passes no buffers that the kernel writes.
    _call("statx", dirfd, path, flags, mask, ctypes.addressof(buffer), subject=_shown(path))
    return buffer.raw


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Return a descriptor of what another process has open as *fd*.

    Source: pidfd_getfd(2).
    """
    return _call("pidfd_getfd", pidfd, fd, 0)


class OtherMemory:
    """Reads memory of other processes, into one buffer of *size* bytes: made for many short reads.

    Source: process_vm_readv(2).
    """

    def __init__(self, size: int) -> None:
        self._buffer = ctypes.create_string_buffer(size + 1)
        self._local = (ctypes.c_ulong * 2)(ctypes.addressof(self._buffer), 0)
        self._remote = (ctypes.c_ulong * 2)()
        self._read = _libc.process_vm_readv
        self._read.restype = ctypes.c_ssize_t
        pointer, number = ctypes.c_void_p, ctypes.c_ulong
        self._read.argtypes = [ctypes.c_int, pointer, number, pointer, number, number]

    def read_text(self, pid: int, address: int, size: int) -> tuple[bytes, bool]:
        """Read up to *size* bytes, or to the first zero byte; tell whether there was one.

        Raises:
            KernelError: EFAULT for what is not mapped; EPERM, ENOSYS where the call is refused.
        """
        buffer = self._buffer
        self._local[1] = size
        self._remote[0], self._remote[1] = address, size
        count: int = self._read(pid, self._local, 1, self._remote, 1, 0)
        if count < 0:
            raise KernelError("process_vm_readv", ctypes.get_errno())
        buffer[count] = b"\0"
        text = buffer.value
        return text, len(text) < count


def clone(flags: int) -> int:
    """Fork into new namespaces: as os.fork, with the CLONE_NEW* *flags* in force for the child from its start.

    Returns 0 in the child. The interpreter is prepared as os.fork prepares it (os.register_at_fork runs), and the
    GIL stays held from one side to the other, which is why this cannot be an ordinary foreign call. The C library is
    not told: its fork handlers do not run, so this process must have one thread. The thread id that glibc keeps is
    renewed as its own fork does, where the kernel says where it lies.

    Raises:
        KernelError: the call failed; nothing was started.
        AssertionError: this process has several threads.

    Source: clone(2); CPython, Modules/posixmodule.c, os_fork_impl.
    """
    assert threading.active_count() == 1, "clone needs a single-threaded process"  # noqa: S101 - our bug, not a state of the host
    sigchld = 17
    address = _tid_address()
    if address:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    # The last two arguments, tid address and tls, change places between machines; tls is unused here.
    tail = (address, 0) if MACHINE == "x86_64" else (0, address)
    number = _number("clone")
    arguments = [ctypes.c_long(value) for value in (number, flags | sigchld, 0, 0, *tail)]
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _syscall_holding_gil(*arguments)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    failure = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise KernelError("clone", failure)
    return pid


def _tid_address() -> int:
    """Return where the C library keeps this thread's id, or 0 if it is not known for sure.

    glibc registers the field as the address to clear at exit; musl registers a lock there, which must not be written,
    so the address only counts if the id stands in it.
    """
    address = ctypes.c_long(0)
    pr_get_tid_address = ctypes.c_long(_PR_GET_TID_ADDRESS)
    zero = ctypes.c_long(0)
    number = ctypes.c_long(_number("prctl"))
    if _syscall(number, pr_get_tid_address, ctypes.byref(address), zero, zero, zero) == -1 or not address.value:
        return 0
    return address.value if ctypes.c_int.from_address(address.value).value == threading.get_native_id() else 0
