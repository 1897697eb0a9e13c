"""Measure and print tables. Run through ci/bench, which sets everything up."""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import reaches, tables
from benchmark.layer_size import measure_layer
from benchmark.measure import Repetition
from benchmark.registry import LoopbackRegistry
from benchmark.sub_ids import remove_tree
from benchmark.take_turns import measure_peak, measure_work, say
from benchmark.tools import PybuildTool, Tool, find_rungs, find_tools
from benchmark.units import MB
from benchmark.work import FULL, QUICK, Place
from benchmark.works import ASKED_FOR, ROWS, all_works, memory_works

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmark.results import Results
    from benchmark.work import Work

RUNGS = ("subids", "single-id", "chroot")
PATIENCE_SECONDS = 86_400


def main() -> int:
    """Measure the chosen rows with the chosen tools; the tables are all there is on standard output."""
    arguments = _parse_arguments()
    sizes = QUICK if arguments.quick else FULL
    if arguments.times:
        sizes = replace(sizes, repetition=Repetition(times=arguments.times, seconds=PATIENCE_SECONDS))
    names = arguments.rows or ROWS.keys() - ASKED_FOR
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.isolation:
        tools: list[Tool] = [*find_rungs(folder, arguments.isolation, arguments.user)]
    else:
        tools = [tool for tool in find_tools(folder) if not arguments.tools or tool.name in arguments.tools]
    with ExitStack() as stack:
        place = Place(
            contexts=folder / "contexts",
            scratch=folder / "scratch",
            small_tree=_unpack(arguments.small_base, folder / "small"),
            small_archive=arguments.small_base,
            debian_archive=arguments.debian_base,
            large_debian_archive=arguments.large_debian_base,
            file=arguments.file,
            source=stack.enter_context(LoopbackRegistry(folder / "source")),
            target=stack.enter_context(LoopbackRegistry(folder / "target")),
        )
        for kept in (*(folder / tool.name for tool in tools), place.scratch):
            stack.callback(remove_tree, kept)
        works = [work for work in all_works(sizes, place) if work.name in names]
        memories = [work for work in memory_works(sizes, place) if work.name in names]
        lines: list[reaches.Compared] = []
        output: list[str] = []
        peaks: list[tuple[Work, int | None]] = []
        if works:
            measured = [(work, _measure(work, tools, sizes.repetition)) for work in works]
            output.append(tables.render_times(measured))
            lines += [compared for work, results in measured for compared in work.compare(results)]
            peaks += [(work, results.project.peak) for work, results in measured]
        if "size" in names and arguments.large_debian_base is not None:
            say("size:")
            layer = measure_layer(PybuildTool(folder), arguments.large_debian_base)
            output.append(tables.render_size(layer))
            lines.append(reaches.Compared("a layer of Debian", reaches.SIZE, layer.project / layer.zlib))
        if memories:
            grown = [(work, _measure_memory(work, tools[0])) for work in memories]
            output.append(tables.render_memory(grown))
            peaks += grown
        peak, title = max(((peak or 0, work.title) for work, peak in peaks), default=(0, ""))
        if peak:
            lines.append(reaches.Compared(title, reaches.PEAK, peak / MB))
        if lines and isinstance(tools[0], PybuildTool):
            output.append(tables.render_limits(lines))
    sys.stdout.write("\n".join(output))
    return 0


def _measure(work: Work, tools: Sequence[Tool], repetition: Repetition) -> Results:
    say(f"{work.name}:")
    return measure_work(work, tools, repetition)


def _measure_memory(work: Work, tool: Tool) -> int | None:
    say(f"{work.name}, {work.title}:")
    return measure_peak(work, tool, work.make())


def _parse_arguments() -> argparse.Namespace:
    width = max(map(len, ROWS))
    rows = "".join(f"  {name:{width}}  {text}\n" for name, text in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="ci/bench",
        description="Measure builds, cold and warm; prints medians, and whether they are what they shall be.",
        epilog=f"rows, those of {', '.join(sorted(ASKED_FOR))} only if named:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", type=_row, metavar="ROW", help="what is measured; all without")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions")
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument("--tool", dest="tools", action="append", help="pybuild or buildah; all that are installed")
    compared.add_argument(
        "--isolation",
        type=_names,
        metavar="NAME,…",
        help="pybuild at each of these rungs instead: subids, single-id, chroot; the first is what ratios are to",
    )
    parser.add_argument("--times", type=int, help="how often each build is repeated, cold and warm, however long")
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--small-base", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--debian-base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--large-debian-base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--user", help=argparse.SUPPRESS)
    return parser.parse_args()


def _row(text: str) -> str:
    if text not in ROWS:
        raise argparse.ArgumentTypeError(f"{text}: no row; --help lists them")
    return text


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


if __name__ == "__main__":
    sys.exit(main())
