"""How long a command takes and how much memory it holds.

Time is wall time from before the start until the end was seen. Memory is the largest sum, over the command and all
that descends from it, seen by looking every 20 ms; it is Pss (shared pages counted once, in parts) where the kernel
lets this user read it, else Rss. Looking costs time, so it is done in a run of its own.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERVAL = 0.02


class CommandFailedError(Exception):
    """A measured command ended with a status other than 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command with its environment and its user, the caller's where they are None."""

    args: tuple[str, ...]
    env: Mapping[str, str] | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """How often a command is run: *times*, but not again once all that was done for it took so many *seconds*."""

    times: int
    seconds: float


class _Options(TypedDict):
    """How a process is started."""

    env: Mapping[str, str] | None
    user: str | None
    group: str | None
    extra_groups: tuple[int, ...] | None


def _options(command: Command) -> _Options:
    groups = None if command.user is None else ()
    return _Options(env=command.env, user=command.user, group=command.user, extra_groups=groups)


def run(command: Command) -> float:
    """Run a command to its end and return the seconds it took.

    It begins when the disk has taken what others wrote, which would slow down who runs after them.

    Raises:
        CommandFailedError: it ended with another status than 0; the message has the end of its output.
    """
    os.sync()
    start = time.perf_counter()
    done = subprocess.run(
        command.args,
        **_options(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise CommandFailedError(_describe(command.args, done.returncode, done.stdout))
    return seconds


def run_watched(command: Command) -> int:
    """Run a command to its end and return the most memory it held, in bytes.

    Raises:
        CommandFailedError: it ended with another status than 0.
    """
    peak = 0
    with subprocess.Popen(
        command.args,
        **_options(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            peak = max(peak, sum(_memory(pid) for pid in _descendants(process.pid)))
            time.sleep(INTERVAL)
    if process.returncode:
        raise CommandFailedError(_describe(command.args, process.returncode, b""))
    return peak


def _describe(args: Sequence[str], status: int, output: bytes) -> str:
    tail = output.decode(errors="replace")[-1500:]
    return f"{' '.join(args)} ended with status {status}\n{tail}"


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _memory(pid: int) -> int:
    for name, field in (("smaps_rollup", b"Pss:"), ("status", b"VmRSS:")):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                for line in file:
                    if line.startswith(field):
                        return int(line.split()[1]) * 1024
        except OSError:
            continue
    return 0
