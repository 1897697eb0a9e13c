"""Whole Dockerfiles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.instructions import KEYWORDS, Run
from builder.dockerfile.stages import Dockerfile, parse_dockerfile
from builder.errors import DockerfileError, UsageError
from builder.source import SourceFile, Span

TABLE = Path(__file__).parents[2] / "conformance" / "dockerfiles" / "errors.json"
CASES: list[dict[str, Any]] = json.loads(TABLE.read_text())


def parse(text: str) -> Dockerfile:
    """Parse a whole file."""
    return parse_dockerfile(SourceFile("Dockerfile", text))


def place(span: Span) -> str:
    """Return the location, with the last column when it is another."""
    return span.location + (f"-{span.end_column}" if span.end_column > span.column else "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_wrong_file_says_what_and_where(case: dict[str, Any]) -> None:
    """Every fault is named in BuildKit's words, with a hint, at its line and columns."""
    with pytest.raises(DockerfileError, match=re.escape(case["message"])) as caught:
        parse(case["text"])

    assert caught.value.span is not None
    assert place(caught.value.span) == case["at"]
    assert caught.value.hint


def test_stages_hold_their_instructions() -> None:
    """ARG before the first FROM is global, the rest belongs to the stage above it."""
    file = parse("ARG V=1\nARG W\nFROM a:$V AS Base\nRUN x\n\nFROM base\nRUN <<E\ny\nE\nRUN z")

    assert [arg.pairs for arg in file.meta_args] == [(("V", "1"),), (("W", None),)]
    assert [(stage.index, stage.name, stage.display_name) for stage in file.stages] == [
        (0, "base", "base"),
        (1, None, "stage-1"),
    ]
    assert [len(stage.instructions) for stage in file.stages] == [1, 2]
    assert [(stage.span.line, stage.span.end_line) for stage in file.stages] == [(3, 4), (6, 10)]


def test_empty_continuations_are_reported() -> None:
    """Blank lines inside instructions come out with their places."""
    file = parse("FROM a\nRUN x \\\n\n y\n")

    assert [span.location for span in file.empty_continuations] == ["Dockerfile:3"]


def test_directives_come_with_the_file() -> None:
    """The escape character is needed to expand the words later."""
    file = parse("# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN a `\n b\n")

    assert file.directives.syntax == "docker/dockerfile:1"
    assert file.directives.escape == "`"
    (run,) = file.stages[0].instructions
    assert isinstance(run, Run)
    assert run.command.words == ("a  b",)


STAGES = "FROM a AS one\nFROM b\nFROM c AS two\nFROM d AS ONE\n"


@pytest.mark.parametrize(
    ("name", "before", "index"),
    [
        ("one", None, 3),
        ("One", 3, 0),
        ("two", 2, None),
        ("1", None, 1),
        ("3", 3, None),
        ("7", None, None),
        ("9" * 100, None, None),
        ("", None, None),
        ("\u00b2", None, None),
    ],
    ids=["last of the name", "earlier only", "later", "index", "own index", "no such index", "huge", "empty", "digit"],
)
def test_find_stage_takes_names_and_indices(name: str, before: int | None, index: int | None) -> None:
    """Names are found without case, the last one first, and only among the stages asked for."""
    stage = parse(STAGES).find_stage(name, before=before)

    assert (stage.index if stage else None) == index


def test_target_is_the_last_stage_unless_named() -> None:
    """Without a target the last stage is built."""
    assert parse(STAGES).get_target(None).index == 3
    assert parse(STAGES).get_target("TWO").index == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tow", 'target stage "tow" could not be found (did you mean two?)'),
        ("1", 'target stage "1" could not be found'),
    ],
    ids=["misspelled", "index"],
)
def test_unknown_target_is_refused_with_a_near_name(name: str, message: str) -> None:
    """A target is a name, not an index; a near name is proposed."""
    with pytest.raises(UsageError, match=re.escape(message)):
        parse(STAGES).get_target(name)


pieces = st.sampled_from(
    [*KEYWORDS, "FROM a\n", "FROM a AS b\n", "RUN --mount=type=cache,target=/x ", "COPY --from=b ", "<<E", "\nE\n", "\n", "\\\n",
     " ", "=", "a", "/b", "[", '"a"', ",", "1", "]", "'", '"', "$", "{", "}", "--", "--interval=1s ", "CMD", "NONE", "#", "\u00e9"]
)  # fmt: skip


@given(text=st.lists(pieces, max_size=50).map("".join) | st.text())
def test_parse_dockerfile_raises_nothing_but_dockerfile_errors(text: str) -> None:
    """Any text is a Dockerfile or is refused at a place in it."""
    error = None
    try:
        parse(text)
    except DockerfileError as caught:
        error = caught

    assert error is None or error.hint
    assert error is None or (error.span is not None and "\n" not in error.span.location)


@pytest.mark.parametrize(
    "text",
    [
        "RUN \\\n" + "\\\n" * 500_000,
        "RUN \\\n" + "# c\n" * 250_000,
        "RUN " + "[" * 60_000,
        "ONBUILD " * 8_000,
        "RUN <<E\\\n" + ("(" * 60_000 + "\\\n") * 15 + "\nE",
        "ENV A=\\\n" + ("'\"" * 30_000 + "\\\n") * 15,
        "RUN --mount=\\\n" + ("a=b," * 15_000 + "\\\n") * 15 + " x",
        "A\\\n" * 300_000,
    ],
    ids=["continuations", "comments", "brackets", "ONBUILD", "parentheses", "quotes", "fields", "keyword"],
)
def test_huge_files_are_parsed_or_refused(text: str) -> None:
    """A megabyte of any construct neither overflows the stack nor takes more than linear time."""
    message = ""
    try:
        parse("FROM a\n" + text)
    except DockerfileError as error:
        message = error.message

    assert len(message) < 300
