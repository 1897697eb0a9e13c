"""Tests of builder.bake.variables."""

from __future__ import annotations

import pytest

from builder.bake.variables import SubstitutionError, parse_dotenv, substitute

VALUES = {"A": "one", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no variable", "no variable"),
        ("$A/${A}", "one/one"),
        ("$$A", "$A"),
        ("$MISSING.", "."),
        ("${MISSING-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${EMPTY:-x}", "x"),
        ("${MISSING:-${A}}", "one"),
        ("${MISSING:-${ALSO:-a}}}", "a}"),
        ("${A:+x}${MISSING:+y}", "x"),
        ("${EMPTY+x}${EMPTY:+y}", "x"),
        ("${A:?has to be there}", "one"),
    ],
)
def test_substitute_puts_variables_in(text, expected):
    """Each form of a variable gives what compose gives for it."""
    assert substitute(text, VALUES.get) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${A", "a ${ without its }"),
        ("cost: $", "write $$ for a dollar"),
        ("${1}", "no name of a variable"),
        ("${A!x}", "unknown form"),
        ("${MISSING:?tell me}", "variable MISSING has to be set, tell me"),
        ("${EMPTY:?}", "variable EMPTY has to be set"),
        ("${X:-" * 30 + "}" * 30, "too deep"),
    ],
)
def test_substitute_refuses_what_is_no_variable(text, reason):
    """The reason says what is wrong."""
    with pytest.raises(SubstitutionError) as caught:
        substitute(text, VALUES.get)

    assert reason in caught.value.reason


def test_substitute_tells_of_variables_that_are_not_set():
    """A variable without value and default is told of, one with a default is not."""
    missing = []

    substitute("${ONE} ${TWO:-x} ${A}", VALUES.get, missing=missing.append)

    assert missing == ["ONE"]


def test_dotenv_reads_each_form_of_a_line():
    """Quotes, comments, export and variables are read as compose reads them."""
    text = (
        '# comment\nPLAIN=a b # comment\nexport NAMED=1\nSINGLE=\'$A # x\'\nDOUBLE="line\\n\\"$A\\""\n'
        'HASH=a#b\nBARE\nA\nUSED=${PLAIN}-$A\nNONE=\nTWO="first\nsecond"\r\nLAST=\\$'
    )

    assert parse_dotenv(text.replace("\\$", "x"), VALUES) == {
        "PLAIN": "a b",
        "NAMED": "1",
        "SINGLE": "$A # x",
        "DOUBLE": 'line\n"one"',
        "HASH": "a#b",
        "A": "one",
        "USED": "a b-one",
        "NONE": "",
        "TWO": "first\nsecond",
        "LAST": "x",
    }


@pytest.mark.parametrize(("text", "line"), [("A=1\n=x", 2), ("\n\nA='x", 3), ("A=${B", 1)])
def test_dotenv_names_the_line_that_is_wrong(text, line):
    """A line that is no variable is refused with its number."""
    with pytest.raises(SubstitutionError, match=f"in line {line}$"):
        parse_dotenv(text, {})
