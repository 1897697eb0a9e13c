"""A work, one row: what is done, with how much of everything, where, and what the figures are to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchmark.measure import Repetition
from benchmark.reaches import Compared
from benchmark.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmark.measure import Command
    from benchmark.reaches import Reach
    from benchmark.registry import LoopbackRegistry
    from benchmark.results import Results
    from benchmark.tools import Tool

Phase = Literal["cold", "warm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything, and how often."""

    files: int
    files_size: int
    big_size: int
    steps: int
    stages: int
    memory_files: tuple[int, ...]
    many_memory_files: int
    repetition: Repetition


FULL = Sizes(
    files=50_000,
    files_size=269 * MIB,
    big_size=1024 * MIB,
    steps=30,
    stages=6,
    memory_files=(10_000, 100_000),
    many_memory_files=1_000_000,
    repetition=Repetition(times=15, seconds=45),
)
QUICK = Sizes(
    files=5_000,
    files_size=27 * MIB,
    big_size=64 * MIB,
    steps=10,
    stages=3,
    memory_files=(1_000, 10_000),
    many_memory_files=50_000,
    repetition=Repetition(times=3, seconds=5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where things are.

    Contexts are kept, *small_tree* is the small base unpacked, archives are base root file systems, Debian's None where
    they could not be made. *file* is what ci/dist made. *scratch* is for what floors write. *source* is the registry that
    images are pulled from, *target* the one they are pushed to.
    """

    contexts: Path
    scratch: Path
    small_tree: Path
    small_archive: Path
    debian_archive: Path | None
    large_debian_archive: Path | None
    file: Path
    source: LoopbackRegistry
    target: LoopbackRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One row of times.

    *make* returns the context. *cold* and *warm* get ready, untimed, what one run of a tool needs, and return the command
    to time; so does each of *floors*, of which the slowest counts, and *least*, which does what nothing that stands on the
    same libraries can leave out. A cold run starts from nothing but base images, a warm one follows another run. *phases*
    are those that are timed; the floors take turns with the first.

    With *less*, the time of that other work, run right after, is taken off each time, and what is left is divided by
    *parts*.
    """

    name: str
    title: str
    make: Callable[[], Path]
    cold: Callable[[Tool, Path], Command]
    warm: Callable[[Tool, Path], Command]
    floors: tuple[Callable[[Path], Command], ...] = ()
    least: Callable[[Path], Command] | None = None
    phases: tuple[Phase, ...] = ("cold", "warm")
    reaches: tuple[Reach, ...] = ()
    less: Work | None = None
    parts: int = 1

    def compare(self, results: Results) -> list[Compared]:
        """Return the limits of the work beside what was measured; none of what was not."""
        least = results.at_least()
        found = [(reach.limit, reach.find(results), reach.find(least)) for reach in self.reaches]
        return [Compared(self.title, limit, value, bound) for limit, value, bound in found if value is not None]
