"""The system calls a step may not make: Docker's default profile for Docker's default capabilities, as data.

Docker states an allow-list of names. Every number below `end` that is neither refused here nor in the gap is on that
list; a number from `end` on, or in the gap, was not known when the table was made and is answered as a kernel without
the call would (ENOSYS), so that programs fall back. A call that Docker adds to its list is taken out of the table here,
and `end` moves when the numbers up to it have been looked at one by one.

Numbers are those of four system call tables, in this order: x86_64, i386 (32-bit programs on x86_64), aarch64, arm
(32-bit programs on aarch64). None: that table has no such call, or the profile allows it there.

Source: moby/profiles, seccomp/default.json (2026); linux/arch/*/entry/syscalls, include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Architecture(NamedTuple):
    """One system call table.

    Args:
        audit: the number seccomp reports for the table (AUDIT_ARCH_*).
        column: the column of `REFUSED` that holds its numbers.
        end: the first unknown number at the end of the table.
        clone, clone3, socket, personality, ioctl: the numbers of the calls that are not judged by number alone.
        socketcall: the call that stands for all of sockets on some machines; None if there is none.
        gap: numbers from the first up to, not including, the second are unknown.
        private: further allowed ranges, both ends included (ARM's own calls).
    """

    audit: int
    column: int
    end: int
    clone: int
    clone3: int
    socket: int
    personality: int
    ioctl: int
    socketcall: int | None = None
    gap: tuple[int, int] = (0, 0)
    private: tuple[tuple[int, int], ...] = ()


X86_64: Final = Architecture(
    audit=0xC000_003E,
    column=0,
    end=467,
    clone=56,
    clone3=435,
    socket=41,
    personality=135,
    ioctl=16,
    gap=(336, 424),
)
I386: Final = Architecture(
    audit=0x4000_0003,
    column=1,
    end=467,
    clone=120,
    clone3=435,
    socket=359,
    personality=136,
    ioctl=54,
    socketcall=102,
)
AARCH64: Final = Architecture(
    audit=0xC000_00B7,
    column=2,
    end=467,
    clone=220,
    clone3=435,
    socket=198,
    personality=92,
    ioctl=29,
    gap=(295, 424),
)
ARM: Final = Architecture(
    audit=0x4000_0028,
    column=3,
    end=467,
    clone=120,
    clone3=435,
    socket=281,
    personality=136,
    ioctl=54,
    private=((0xF_0001, 0xF_0002), (0xF_0005, 0xF_0005)),  # breakpoint, cacheflush; set_tls
)

ARCHITECTURES: Final = {"x86_64": (X86_64, I386), "aarch64": (AARCH64, ARM)}
"""The tables a machine runs, its own first."""

CLONE_NAMESPACES: Final = 0x7E02_0000
"""The CLONE_NEW* flags for which clone(2) is refused."""

PERSONALITIES: Final = (0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)
"""What personality(2) may be asked for: Linux, 32-bit Linux, both with uname 2.6, and the current one."""

REFUSED_SOCKETS: Final = ((12, 12), (19, 20), (23, 23), (25, 25), (34, 34), (37, 38), (40, 40), (46, 0xFFFF_FFFF))
"""Address families refused to socket(2), ranges with both ends: among them AF_ALG (38) and AF_VSOCK (40)."""

REFUSED_IOCTLS: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which put input into a terminal; refused beyond what Docker refuses."""

REFUSED: Final[dict[str, tuple[int | None, int | None, int | None, int | None]]] = {
    "_sysctl": (156, 149, None, 149),
    "acct": (163, 51, 89, 51),
    "add_key": (248, 286, 217, 309),
    "afs_syscall": (183, 137, None, None),
    "arch_specific_syscall": (None, None, 244, None),
    "bdflush": (None, 134, None, 134),
    "bpf": (321, 357, 280, 386),
    "break": (None, 17, None, None),
    "clock_settime": (227, 264, 112, 262),
    "clock_settime64": (None, 404, None, 404),
    "create_module": (174, 127, None, None),
    "delete_module": (176, 129, 106, 129),
    "fanotify_init": (300, 338, 262, 367),
    "finit_module": (313, 350, 273, 379),
    "fsconfig": (431, 431, 431, 431),
    "fsmount": (432, 432, 432, 432),
    "fsopen": (430, 430, 430, 430),
    "fspick": (433, 433, 433, 433),
    "ftime": (None, 35, None, None),
    "get_kernel_syms": (177, 130, None, None),
    "get_mempolicy": (239, 275, 236, 320),
    "getpmsg": (181, 188, None, None),
    "gtty": (None, 32, None, None),
    "idle": (None, 112, None, None),
    "init_module": (175, 128, 105, 128),
    "io_uring_enter": (426, 426, 426, 426),
    "io_uring_register": (427, 427, 427, 427),
    "io_uring_setup": (425, 425, 425, 425),
    "ioperm": (173, 101, None, None),
    "iopl": (172, 110, None, None),
    "kcmp": (312, 349, 272, 378),
    "kexec_file_load": (320, None, 294, 401),
    "kexec_load": (246, 283, 104, 347),
    "keyctl": (250, 288, 219, 311),
    "lock": (None, 53, None, None),
    "lookup_dcookie": (212, 253, 18, 249),
    "lsm_get_self_attr": (459, 459, 459, 459),
    "lsm_list_modules": (461, 461, 461, 461),
    "lsm_set_self_attr": (460, 460, 460, 460),
    "mbind": (237, 274, 235, 319),
    "migrate_pages": (256, 294, 238, 400),
    "mount": (165, 21, 40, 21),
    "mount_setattr": (442, 442, 442, 442),
    "move_mount": (429, 429, 429, 429),
    "move_pages": (279, 317, 239, 344),
    "mpx": (None, 56, None, None),
    "nfsservctl": (180, 169, 42, 169),
    "nice": (None, 34, None, 34),
    "oldfstat": (None, 28, None, None),
    "oldlstat": (None, 84, None, None),
    "oldolduname": (None, 59, None, None),
    "oldstat": (None, 18, None, None),
    "olduname": (None, 109, None, None),
    "open_by_handle_at": (304, 342, 265, 371),
    "open_tree": (428, 428, 428, 428),
    "pciconfig_iobase": (None, None, None, 271),
    "pciconfig_read": (None, None, None, 272),
    "pciconfig_write": (None, None, None, 273),
    "perf_event_open": (298, 336, 241, 364),
    "pidfd_getfd": (438, 438, 438, 438),
    "pivot_root": (155, 217, 41, 218),
    "process_madvise": (440, 440, 440, 440),
    "prof": (None, 44, None, None),
    "profil": (None, 98, None, None),
    "putpmsg": (182, 189, None, None),
    "query_module": (178, 167, None, None),
    "quotactl": (179, 131, 60, 131),
    "quotactl_fd": (443, 443, 443, 443),
    "readdir": (None, 89, None, None),
    "reboot": (169, 88, 142, 88),
    "request_key": (249, 287, 218, 310),
    "security": (185, None, None, None),
    "set_mempolicy": (238, 276, 237, 321),
    "set_mempolicy_home_node": (450, 450, 450, 450),
    "setdomainname": (171, 121, 162, 121),
    "sethostname": (170, 74, 161, 74),
    "setns": (308, 346, 268, 375),
    "settimeofday": (164, 79, 170, 79),
    "sgetmask": (None, 68, None, None),
    "sigaction": (None, 67, None, 67),
    "signal": (None, 48, None, None),
    "sigpending": (None, 73, None, 73),
    "sigsuspend": (None, 72, None, 72),
    "ssetmask": (None, 69, None, None),
    "stime": (None, 25, None, None),
    "stty": (None, 31, None, None),
    "swapoff": (168, 115, 225, 115),
    "swapon": (167, 87, 224, 87),
    "sysfs": (139, 135, None, 135),
    "syslog": (103, 103, 116, 103),
    "tuxcall": (184, None, None, None),
    "ulimit": (None, 58, None, None),
    "umount": (None, 22, None, None),
    "umount2": (166, 52, 39, 52),
    "unshare": (272, 310, 97, 337),
    "uselib": (134, 86, None, 86),
    "userfaultfd": (323, 374, 282, 388),
    "ustat": (136, 62, None, 62),
    "vhangup": (153, 111, 58, 111),
    "vm86": (None, 166, None, None),
    "vm86old": (None, 113, None, None),
    "vserver": (236, 273, None, 313),
}
"""Name of each refused call to its numbers in the four tables; answered with EPERM."""
