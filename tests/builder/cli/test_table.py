"""Tests of builder.cli.table."""

from __future__ import annotations

from builder.cli.table import format_table


def test_table_columns_are_aligned():
    """Columns are as wide as their widest cell and three blanks apart, with no blanks at line ends."""
    assert format_table(["NAME", "IMAGE ID"], [["alpine", "1"], ["registry.example.com/app", "22"]]) == (
        "NAME                       IMAGE ID\nalpine                     1\nregistry.example.com/app   22\n"
    )


def test_table_narrow_columns_have_ten_characters():
    """A column of short cells keeps Docker's minimum."""
    assert format_table(["A", "B"], [["1", "2"]]) == "A         B\n1         2\n"


def test_table_without_rows_is_its_titles():
    """An empty listing still has its titles."""
    assert format_table(["A", "B"], []) == "A         B\n"


def test_table_cell_cannot_break_the_line():
    """Control characters in cells are escaped."""
    assert format_table(["A"], [["x\n\x1b[2J\u202e"]]) == "A\nx\\x0a\\x1b[2J\\u202e\n"
