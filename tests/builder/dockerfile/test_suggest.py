"""Near names."""

from __future__ import annotations

import pytest

from builder.dockerfile.suggest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("bulid", "build"),
        ("biuld", "build"),
        ("BUILT", "build"),
        ("buld", "build"),
        ("build", None),
        ("tset", "test"),
        ("deploy", None),
        ("", None),
        ("x" * 100_000, None),
    ],
    ids=["transposed", "two steps", "other case", "missing", "exact", "short", "far", "empty", "huge"],
)
def test_nearest_finds_what_differs_a_little(word: str, expected: str | None) -> None:
    """A name within two edits is found; an exact one is no misspelling."""
    assert nearest(word, ["test", "build", "release"]) == expected


def test_nearest_allows_short_words_one_edit() -> None:
    """Words of three letters are near only when they differ in one place."""
    assert nearest("rx", ["rw"]) == "rw"
    assert nearest("id", ["rw"]) is None


def test_nearest_prefers_the_closest_then_the_first() -> None:
    """Of several near names the closest wins, and the first of equally close ones."""
    assert nearest("stag", ["stack", "stage", "stags"]) == "stage"


def test_did_you_mean_is_empty_without_a_near_name() -> None:
    """The end of a message is either a question or nothing."""
    assert did_you_mean("tst", ["test"]) == " (did you mean test?)"
    assert not did_you_mean("zzz", ["test"])
