"""Measure and print one table. Run through ci/bench, which sets everything up."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmark.measure import Command, CommandFailedError, run, run_watched
from benchmark.tools import Tool, find_rungs, find_tools, remove_as_namespace_root
from benchmark.works import FULL, QUICK, Place, Sizes, Work, all_works

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
NOTHING = "-"
RUNGS = ("subids", "single-id", "chroot")

Number = TypeVar("Number", int, float)


def main() -> int:
    """Measure the chosen works with the chosen tools; the table is all there is on standard output."""
    arguments = _parse_arguments()
    sizes = QUICK if arguments.quick else FULL
    if arguments.times:
        sizes = replace(sizes, cold=arguments.times, warm=arguments.times)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(
        contexts=folder / "contexts",
        small_tree=_unpack(arguments.small_base, folder / "small"),
        small_archive=arguments.small_base,
        debian_archive=arguments.debian_base,
        file=arguments.file,
    )
    works = [work for work in all_works(sizes, place) if not arguments.works or work.name in arguments.works]
    if arguments.isolation:
        tools = find_rungs(folder, arguments.isolation, arguments.user)
    else:
        tools = [tool for tool in find_tools(folder) if not arguments.tools or tool.name in arguments.tools]
    rows = [_header(tools)]
    for work in works:
        _say(f"{work.name}:")
        rows.append(_measure(work, tools, sizes))
    for tool in tools:
        remove_as_namespace_root(folder / tool.name)
    sys.stdout.write(_render(rows))
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ci/bench", description="Measure builds, cold and warm; prints medians.")
    parser.add_argument(
        "works", nargs="*", help="rows: start start-file parse step steps stages many-files big-file packages"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions")
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument("--tool", dest="tools", action="append", help="pybuild or buildah; all that are installed")
    compared.add_argument(
        "--isolation",
        type=_names,
        metavar="NAME,…",
        help="pybuild at each of these rungs instead: subids, single-id, chroot; the first is what ratios are to",
    )
    parser.add_argument("--times", type=int, help="how often each build is repeated, cold and warm")
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--small-base", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--debian-base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--user", help=argparse.SUPPRESS)
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in RUNGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(RUNGS)}")
    return names


def _unpack(archive: Path, tree: Path) -> Path:
    if not tree.exists():
        tree.mkdir()
        subprocess.run(["tar", "xf", str(archive), "-C", str(tree)], check=True)
    return tree


def _header(tools: list[Tool]) -> list[str]:
    columns = [f"{tool.name} {part}" for tool in tools for part in ("cold", "warm", "MiB")]
    ratios = ["cold/floor", *(f"{tool.name}/{tools[0].name} {part}" for tool in tools[1:] for part in ("cold", "warm"))]
    return ["work (seconds)", "floor", *columns, *ratios]


def _measure(work: Work, tools: list[Tool], sizes: Sizes) -> list[str]:
    """Return one row. The tools take turns, so that what else the machine does is shared among them."""
    context = work.make()
    floor_command = work.floor(context) if work.floor else None
    floor = _attempt(lambda: _median(floor_command, sizes.warm)) if floor_command else None
    figures = [_Figures(work, tool, context) for tool in tools]
    for _ in range(sizes.warm if work.start else sizes.cold):
        for each in figures:
            each.measure_cold()
    for _ in range(0 if work.start else sizes.warm):
        for each in figures:
            each.measure_warm()
    for each in figures:
        each.measure_peak()
    cells = [work.title, _seconds(floor)]
    for each in figures:
        cells += [_seconds(each.cold), _seconds(each.warm), f"{each.peak / MIB:.0f}" if each.peak else NOTHING]
    first = figures[0]
    cells.append(_ratio(first.cold, floor))
    for each in figures[1:]:
        cells += [_ratio(each.cold, first.cold), _ratio(each.warm, first.warm)]
    return cells


class _Figures:
    """What is measured of one tool at one work; once it fails nothing more is, and no figure stays empty for it."""

    def __init__(self, work: Work, tool: Tool, context: Path) -> None:
        self._bases = work.bases
        self._tool = tool
        self._command = work.command(tool, context)
        self._colds: list[float] = []
        self._warms: list[float] = []
        self._has_failed = False
        self.peak: int | None = None

    @property
    def cold(self) -> float | None:
        """The median with nothing cached but the bases."""
        return statistics.median(self._colds) if self._colds and not self._has_failed else None

    @property
    def warm(self) -> float | None:
        """The median of the same again."""
        return statistics.median(self._warms) if self._warms and not self._has_failed else None

    def measure_cold(self) -> None:
        """Measure once with nothing cached but the bases."""

        def cold() -> float:
            self._tool.prepare(self._bases)
            return run(self._command)

        self._note(self._colds, cold)

    def measure_warm(self) -> None:
        """Measure once what was just built."""
        self._note(self._warms, lambda: run(self._command))

    def measure_peak(self) -> None:
        """Find out how much memory it takes."""
        _say(f"  {self._tool.name}: cold {_seconds(self.cold)}, warm {_seconds(self.warm)}")
        if self.cold is not None:
            self._tool.prepare(self._bases)
            self.peak = _attempt(lambda: run_watched(self._command))

    def _note(self, figures: list[float], measure: Callable[[], float]) -> None:
        figure = None if self._has_failed else _attempt(measure)
        if figure is None:
            self._has_failed = True
        else:
            figures.append(figure)


def _median(command: Command, times: int) -> float:
    return statistics.median(run(command) for _ in range(times))


def _attempt(measure: Callable[[], Number]) -> Number | None:
    """A tool that fails leaves its cells empty and says why; the others are measured all the same."""
    try:
        return measure()
    except (CommandFailedError, FileNotFoundError) as error:
        _say(f"  {error}")
        return None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _ratio(value: float | None, to: float | None) -> str:
    if value is None or to is None:
        return NOTHING
    return f"{value / to:.1f}" if value > 2 * to else f"{value / to:.2f}"


def _render(rows: list[list[str]]) -> str:
    """Return a Markdown table, the first column left and the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width if not column else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines: list[str] = []
    for row in [rows[0], rule, *rows[1:]]:
        cells = [
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
