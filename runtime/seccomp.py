"""Build and load the system call filters of a step: what it may not do, and what a supervisor answers.

A filter is a classic BPF program over `struct seccomp_data`. Numbers are kept as ranges with one answer each and are
found by binary search, so a call costs about ten instructions, however many the table names. Of two filters the
stricter answer counts: what the one refuses does not reach the supervisor that the other names.
"""

from __future__ import annotations

import errno
import functools
import struct
from typing import TYPE_CHECKING, Final

from runtime import seccomp_profile as profile
from runtime import syscalls
from runtime.errors import HostUnsupportedError, KernelError
from runtime.host import GIVE_SUB_IDS
from runtime.supervisor import calls as supervised

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runtime.seccomp_profile import Architecture

# Offsets in struct seccomp_data. Arguments are 64 bits wide; both machines are little endian, so the low half is first.
# From the kernel, include/uapi/linux/seccomp.h
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_ARGUMENT_OFFSETS: Final = (16, 24, 32)

# From the kernel, include/uapi/linux/bpf_common.h
_LD_W_ABS: Final = 0x20
_JMP_JA: Final = 0x05
_JMP_JEQ_K: Final = 0x15
_JMP_JGE_K: Final = 0x35
_JMP_JSET_K: Final = 0x45
_RET_K: Final = 0x06
_FARTHEST_JUMP: Final = 255

_SECCOMP_RET_ALLOW: Final = 0x7FFF_0000
_SECCOMP_RET_USER_NOTIF: Final = 0x7FC0_0000
_SECCOMP_RET_ERRNO: Final = 0x0005_0000
_EPERM: Final = _SECCOMP_RET_ERRNO | 1
_ENOSYS: Final = _SECCOMP_RET_ERRNO | 38
_EAFNOSUPPORT: Final = _SECCOMP_RET_ERRNO | 97
_AF_UNIX: Final = 1
_LAST: Final = 0xFFFF_FFFF
_X32_BIT: Final = 0x4000_0000  # system calls of x32 are those of x86_64 with this bit

# From the kernel, include/uapi/linux/seccomp.h
_FILTER_FLAG_NEW_LISTENER: Final = 1 << 3
_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5

_Code = list[tuple[int, int, int, int]]
_Range = tuple[int, int, _Code]  # first, last, what to do for the numbers between them


def load(*, only_unix_sockets: bool = False) -> None:
    """Put this thread and what it executes under the filter of this machine. It cannot be taken off.

    no_new_privs must be set, or the thread must hold CAP_SYS_ADMIN.

    Args:
        only_unix_sockets: refuse sockets of every other family, for a step that has no network and shares one.

    Raises:
        KernelError: the kernel refused the filter.
        HostUnsupportedError: there is no table for this machine.

    Source: seccomp(2).
    """
    syscalls.seccomp_set_filter(filter_program(syscalls.MACHINE, only_unix_sockets=only_unix_sockets))


def compile_filters(*, supervised: bool) -> None:
    """Make the filters that `load` needs, and with the flag `load_supervised`, for this process and its children.

    Each takes longer to make than all else that is done for the rights of a step.

    Raises:
        HostUnsupportedError: there is no table for this machine.
    """
    filter_program(syscalls.MACHINE, only_unix_sockets=False)
    if supervised:
        supervised_program(syscalls.MACHINE)


# The flag has no default: a call with it and one without would be two entries of the cache.
@functools.cache
def filter_program(machine: str, *, only_unix_sockets: bool) -> bytes:
    """Return the filter for a *machine* as uname names it, eight bytes an instruction. For the flag see `load`.

    Raises:
        HostUnsupportedError: there is no table for this machine.
    """
    architectures = profile.ARCHITECTURES.get(machine)
    if architectures is None:
        raise syscalls.unknown_machine(machine)
    code: _Code = [(_LD_W_ABS, 0, 0, _ARCHITECTURE_OFFSET)]
    for architecture in architectures:
        body = [(_LD_W_ABS, 0, 0, _NUMBER_OFFSET), *_search(_ranges(architecture, only_unix_sockets=only_unix_sockets))]
        code += [(_JMP_JEQ_K, 1, 0, architecture.audit), (_JMP_JA, 0, 0, len(body)), *body]
    code += _answer(_ENOSYS)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def load_supervised() -> int:
    """Have a supervisor answer some calls of this thread and what it executes; return the listener, which is its end.

    Signals do not interrupt a call that the supervisor has taken in, where the kernel knows how (Linux 5.19). Until
    somebody answers, such calls wait; when the last descriptor of the listener is closed, they fail with ENOSYS.

    Raises:
        HostUnsupportedError: the kernel has no listeners, or this process is under one already.

    Source: seccomp_unotify(2).
    """
    program = supervised_program(syscalls.MACHINE)
    try:
        try:
            return syscalls.seccomp_set_filter(program, _FILTER_FLAG_NEW_LISTENER | _FILTER_FLAG_WAIT_KILLABLE_RECV)
        except KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            return syscalls.seccomp_set_filter(program, _FILTER_FLAG_NEW_LISTENER)
    except KernelError as error:
        reason = f"the kernel refuses a seccomp listener: {error.strerror}"
        if error.errno == errno.EBUSY:
            reason = "this container has a seccomp listener of its own, and the kernel allows one"
        raise HostUnsupportedError(
            "files of several owners with one user id",
            reason,
            hint=GIVE_SUB_IDS,
        ) from error


