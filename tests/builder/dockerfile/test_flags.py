"""Flags of instructions."""

from __future__ import annotations

import pytest

from builder.dockerfile.flags import FLAGS, Flags, parse_flags
from builder.dockerfile.instructions import KEYWORDS
from builder.dockerfile.parser import parse_nodes
from builder.errors import DockerfileError
from builder.source import SourceFile


def parse(text: str) -> Flags:
    """Read the flags of one instruction."""
    (node,) = parse_nodes(SourceFile("Dockerfile", text))
    return parse_flags(node)


def test_flags_are_read_by_kind() -> None:
    """Texts, booleans and lists come out as what they are; what is absent is None or empty."""
    flags = parse("COPY --from=x --link --parents=FALSE --exclude=a --exclude=b=c a b")

    assert flags.text("from") == "x"
    assert flags.boolean("link") is True
    assert flags.boolean("parents") is False
    assert [word.text for word in flags.all("exclude")] == ["a", "b=c"]
    assert flags.text("chown") is None


def test_empty_text_flag_counts_as_absent() -> None:
    """`--from=` is the same as no flag."""
    assert parse("COPY --from= a b").text("from") is None


def test_every_flag_belongs_to_an_instruction() -> None:
    """The table names instructions that exist."""
    assert {keyword.upper() for keyword in FLAGS} <= set(KEYWORDS)


def test_unknown_flag_says_what_is_known() -> None:
    """The hint lists the flags of the instruction."""
    with pytest.raises(DockerfileError, match=r"unknown flag: --plaform \(did you mean platform\?\)") as caught:
        parse("FROM --plaform=x a")

    assert caught.value.hint == "FROM takes --platform"
