"""Measuring one work: what is compared takes turns, run by run, so that what else the machine does is shared among all."""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from benchmark import units
from benchmark.measure import CommandFailedError, run, run_watched
from benchmark.results import Results, ToolResults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmark.measure import Command, Repetition
    from benchmark.tools import Tool
    from benchmark.work import Work

Number = TypeVar("Number", int, float)


def measure_work(work: Work, tools: Sequence[Tool], repetition: Repetition) -> Results:
    """Measure the floor, what there is at least, and each tool."""
    context = work.make()
    floors = [_Series(partial(_run_floor, work, n, context), repetition) for n in range(len(work.floors))]
    leasts = [] if work.least is None else [_Series(partial(_run_least, work, context), repetition)]
    bounds = [*floors, *leasts]
    colds = [_Series(partial(_run_cold, work, tool, context), repetition) for tool in tools]
    warms = [
        _Series(partial(_run_warm, work, tool, context), repetition, after=cold)
        for tool, cold in zip(tools, colds, strict=True)
    ]
    if "cold" not in work.phases:
        for cold in colds:
            cold.take()
    measured = {"cold": colds, "warm": warms}
    _take_turns([*bounds, *chain.from_iterable(zip(*[measured[phase] for phase in work.phases], strict=True))])
    medians = [floor.median for floor in floors]
    results = []
    for tool, cold, warm in zip(tools, colds, warms, strict=True):
        counted = cold.median if "cold" in work.phases else None
        say(f"  {tool.name}: cold {units.seconds(counted)}, warm {units.seconds(warm.median)}")
        peak = None if cold.median is None or work.less else measure_peak(work, tool, context)
        results.append(ToolResults(name=tool.name, cold=counted, warm=warm.median, peak=peak))
    floor = max((median for median in medians if median is not None), default=None)
    least = leasts[0].median if leasts else None
    return Results(floor=None if None in medians else floor, least=least, tools=tuple(results))


def measure_peak(work: Work, tool: Tool, context: Path) -> int | None:
    """Return the most memory in any phase, of runs that are not timed."""
    commands = [work.cold if phase == "cold" else work.warm for phase in work.phases]
    peaks = [_attempt(partial(_run_watched, command, tool, context)) for command in commands]
    return max((peak for peak in peaks if peak is not None), default=None)


def say(text: str) -> None:
    """Tell who waits how it goes."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class _Series:
    """The seconds of one thing that is run several times. Once it fails it is not run again and counts as unmeasured.

    It does not run either where what it comes *after* could not be measured.
    """

    def __init__(self, measure: Callable[[], float], repetition: Repetition, *, after: _Series | None = None) -> None:
        self._measure = measure
        self._repetition = repetition
        self._after = after
        self._figures: list[float] = []
        self._spent = 0.0
        self._is_open = True

    @property
    def median(self) -> float | None:
        """The median of the runs, None where there were none or one failed."""
        return statistics.median(self._figures) if self._figures else None

    def take(self) -> bool:
        """Run once more unless that was enough; tell whether it ran."""
        enough = len(self._figures) >= self._repetition.times or self._spent >= self._repetition.seconds
        if enough or not self._is_open or (self._after is not None and self._after.median is None):
            return False
        start = time.perf_counter()
        figure = _attempt(self._measure)
        self._spent += time.perf_counter() - start
        if figure is None:
            self._is_open = False
            self._figures.clear()
            return False
        self._figures.append(figure)
        return True


def _take_turns(several: Sequence[_Series]) -> None:
    while any([series.take() for series in several]):  # noqa: C419  each has its turn
        pass


def _run_floor(work: Work, number: int, context: Path) -> float:
    return _run(work, lambda work, context: work.floors[number](context), context)


def _run_least(work: Work, context: Path) -> float:
    return _run(work, _find_least, context)


def _find_least(work: Work, context: Path) -> Command:
    assert work.least is not None
    return work.least(context)


def _run_cold(work: Work, tool: Tool, context: Path) -> float:
    return _run(work, lambda work, context: work.cold(tool, context), context)


def _run_warm(work: Work, tool: Tool, context: Path) -> float:
    return _run(work, lambda work, context: work.warm(tool, context), context)


def _run(work: Work, get_command: Callable[[Work, Path], Command], context: Path) -> float:
    figure = run(get_command(work, context))
    if work.less is not None:
        figure -= run(get_command(work.less, work.less.make()))
    return figure / work.parts


def _run_watched(command: Callable[[Tool, Path], Command], tool: Tool, context: Path) -> int:
    return run_watched(command(tool, context))


def _attempt(measure: Callable[[], Number]) -> Number | None:
    """A tool that fails leaves its cells empty and says why; the others are measured all the same."""
    try:
        return measure()
    except (CommandFailedError, FileNotFoundError) as error:
        say(f"  {error}")
        return None
