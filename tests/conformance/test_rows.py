"""Every row of the specification's acceptance table has a test, or says why it has none.

`rows.json` holds

    rows       the numbers of the rows of each letter, by priority: must, should, nice
    elsewhere  row -> tests outside of `cases` and `sequences` that show it
    not yet    row -> what is missing

A case or sequence belongs to the row that its name begins with.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conformance.test_cases import CASES
from tests.conformance.test_sequences import SEQUENCES

CHECKOUT = Path(__file__).parents[2]
TABLE = json.loads(Path(__file__).with_name("rows.json").read_text(encoding="utf-8"))
OWN = {f"{match[1].upper()}{int(match[2])}" for path in (*CASES.iterdir(), *SEQUENCES.iterdir())
       if (match := re.match(r"([a-z])(\d+)-", path.name))}  # fmt: skip
"""Rows with a case or sequence of their own."""


def list_rows(letter: str, numbers: str) -> list[str]:
    """Return the rows of a text like `1 3-5`."""
    parts = [part.partition("-") for part in numbers.split()]
    return [f"{letter}{number}" for low, _, high in parts for number in range(int(low), int(high or low) + 1)]


ROWS = [
    row for letter, ranks in TABLE["rows"].items() for numbers in ranks.values() for row in list_rows(letter, numbers)
]
ELSEWHERE = [(row, test) for row, tests in TABLE["elsewhere"].items() for test in tests]


@pytest.mark.parametrize("row", ROWS)
def test_row_is_shown_by_a_test_or_says_what_is_missing(row: str) -> None:
    """A row has a case, a sequence or a named test; else, and only else, it is listed as missing."""
    has_test = row in OWN or bool(TABLE["elsewhere"].get(row))

    assert has_test is not (row in TABLE["not yet"])


@pytest.mark.parametrize(("row", "test"), ELSEWHERE, ids=[row for row, _ in ELSEWHERE])
def test_named_test_exists(row: str, test: str) -> None:
    """A test that a row names is there."""
    path, _, name = test.partition("::")

    assert row in ROWS
    assert f"def {name}(" in (CHECKOUT / path).read_text(encoding="utf-8")
