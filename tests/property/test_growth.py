"""Work that grows with the text and no faster: hostile files cost what they are long, not the square of it.

What is counted is the lines of Python that run, which no other work on the machine disturbs. Work inside one call of
the standard library, such as copying a long text, does not show here; `ci/bench parse` measures that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from builder.context.ignore import parse_ignore
from builder.dockerfile.mounts import parse_mount
from builder.dockerfile.stages import parse_dockerfile
from builder.dockerfile.words import expand
from builder.errors import BuildError
from builder.source import SourceFile, Span

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = 200
GROWTH = 8
FACTOR = 1.5
"""How much more than *GROWTH* times the work is still called proportional."""

FILES = {
    "instructions": lambda count: "RUN true\n" * count,
    "continued": lambda count: "RUN a" + " \\\n b" * count + "\n",
    "comments in a continuation": lambda count: "RUN a \\\n" + "# c\n" * count + "b\n",
    "empty lines in a continuation": lambda count: "RUN a \\\n" + "\n" * count + "b\n",
    "heredocs": lambda count: "RUN <<E\nx\nE\n" * count,
    "heredocs of one instruction": lambda count: "COPY " + "<<E " * count + "/\n" + "E\n" * count,
    "heredocs that do not end": lambda count: "RUN " + "<<E " * count + "\n" + "x\n" * count,
    "body of a heredoc": lambda count: "RUN <<E\n" + "x\n" * count + "E\n",
    "pairs": lambda count: "ENV " + "A=b \\\n" * count + "C=d\n",
    "quotes that do not end": lambda count: "ENV A=" + "'\\\n" * count,
    "flags": lambda count: "COPY " + "--exclude=a \\\n" * count + "a b\n",
    "mounts": lambda count: "RUN " + "--mount=type=tmpfs,target=/x \\\n" * count + "true\n",
    "brackets": lambda count: "CMD " + "[ \\\n" * count + "\n",
    "sources": lambda count: "COPY " + "a \\\n" * count + "b\n",
    "arithmetic": lambda count: "RUN " + "(( \\\n" * count + "))\n",
    "stages": lambda count: "FROM scratch AS a\n" * count,
    "triggers": lambda count: "ONBUILD RUN true\n" * count,
}
WORDS = {
    "variables": lambda count: "$a" * count,
    "defaults": lambda count: "${b:-c}" * count,
    "nesting": lambda count: "${b:-" * count,
    "quotes": lambda count: "'a'\"b\"" * count,
    "escapes": lambda count: "\\a" * count,
    "dollars": lambda count: "$" * count,
    "pattern": lambda count: "${a##" + "*x" * count + "}",
    "replacements": lambda count: "${a//x/y}" * count,
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES.keys())
def test_parsing_grows_with_the_file(make: Callable[[int], str]) -> None:
    """Parsing a Dockerfile of any shape takes work in proportion to its length."""
    check_growth(lambda count: parse_dockerfile(SourceFile("Dockerfile", f"FROM scratch\n{make(count)}")))


@pytest.mark.parametrize("make", WORDS.values(), ids=WORDS.keys())
def test_expansion_grows_with_the_word(make: Callable[[int], str]) -> None:
    """Expanding a word of any shape takes work in proportion to its length."""
    check_growth(lambda count: expand(make(count), {"a": "xyz"}.get))


def test_mounts_grow_with_the_flag() -> None:
    """A mount with many keys, quotes or blanks is refused in proportion to its length."""
    span = Span(source=SourceFile("Dockerfile", "RUN"), line=1, end_line=1)
    for part in ("a,", '"a",', '"', "type=bind,", "x=y "):
        check_growth(lambda count, part=part: parse_mount(part * count, span))


def test_ignore_files_grow_with_their_lines() -> None:
    """Reading many patterns, or one with many stars, takes work in proportion to the file."""
    for part in ("**/x*\n", "!a/b\n", "a\n", "*a", "**/a/", "[ab]"):
        check_growth(lambda count, part=part: parse_ignore(part * count, ".dockerignore"))


def check_growth(work: Callable[[int], object]) -> None:
    """Compare the work of two sizes."""
    count_lines(lambda: work(1))  # what is imported or compiled once
    small, large = count_lines(lambda: work(SMALL)), count_lines(lambda: work(SMALL * GROWTH))

    assert large <= small * GROWTH * FACTOR


def count_lines(work: Callable[[], object]) -> int:
    """Return how many lines of Python *work* runs."""
    count = 0

    def trace(_frame: object, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except BuildError:
        pass
    finally:
        sys.settrace(before)
    return count
