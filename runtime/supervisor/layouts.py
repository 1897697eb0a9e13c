"""Struct stat as the kernel lays it out for programs.

Source: linux/arch/x86/include/uapi/asm/stat.h, include/uapi/asm-generic/stat.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from runtime import syscalls

if TYPE_CHECKING:
    import os

_STAT_X86_64: Final = struct.Struct("<QQQIIIIQqqqqQqQqQ24x")
_STAT_GENERIC: Final = struct.Struct("<QQIIIIQQqiiqqQqQqQ8x")
_STAT_64: Final = struct.Struct("<Q4xIIIIIQ4xqIQIIIIIIQ")


def _times(status: os.stat_result) -> tuple[int, ...]:
    return (
        *divmod(status.st_atime_ns, 1_000_000_000),
        *divmod(status.st_mtime_ns, 1_000_000_000),
        *divmod(status.st_ctime_ns, 1_000_000_000),
    )


def pack_status(status: os.stat_result) -> bytes:
    """Lay out struct stat of this machine."""
    s = status
    if syscalls.MACHINE == "x86_64":
        head = (s.st_dev, s.st_ino, s.st_nlink, s.st_mode, s.st_uid, s.st_gid, 0, s.st_rdev)
        return _STAT_X86_64.pack(*head, s.st_size, s.st_blksize, s.st_blocks, *_times(s))
    head = (s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_rdev, 0)
    return _STAT_GENERIC.pack(*head, s.st_size, s.st_blksize, 0, s.st_blocks, *_times(s))


def pack_status_64(status: os.stat_result) -> bytes:
    """Lay out struct stat64 of i386."""
    s = status
    short = s.st_ino & 0xFFFF_FFFF
    head = (s.st_dev, short, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_rdev, s.st_size, s.st_blksize, s.st_blocks)
    return _STAT_64.pack(*head, *(part & 0xFFFF_FFFF for part in _times(s)), s.st_ino)
