"""End everything that a process started, where no PID namespace does so.

The process is a *subreaper*: whatever becomes an orphan below it becomes its child, so daemons that forked twice and
left their session are found too.

Source: prctl(2), PR_SET_CHILD_SUBREAPER; proc(5), /proc/PID/task/TID/children.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import prctl

if TYPE_CHECKING:
    from collections.abc import Collection


def adopt_orphans() -> None:
    """Become the parent of all orphans below this process."""
    prctl.set_child_subreaper(1)


def end_descendants(spared: Collection[int] = ()) -> None:
    """Kill all that descend from this process, and wait for them, until none is left.

    Args:
        spared: children that live on, with their descendants.
    """
    while True:
        children = [pid for pid in _children(os.getpid()) if pid not in spared]
        if not children:
            return
        for pid in children:
            _kill_tree(pid)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _kill_tree(top: int) -> None:
    """Kill a child and its descendants, all found before the first is killed and its children move away."""
    found = [top]
    for pid in found:
        found += _children(pid)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children += map(int, file.read().split())
    return children
