"""Measure and print one table. Run through ci/bench, which sets everything up."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.measure import Command, CommandFailedError, run, run_watched
from benchmark.tools import Tool, find_tools, remove_as_namespace_root
from benchmark.works import FULL, QUICK, Place, Sizes, Work, all_works

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
NOTHING = "-"


def main() -> int:
    """Measure the chosen works with the chosen tools; the table is all there is on standard output."""
    arguments = _parse_arguments()
    sizes = QUICK if arguments.quick else FULL
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(
        contexts=folder / "contexts",
        small_tree=_unpack(arguments.small_base, folder / "small"),
        small_archive=arguments.small_base,
        debian_archive=arguments.debian_base,
    )
    works = [work for work in all_works(sizes, place) if not arguments.works or work.name in arguments.works]
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
    parser.add_argument("works", nargs="*", help="rows: start parse step steps stages many-files big-file packages")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions")
    parser.add_argument("--tool", dest="tools", action="append", help="pybuild or buildah; all that are installed")
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--small-base", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--debian-base", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


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
    context = work.make()
    floor_command = work.floor(context) if work.floor else None
    floor = _attempt(lambda: _median(floor_command, sizes.warm)) if floor_command else None
    figures = [_measure_tool(work, tool, context, sizes) for tool in tools]
    cells = [work.title, _seconds(floor)]
    for cold, warm, peak in figures:
        cells += [_seconds(cold), _seconds(warm), f"{peak / MIB:.0f}" if peak else NOTHING]
    cells.append(_ratio(figures[0][0], floor))
    for cold, warm, _ in figures[1:]:
        cells += [_ratio(cold, figures[0][0]), _ratio(warm, figures[0][1])]
    return cells


def _measure_tool(
    work: Work, tool: Tool, context: Path, sizes: Sizes
) -> tuple[float | None, float | None, float | None]:
    command = work.command(tool, context)

    def cold() -> float:
        tool.prepare(work.bases)
        return run(command)

    def peak() -> float:
        tool.prepare(work.bases)
        return run_watched(command)

    colds = _attempt(lambda: statistics.median(cold() for _ in range(sizes.cold if work.is_build else sizes.warm)))
    warm = _attempt(lambda: _median(command, sizes.warm)) if work.is_build and colds is not None else None
    memory = _attempt(peak) if colds is not None else None
    _say(f"  {tool.name}: cold {_seconds(colds)}, warm {_seconds(warm)}")
    return colds, warm, memory


def _median(command: Command, times: int) -> float:
    return statistics.median(run(command) for _ in range(times))


def _attempt(measure: Callable[[], float]) -> float | None:
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
    return NOTHING if value is None or to is None else f"{value / to:.1f}"


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
