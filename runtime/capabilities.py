"""What root inside a step may still do.

A capability set is an int: bit n stands for capability n, as in the Cap lines of /proc/PID/status.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from runtime import syscalls
from runtime.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable

# From the kernel, include/uapi/linux/capability.h
CAP_CHOWN: Final = 0
CAP_DAC_OVERRIDE: Final = 1
CAP_FOWNER: Final = 3
CAP_FSETID: Final = 4
CAP_KILL: Final = 5
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_SETPCAP: Final = 8
CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_RAW: Final = 13
CAP_SYS_CHROOT: Final = 18
CAP_SYS_PTRACE: Final = 19
CAP_SYS_NICE: Final = 23
CAP_MKNOD: Final = 27
CAP_AUDIT_WRITE: Final = 29
CAP_SETFCAP: Final = 31

_LARGEST_POSSIBLE: Final = 63


def capability_mask(capabilities: Iterable[int]) -> int:
    """Return the set of the numbered *capabilities*."""
    mask = 0
    for capability in capabilities:
        mask |= 1 << capability
    return mask


DEFAULT_CAPABILITIES: Final = capability_mask(
    (
        CAP_CHOWN,
        CAP_DAC_OVERRIDE,
        CAP_FOWNER,
        CAP_FSETID,
        CAP_KILL,
        CAP_SETGID,
        CAP_SETUID,
        CAP_SETPCAP,
        CAP_NET_BIND_SERVICE,
        CAP_NET_RAW,
        CAP_SYS_CHROOT,
        CAP_MKNOD,
        CAP_AUDIT_WRITE,
        CAP_SETFCAP,
    )
)
"""Docker's default set, 00000000a80425fb. Source: moby, daemon/pkg/oci/caps/defaults.go."""


def limit_bounding_set(keep: int) -> None:
    """Drop every capability outside *keep* from this thread's bounding set, also those newer than this program.

    What this thread holds is unchanged; what it can get by executing a file is limited for good.

    Raises:
        KernelError: the thread lacks CAP_SETPCAP in its user namespace.

    Source: capabilities(7), section Capability bounding set.
    """
    import prctl  # noqa: PLC0415 - a compiled module that only steps need

    for capability in range(_LARGEST_POSSIBLE + 1):
        if keep >> capability & 1:
            continue
        try:
            prctl.capbset_drop(capability)
        except ValueError:  # newer than python-prctl, but maybe not than the kernel
            try:
                syscalls.drop_bounding_capability(capability)
            except KernelError as error:
                if error.errno == errno.EINVAL:
                    return
                raise
        except OSError as error:
            if error.errno == errno.EINVAL:  # past the last one this kernel knows
                return
            raise KernelError("prctl", error.errno or 0, subject="PR_CAPBSET_DROP") from error


def hold_only(keep: int) -> None:
    """Make *keep* this thread's effective and permitted set, and nothing inheritable.

    Raises:
        KernelError: *keep* holds more than the thread does.
    """
    syscalls.capset(effective=keep, permitted=keep, inheritable=0)
