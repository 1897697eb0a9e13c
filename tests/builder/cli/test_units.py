"""Tests of builder.cli.units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.units import format_age, format_size, format_transfer, parse_size, parse_time
from builder.errors import UsageError

HOUR = 3600
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (7_050_000, "7.05MB"),
        (133_400_000, "133MB"),
        (999_700, "1MB"),
        (1_234_567_890, "1.23GB"),
    ],
    ids=str,
)
def test_size_has_three_digits_in_decimal_units(size, text):
    """Sizes in listings look like Docker's."""
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1_050_000, "1.05MB"), (3_400_000, "3.40MB"), (999_999, "1.00MB")],
    ids=str,
)
def test_transfer_has_two_decimals(size, text):
    """Sizes in progress look like BuildKit's."""
    assert format_transfer(size) == text


@given(st.integers(0, 10**20))
def test_size_never_uses_an_exponent(size):
    """A size is digits and a unit, whatever its size."""
    assert "e" not in format_size(size)
    assert "e" not in format_transfer(size)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second ago"),
        (0.5, "Less than a second ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (61, "About a minute ago"),
        (150, "2 minutes ago"),
        (HOUR, "About an hour ago"),
        (2 * HOUR, "2 hours ago"),
        (47 * HOUR, "47 hours ago"),
        (3 * DAY, "3 days ago"),
        (15 * DAY, "2 weeks ago"),
        (90 * DAY, "3 months ago"),
        (800 * DAY, "2 years ago"),
    ],
    ids=str,
)
def test_age_is_told_as_docker_does(seconds, text):
    """Ages are rounded words."""
    assert format_age(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:00.5+01:00", 0.5),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
    ids=str,
)
def test_time_is_read_from_image_configs(text, seconds):
    """Times of image configs are read; what says nothing is None."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("64m", 64 << 20), ("1g", 1 << 30), ("512k", 512 << 10), ("10", 10), ("1.5KiB", 1536), ("2 MB", 2 << 20)],
)
def test_size_option_counts_in_powers_of_1024(text, size):
    """Docker's options mean binary units."""
    assert parse_size(text, option="--shm-size") == size


@pytest.mark.parametrize("text", ["", "m", "-1", "64q", "1e3", "٣m"])
def test_size_option_that_is_no_size_is_refused(text):
    """A bad size names the option."""
    with pytest.raises(UsageError, match="invalid size for --shm-size"):
        parse_size(text, option="--shm-size")
