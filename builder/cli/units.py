"""Sizes and times as people read them, in the forms of Docker's tools.

Source: github.com/docker/go-units, size.go and duration.go; BuildKit's progress writer for transfers.
"""

from __future__ import annotations

import re

from builder.errors import UsageError

_DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_SIZE = r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgGtTpP]?)(?:i?[bB])?"
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def format_size(size: int) -> str:
    """Return *size* bytes with three significant digits in decimal units, `7.05MB`."""
    value = float(size)
    for unit in _DECIMAL_UNITS:
        text = f"{value:.3g}"
        if float(text) < 1000 or unit == _DECIMAL_UNITS[-1]:
            return f"{text}{unit}"
        value /= 1000
    raise AssertionError


def format_transfer(size: int) -> str:
    """Return *size* bytes with two decimals in decimal units, `1.05MB`; bytes have none."""
    if size < 1000:
        return f"{size}B"
    value = float(size)
    for unit in _DECIMAL_UNITS:
        if round(value, 2) < 1000 or unit == _DECIMAL_UNITS[-1]:
            return f"{value:.2f}{unit}"
        value /= 1000
    raise AssertionError


def format_age(seconds: float) -> str:
    """Return how long ago something was, `2 hours ago`."""
    return f"{_format_duration(max(0, int(seconds)))} ago"


def _format_duration(seconds: int) -> str:
    hours = (seconds + _HOUR // 2) // _HOUR
    if seconds < 1:
        return "Less than a second"
    if seconds < _MINUTE:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if seconds < _HOUR:
        return "About a minute" if seconds < 2 * _MINUTE else f"{seconds // _MINUTE} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 14:
        return f"{hours // 24} days"
    if hours < 24 * 60:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{seconds // _DAY // 365} years"


def format_elapsed(seconds: float) -> str:
    """Return the length of something under way, `0.3s`, `75.0s`."""
    return f"{max(0.0, seconds):.1f}s"


def parse_time(text: str | None) -> float | None:
    """Return the RFC 3339 time *text* as seconds since the epoch, or None if it says nothing useful.

    Go's zero time (year 1) counts as nothing.
    """
    if not text:
        return None
    from datetime import UTC, datetime  # noqa: PLC0415  (only for listings)

    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return time.timestamp() if time.year > 1 else None


def parse_size(text: str, *, option: str) -> int:
    """Read a number of bytes as Docker's options take it: `64m` is 64 * 1024 * 1024.

    Raises:
        UsageError: not a number with an optional unit; names *option*.
    """
    found = re.fullmatch(_SIZE, text.strip())
    if found is None:
        raise UsageError(f"invalid size for {option}: `{text}`", hint="write it like 64m, 512k or 1g")
    power = " kmgtp".index(found[2].lower() or " ")
    return int(float(found[1]) * 1024**power)
