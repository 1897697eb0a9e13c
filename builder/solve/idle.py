"""How many processors have nothing to do, so that more vertices may be worked on than there are processors.

Steps often wait, for a network, a lock or the clock. A builder without a limit, as BuildKit is, starts everything at
once and lets a machine run out of memory; one that counts vertices alone waits for those that wait.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL: Final = 0.05
"""Seconds after which it is worth to look again; the kernel counts in hundredths."""

_IDLE_ENOUGH: Final = 0.5
"""How much of a processor has to be idle for one more vertex."""

_QUOTA: Final = "/sys/fs/cgroup/cpu.max"
_USAGE: Final = "/sys/fs/cgroup/cpu.stat"


class IdleProcessors:
    """Says how many processors were idle since it was asked last, or made.

    Args:
        read_idle: gives the processor seconds that nobody used so far, None if that is not known.
        now: gives seconds.
    """

    def __init__(
        self, read_idle: Callable[[], float | None] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._read_idle = read_idle or find_meter()
        self._now = now
        self._since = now()
        self._idle = self._read_idle()

    def count(self) -> int:
        """Return how many, rounded; 0 if that is not known."""
        since, before = self._since, self._idle
        self._since, self._idle = self._now(), self._read_idle()
        if before is None or self._idle is None or self._since <= since:
            return 0
        return max(0, int((self._idle - before) / (self._since - since) + 1 - _IDLE_ENOUGH))


def find_meter() -> Callable[[], float | None]:
    """Return what reads how many processor seconds nobody used.

    Where a container may use only a part of the machine, what it left of its own part counts.

    Source: proc_stat(5); linux/Documentation/admin-guide/cgroup-v2.rst, cpu.max and cpu.stat.
    """
    try:
        with open(_QUOTA, encoding="ascii") as file:
            quota, period = file.read().split()
        processors = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return _read_idle_of_machine
    return lambda: _read_rest_of_quota(processors)


def _read_idle_of_machine() -> float | None:
    try:
        with open("/proc/stat", "rb") as file:
            return int(file.readline().split()[4]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _read_rest_of_quota(processors: float) -> float | None:
    try:
        with open(_USAGE, "rb") as file:
            name, used = file.readline().split()
        return processors * time.monotonic() - int(used) / 1e6 if name == b"usage_usec" else None
    except (OSError, ValueError):
        return None
