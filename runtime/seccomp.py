"""Build and load the system call filter of a step.

The filter is a classic BPF program over `struct seccomp_data`. Numbers are kept as ranges with one answer each and are
found by binary search, so a call costs about ten instructions, however many the table names.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Final

from runtime import seccomp_profile as profile
from runtime import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runtime.seccomp_profile import Architecture

# Offsets in struct seccomp_data. Arguments are 64 bits wide; both machines are little endian, so the low half is first.
# From the kernel, include/uapi/linux/seccomp.h
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_ARGUMENT_OFFSETS: Final = (16, 24)

# From the kernel, include/uapi/linux/bpf_common.h
_LD_W_ABS: Final = 0x20
_JMP_JA: Final = 0x05
_JMP_JEQ_K: Final = 0x15
_JMP_JGE_K: Final = 0x35
_JMP_JSET_K: Final = 0x45
_RET_K: Final = 0x06
_FARTHEST_JUMP: Final = 255

_SECCOMP_RET_ALLOW: Final = 0x7FFF_0000
_SECCOMP_RET_ERRNO: Final = 0x0005_0000
_EPERM: Final = _SECCOMP_RET_ERRNO | 1
_ENOSYS: Final = _SECCOMP_RET_ERRNO | 38
_EAFNOSUPPORT: Final = _SECCOMP_RET_ERRNO | 97
_AF_UNIX: Final = 1
_LAST: Final = 0xFFFF_FFFF

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


@functools.cache
def filter_program(machine: str, *, only_unix_sockets: bool = False) -> bytes:
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
