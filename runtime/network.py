"""Networks of steps.

`host` shares the network of the process that builds. `none` is a network namespace of the step's own that holds only
the loopback interface, up. `private` is one that is lent by the pool in `networks`, which the step joins.
"""

from __future__ import annotations

import os
import sys
from typing import Final, Literal

from runtime import syscalls
from runtime.errors import KernelError

Network = Literal["host", "none", "private"]

_LOOPBACK_INDEX: Final = 1  # the kernel makes it first in every network namespace


def prepare(network: Network) -> bool:
    """Load what `bring_up` needs, while files of the host can still be read; tell whether that was missing."""
    if network != "none" or "pyroute2" in sys.modules:
        return False
    import pyroute2  # noqa: F401, PLC0415 - takes more than 100 ms; most builds never need it

    return True


def enter(network: Network, namespace: int) -> None:
    """Enter the network namespace that *network* needs.

    Args:
        network: what is wanted.
        namespace: descriptor of the one that is joined if that is `private`, and then closed.

    Raises:
        KernelError: the kernel refused.
    """
    match network:
        case "host":
            pass
        case "none":
            syscalls.unshare(syscalls.CLONE_NEWNET)
        case "private":
            syscalls.setns(namespace, syscalls.CLONE_NEWNET)
            os.close(namespace)


def bring_up(network: Network) -> None:
    """Set the links of the network namespace that this process has just got.

    Raises:
        KernelError: the kernel refused.
    """
    if network != "none":
        return
    from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - loaded by `prepare`

    try:
        with IPRoute() as routes:
            routes.link("set", index=_LOOPBACK_INDEX, state="up")
    except NetlinkError as error:
        raise KernelError("netlink", error.code, subject="lo") from error
