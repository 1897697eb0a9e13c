"""The system calls that a supervisor answers where only one user id exists, as data.

Numbers are those of three system call tables, in this order: x86_64, i386 (32-bit programs on x86_64), aarch64. None:
that table has no such call. Names ending in 16 are the calls of i386 with ids of 16 bits. 32-bit programs on aarch64 are
not supervised: the kernel answers them, and knows one id.

Source: linux/arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl, include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import os
from typing import Final

from runtime import seccomp_profile as profile

Numbers = tuple[int | None, int | None, int | None]

TABLES: Final = {"x86_64": (profile.X86_64, profile.I386), "aarch64": (profile.AARCH64,)}
"""The tables whose calls are supervised on a machine."""

COLUMNS: Final = {profile.X86_64.audit: 0, profile.I386.audit: 1, profile.AARCH64.audit: 2}
"""The number seccomp reports for a table to the column that holds its numbers."""

PR_SET_KEEPCAPS: Final = 8
SOL_SOCKET: Final = 1
SO_PEERCRED: Final = 17
CREATES: Final = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)
"""The flags of which open(2) has one if it may make a file."""

OWNERS: Final[dict[str, Numbers]] = {
    "chown": (92, 212, None),
    "fchown": (93, 207, 55),
    "lchown": (94, 198, None),
    "fchownat": (260, 298, 54),
    "chown16": (None, 182, None),
    "fchown16": (None, 95, None),
    "lchown16": (None, 16, None),
}
SET_IDS: Final[dict[str, Numbers]] = {
    "setuid": (105, 213, 146),
    "setgid": (106, 214, 144),
    "setreuid": (113, 203, 145),
    "setregid": (114, 204, 143),
    "setgroups": (116, 206, 159),
    "setresuid": (117, 208, 147),
    "setresgid": (119, 210, 149),
    "setfsuid": (122, 215, 151),
    "setfsgid": (123, 216, 152),
    "setuid16": (None, 23, None),
    "setgid16": (None, 46, None),
    "setreuid16": (None, 70, None),
    "setregid16": (None, 71, None),
    "setgroups16": (None, 81, None),
    "setresuid16": (None, 164, None),
    "setresgid16": (None, 170, None),
    "setfsuid16": (None, 138, None),
    "setfsgid16": (None, 139, None),
}
GET_IDS: Final[dict[str, Numbers]] = {
    "getuid": (102, 199, 174),
    "getgid": (104, 200, 176),
    "geteuid": (107, 201, 175),
    "getegid": (108, 202, 177),
    "getgroups": (115, 205, 158),
    "getresuid": (118, 209, 148),
    "getresgid": (120, 211, 150),
    "getuid16": (None, 24, None),
    "getgid16": (None, 47, None),
    "geteuid16": (None, 49, None),
    "getegid16": (None, 50, None),
    "getgroups16": (None, 80, None),
    "getresuid16": (None, 165, None),
    "getresgid16": (None, 171, None),
}
STATUS: Final[dict[str, Numbers]] = {
    "stat": (4, None, None),
    "fstat": (5, None, 80),
    "lstat": (6, None, None),
    "newfstatat": (262, None, 79),
    "statx": (332, 383, 291),
    "stat64": (None, 195, None),
    "lstat64": (None, 196, None),
    "fstat64": (None, 197, None),
    "fstatat64": (None, 300, None),
}
MAKE: Final[dict[str, Numbers]] = {
    "open": (2, 5, None),
    "openat": (257, 295, 56),
    "creat": (85, 8, None),
    "openat2": (437, 437, 437),
    "mkdir": (83, 39, None),
    "mkdirat": (258, 296, 34),
    "symlink": (88, 83, None),
    "symlinkat": (266, 304, 36),
    "mknod": (133, 14, None),
    "mknodat": (259, 297, 33),
}
OTHERS: Final[dict[str, Numbers]] = {
    "chroot": (161, 61, 51),
    "execve": (59, 11, 221),
    "execveat": (322, 358, 281),
    "getsockopt": (55, 365, 209),
    "listxattr": (194, 232, 11),
    "llistxattr": (195, 233, 12),
    "flistxattr": (196, 234, 13),
    "prctl": (157, 172, 167),
}
CALLS: Final = {**OWNERS, **SET_IDS, **GET_IDS, **STATUS, **MAKE, **OTHERS}

CONDITIONS: Final[dict[str, tuple[tuple[str, int, int], ...]]] = {
    "open": (("has", 1, CREATES),),
    "openat": (("has", 2, CREATES),),
    "prctl": (("is", 0, PR_SET_KEEPCAPS),),
    "getsockopt": (("is", 1, SOL_SOCKET), ("is", 2, SO_PEERCRED)),
}
"""What must all be true of arguments, by position, for a call to be supervised: one of the bits is set, or the value is
the one. Only the low 32 bits count. The kernel answers the others."""
