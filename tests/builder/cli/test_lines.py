"""Tests of builder.cli.lines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.lines import LONGEST_LINE, LineAssembler, decode_line, escape_controls, escape_line, strip_controls


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        (b"crlf\r", "crlf"),
        (b"10%\r20%\r100%", "100%"),
        (b"abcdef\rXY", "XYcdef"),
        (b"long text\r\x1b[Kok", "ok"),
        (b"long text\rok\x1b[K", "ok"),
        (b"bad \xff byte", "bad \\xff byte"),
        ("gr\u00fcn".encode(), "gr\u00fcn"),
        (b"\r\r", ""),
    ],
    ids=repr,
)
def test_line_is_what_a_terminal_would_show(data, text):
    """Carriage returns overwrite, undecodable bytes are escaped."""
    assert decode_line(data) == text


def test_assembler_waits_for_the_newline():
    """A line comes out when it is whole, and the rest at the end."""
    lines = LineAssembler()

    assert lines.feed(b"a") == []
    assert lines.feed(b"b\nc\nd") == ["ab", "c"]
    assert lines.peek() == "d"
    assert lines.finish() == ["d"]
    assert lines.finish() == []


def test_assembler_joins_characters_that_were_cut():
    """A character split between two writes is one character."""
    lines = LineAssembler()

    assert lines.feed("ü".encode()[:1]) == []
    assert lines.feed("ü".encode()[1:] + b"\n") == ["ü"]


def test_assembler_keeps_only_the_last_state_of_a_progress_bar():
    """A bar that never ends a line does not fill memory."""
    lines = LineAssembler()
    for number in range(1000):
        lines.feed(b"%d%%" % number + b" " * 1000 + b"\r")

    assert len(lines._rest) < 2000
    assert lines.peek().strip() == "999%"


def test_assembler_breaks_endless_lines_without_loss():
    """A line without end comes out in parts that join to the whole, cut between characters."""
    lines = LineAssembler()
    data = "ü".encode() * LONGEST_LINE
    text = "".join(lines.feed(b"x" + data) + lines.finish())

    assert text == "x" + "ü" * LONGEST_LINE


@given(st.text(st.sampled_from("ab\r\nü\x1b[K日")), st.lists(st.integers(0, 60)))
def test_assembler_gives_the_same_lines_however_input_is_cut(text, cuts):
    """Cutting the input elsewhere changes nothing."""
    whole, parts = LineAssembler(), LineAssembler()
    data = text.encode()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    chunks = [data[left:right] for left, right in itertools.pairwise(edges)]
    expected = whole.feed(data) + whole.finish()

    assert [line for chunk in chunks for line in parts.feed(chunk)] + parts.finish() == expected


def test_escape_shows_what_would_be_hidden():
    """Terminal sequences, bidirectional overrides and undecodable bytes are written out; lines stay in texts."""
    text = "a\x1b[31m\u202e\udcff\x9b\n\tb"

    assert escape_controls(text) == "a\\x1b[31m\\u202e\\xff\\x9b\n\tb"
    assert escape_line(text) == "a\\x1b[31m\\u202e\\xff\\x9b\\x0a\\x09b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\tb", "a       b"),
        ("\x1b(Bx\x1b=", "x"),
        ("cut \x1b[3", "cut \\x1b[3"),
        ("bell\x07", "bell\\x07"),
    ],
    ids=repr,
)
def test_strip_removes_terminal_sequences(text, shown):
    """A line of output cannot do anything to the terminal."""
    assert strip_controls(text) == shown


@given(st.text())
def test_strip_leaves_no_control_character(text):
    """Whatever comes in, nothing a terminal would act on comes out."""
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in strip_controls(text))
