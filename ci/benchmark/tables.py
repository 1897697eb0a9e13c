"""The tables that are printed, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.units import megabytes, ratio, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmark.layer_size import LayerSizes
    from benchmark.reaches import Compared
    from benchmark.results import Results
    from benchmark.work import Work


def render_times(measured: Sequence[tuple[Work, Results]]) -> str:
    """Return a row for each work: the floor, each tool, and how they compare."""
    tools = measured[0][1].tools
    columns = [f"{tool.name} {part}" for tool in tools for part in ("cold", "warm", "MB")]
    ratios = ["cold/floor", *(f"{tool.name}/{tools[0].name} {part}" for tool in tools[1:] for part in ("cold", "warm"))]
    rows = [["work (seconds)", "floor", *columns, *ratios]]
    for work, results in measured:
        cells = [work.title, seconds(results.floor)]
        for tool in results.tools:
            cells += [seconds(tool.cold), seconds(tool.warm), megabytes(tool.peak)]
        first = results.project
        cells.append(ratio(first.cold, results.floor))
        for tool in results.tools[1:]:
            cells += [ratio(tool.cold, first.cold), ratio(tool.warm, first.warm)]
        rows.append(cells)
    return _render(rows)


def render_memory(measured: Sequence[tuple[Work, int | None]]) -> str:
    """Return a row for each work with the most memory it took, and how many times the first's that is."""
    rows = [["peak memory", "MB", "to the first"]]
    rows += [[work.title, megabytes(peak), ratio(peak, measured[0][1])] for work, peak in measured]
    return _render(rows)


def render_size(sizes: LayerSizes) -> str:
    """Return the row of the layer."""
    figures = [megabytes(value) for value in (sizes.tar, sizes.zlib, sizes.project)]
    return _render(
        [
            ["size (MB)", "tar", "gzip by zlib 6", "gzip by pybuild", "pybuild/zlib"],
            ["a layer of Debian", *figures, f"{sizes.project / sizes.zlib:.3f}"],
        ]
    )


def render_limits(lines: Sequence[Compared]) -> str:
    """Return a row for each limit."""
    rows = [["work", "figure", "measured", "to reach", "reached", "least here"]]
    for line in lines:
        limit = line.limit
        bound = "at least" if limit.is_least else "at most"
        reached = "yes" if limit.is_reached(line.value) else "no"
        least = "" if line.least is None else f"{line.least:.3g}{limit.unit}"
        shown = f"{line.value:.3g}{limit.unit}"
        rows.append([line.title, limit.figure, shown, f"{bound} {limit.value:g}{limit.unit}", reached, least])
    return _render(rows)


def _render(rows: Sequence[Sequence[str]]) -> str:
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
