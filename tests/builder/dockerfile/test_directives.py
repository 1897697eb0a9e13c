"""Parser directives."""

from __future__ import annotations

import pytest

from builder.dockerfile.directives import Directives, check_syntax, parse_directives
from builder.errors import DockerfileError
from builder.source import SourceFile


def parse(text: str) -> Directives:
    """Read the directives of a text."""
    return parse_directives(SourceFile("Dockerfile", text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a", Directives()),
        ("", Directives()),
        ("# syntax=docker/dockerfile:1\nFROM a", Directives(syntax="docker/dockerfile:1", line_count=1)),
        ("#SYNTAX = x/y:1  --flag \r\n", Directives(syntax="x/y:1  --flag", line_count=1)),
        ("\ufeff# escape=`\n", Directives(escape="`", line_count=1)),
        ("# escape=\\\n# check=skip=A;error=true\n", Directives(check="skip=A;error=true", line_count=2)),
        ("# hi\n# escape=x\n", Directives()),
        ("\n# escape=x\n", Directives()),
        ("# other=1\n# escape=x\n", Directives()),
        ("# syntax=\n# escape=x\n", Directives()),
        ("#!/usr/bin/env x\n# syntax=a\n", Directives(syntax="a", line_count=2)),
        ("// syntax=a/b:1\nanything", Directives(syntax="a/b:1")),
        ('{"syntax": "a/b", "x": [1]}', Directives(syntax="a/b")),
        ('{"syntax": 1}', Directives()),
        ("{" * 100_000, Directives()),
    ],
    ids=[
        "none", "empty", "syntax", "blanks and case", "byte order mark", "two", "after a comment", "after a blank line",
        "after an unknown key", "without value", "after a shebang", "slashes", "json", "json number", "broken json",
    ],
)  # fmt: skip
def test_directives_end_at_the_first_line_that_is_none(text: str, expected: Directives) -> None:
    """Only known keys at the very top count; the rest is comment."""
    assert parse(text) == expected


def test_directive_twice_is_an_error() -> None:
    """A repeated key names itself and its place."""
    with pytest.raises(DockerfileError, match="only one syntax parser directive can be used") as caught:
        parse("# syntax=a\n# Syntax=b\n")

    assert caught.value.span is not None
    assert caught.value.span.location == "Dockerfile:2:10"


def test_escape_directive_takes_two_characters_only() -> None:
    """Anything but a backslash or a backtick is refused."""
    with pytest.raises(DockerfileError, match="invalid escape token 'ab'"):
        parse("# escape=ab\n")


@pytest.mark.parametrize(
    "syntax",
    [
        "docker/dockerfile",
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile:1-labs",
        "mirror.example:5000/hub/docker/dockerfile@sha256:00",
        "docker/dockerfile-upstream:master --flag",
        None,
    ],
)
def test_dockerfile_frontend_is_built_in(syntax: str | None) -> None:
    """P7: every release of the Dockerfile frontend, from wherever, is this one."""
    check_syntax(SourceFile("Dockerfile", ""), syntax)


@pytest.mark.parametrize("syntax", ["tonistiigi/buildkit-pack", "docker/dockerfile2:1", "x/dockerfile"])
def test_other_frontend_is_refused(syntax: str) -> None:
    """What another frontend means by a file is not known here."""
    with pytest.raises(DockerfileError, match="frontend is not built in") as caught:
        check_syntax(SourceFile("Dockerfile", f"#!x\n# syntax={syntax}\n"), syntax)

    assert caught.value.span is not None
    assert caught.value.span.line == 2