@functools.cache
def supervised_program(machine: str) -> bytes:
    """Return the filter that passes the calls of `supervised_calls` on, for a *machine* as uname names it.

    Raises:
        HostUnsupportedError: there is no table for this machine.
    """
    tables = supervised.TABLES.get(machine)
    if tables is None:
        raise syscalls.unknown_machine(machine)
    code: _Code = [(_LD_W_ABS, 0, 0, _ARCHITECTURE_OFFSET)]
    for table in tables:
        column = supervised.COLUMNS[table.audit]
        marked: list[_Range] = [
            (number, number, _supervise(name))
            for name, numbers in supervised.CALLS.items()
            if (number := numbers[column]) is not None
        ]
        if table is profile.X86_64:
            marked.append((_X32_BIT, _LAST, _answer(_ENOSYS)))
        body = [(_LD_W_ABS, 0, 0, _NUMBER_OFFSET), *_search(_merge(_cover(marked, _LAST, _answer(_SECCOMP_RET_ALLOW))))]
        code += [(_JMP_JEQ_K, 1, 0, table.audit), (_JMP_JA, 0, 0, len(body)), *body]
    code += _answer(_SECCOMP_RET_ALLOW)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _supervise(name: str) -> _Code:
    code = _answer(_SECCOMP_RET_USER_NOTIF)
    for test, argument, value in reversed(supervised.CONDITIONS.get(name, ())):
        jump = _JMP_JSET_K if test == "has" else _JMP_JEQ_K
        code = [
            (_LD_W_ABS, 0, 0, _ARGUMENT_OFFSETS[argument]),
            (jump, 1, 0, value),
            *_answer(_SECCOMP_RET_ALLOW),
            *code,
        ]
    return code


def _answer(action: int) -> _Code:
    return [(_RET_K, 0, 0, action)]


def _ranges(architecture: Architecture, *, only_unix_sockets: bool) -> list[_Range]:
    """Return ranges that cover every number once, in order."""
    special: dict[int, _Code] = {
        number: _answer(_EPERM) for row in profile.REFUSED.values() if (number := row[architecture.column]) is not None
    }
    special[architecture.clone] = [
        (_LD_W_ABS, 0, 0, _ARGUMENT_OFFSETS[0]),
        (_JMP_JSET_K, 1, 0, profile.CLONE_NAMESPACES),
        *_answer(_SECCOMP_RET_ALLOW),
        *_answer(_EPERM),
    ]
    special[architecture.clone3] = _answer(_ENOSYS)  # its flags lie in memory; the C library then uses clone
    special[architecture.personality] = _judge(0, [(p, p) for p in profile.PERSONALITIES], _SECCOMP_RET_ALLOW, _EPERM)
    special[architecture.socket] = _judge(0, profile.REFUSED_SOCKETS, _EPERM, _SECCOMP_RET_ALLOW)
    if only_unix_sockets:
        special[architecture.socket] = _judge(0, [(_AF_UNIX, _AF_UNIX)], _SECCOMP_RET_ALLOW, _EAFNOSUPPORT)
        if architecture.socketcall is not None:  # its arguments lie in memory
            special[architecture.socketcall] = _answer(_EPERM)
    special[architecture.ioctl] = _judge(1, [(r, r) for r in profile.REFUSED_IOCTLS], _EPERM, _SECCOMP_RET_ALLOW)
    marked: list[_Range] = [(number, number, code) for number, code in special.items()]
    first, after = architecture.gap
    if after > first:
        marked.append((first, after - 1, _answer(_ENOSYS)))
    known = _cover(marked, architecture.end - 1, _answer(_SECCOMP_RET_ALLOW))
    private: list[_Range] = [(low, high, _answer(_SECCOMP_RET_ALLOW)) for low, high in architecture.private]
    return _merge([*known, *_cover(private, _LAST, _answer(_ENOSYS), start=architecture.end)])


def _judge(argument: int, ranges: Iterable[tuple[int, int]], inside: int, outside: int) -> _Code:
    """Answer by the low 32 bits of an argument: *inside* if one of the *ranges* holds it, else *outside*."""
    covered = _cover([(low, high, _answer(inside)) for low, high in ranges], _LAST, _answer(outside))
    return [(_LD_W_ABS, 0, 0, _ARGUMENT_OFFSETS[argument]), *_search(_merge(covered))]


def _cover(ranges: Iterable[_Range], last: int, default: _Code, *, start: int = 0) -> list[_Range]:
    """Fill the holes between *ranges* from *start* to *last* with *default*."""
    covered: list[_Range] = []
    position = start
    for low, high, code in sorted(ranges, key=lambda item: item[0]):
        if low > position:
            covered.append((position, low - 1, default))
        covered.append((low, high, code))
        position = high + 1
    if position <= last:
        covered.append((position, last, default))
    return covered


def _merge(ranges: Sequence[_Range]) -> list[_Range]:
    merged = [ranges[0]]
    for low, high, code in ranges[1:]:
        if code == merged[-1][2]:
            merged[-1] = (merged[-1][0], high, code)
        else:
            merged.append((low, high, code))
    return merged


def _search(ranges: Sequence[_Range]) -> _Code:
    """Compile a binary search of the accumulator in *ranges*, which cover everything it can hold."""
    if len(ranges) == 1:
        return ranges[0][2]
    middle = len(ranges) // 2
    first_above = ranges[middle][0]
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    if len(below) <= _FARTHEST_JUMP:
        return [(_JMP_JGE_K, len(below), 0, first_above), *below, *above]
    return [(_JMP_JGE_K, 0, 1, first_above), (_JMP_JA, 0, 0, len(below)), *below, *above]
