"""Text with positions."""

from __future__ import annotations

import pytest

from builder.source import SourceFile, Span


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a\n\nb\n", ("a", "", "b")),
        ("a\r\nb\r\n", ("a", "b")),
        ("\ufeffa\n", ("a",)),
        ("a\fb\u2028c\vd\n", ("a\fb\u2028c\vd",)),
    ],
    ids=["empty", "no newline", "blank line", "CRLF", "byte order mark", "other separators"],
)
def test_lines_end_at_newlines_only(text: str, lines: tuple[str, ...]) -> None:
    """Lines are counted as editors and the parsers count them."""
    assert SourceFile("Dockerfile", text).lines == lines


def test_excerpt_marks_lines_and_columns() -> None:
    """The lines of the span are marked, the columns of its first line underlined."""
    source = SourceFile("Dockerfile", "FROM a\nRUN --mont=x y\n\nRUN z\nCMD q\n")
    span = Span(source=source, line=2, end_line=2, column=5, end_column=12)

    assert span.location == "Dockerfile:2:5"
    assert span.excerpt().splitlines() == [
        "   1 |     FROM a",
        "   2 | >>> RUN --mont=x y",
        "     |         ^^^^^^^^",
        "   3 |",
        "   4 |     RUN z",
    ]
