"""Columns of text as Docker's listings print them."""

from __future__ import annotations

from builder.cli.lines import escape_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = 3
_NARROWEST = 10


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of left-aligned columns under *titles*, each line ended by a newline.

    A column is as wide as its widest cell, at least ten, and three blanks apart from the next. Control characters in
    cells are escaped, so that each row is one line.

    Source: docker/cli, cli/command/formatter: tabwriter with minimum width 10 and padding 3.
    """
    lines = [tuple(titles), *(tuple(escape_line(cell) for cell in row) for row in rows)]
    widths = [max(_NARROWEST, *(len(line[column]) + _GAP for line in lines)) for column in range(len(titles))]
    widths[-1] = 0
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
