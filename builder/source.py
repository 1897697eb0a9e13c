"""Text with positions, for every stage and every error.

A *source file* is the text of one Dockerfile (or ignore file) with the name the user knows it by. A *span* is a
range of lines in it, with a column range in its first line when the fault can be pinned to a word.
"""

from __future__ import annotations

from registry.value import field, frozen

CONTEXT_LINES = 2


@frozen(kw_only=False)
class SourceFile:
    """The text of a file and the name shown to the user.

    *lines* are cut at newlines only, as editors and the parsers count them; carriage returns at their ends and a byte
    order mark are left out.
    """

    name: str
    text: str
    lines: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lines = self.text.removeprefix("\ufeff").split("\n")
        if not lines[-1]:
            lines.pop()
        object.__setattr__(self, "lines", tuple([line.rstrip("\r") for line in lines]))


@frozen
class Span:
    """A place in a source file: lines and columns count from 1, ends are inclusive; column 0 is the whole line."""

    source: SourceFile = field(repr=False)
    line: int
    end_line: int
    column: int = 0
    end_column: int = 0

    @property
    def location(self) -> str:
        """``Dockerfile:7`` or ``Dockerfile:7:12``."""
        place = f"{self.source.name}:{self.line}"
        return f"{place}:{self.column}" if self.column else place

    def excerpt(self) -> str:
        """The lines around the span, those inside marked with ``>>>`` and the columns underlined.

        Source: the form BuildKit's clients print, so that eyes and scripts carry over.
        """
        first = max(1, self.line - CONTEXT_LINES)
        last = min(len(self.source.lines), self.end_line + CONTEXT_LINES)
        shown: list[str] = []
        for number in range(first, last + 1):
            inside = self.line <= number <= self.end_line
            shown.append(f"{number:>4} | {'>>>' if inside else '   '} {self.source.lines[number - 1]}".rstrip())
            if inside and number == self.line and self.column:
                width = max(1, self.end_column - self.column + 1)
                shown.append(f"     |     {' ' * (self.column - 1)}{'^' * width}")
        return "\n".join(shown)
