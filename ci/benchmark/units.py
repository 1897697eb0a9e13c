"""Units, and numbers as the tables show them."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * 1024
MB = 1_000_000
NOTHING = "-"


def seconds(value: float | None) -> str:
    """Return a time to the millisecond, from ten seconds on to a tenth."""
    return NOTHING if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def ratio(value: float | None, to: float | None) -> str:
    """Return how many times *to* a value is."""
    if value is None or to is None:
        return NOTHING
    return f"{value / to:.1f}" if value > 2 * to else f"{value / to:.2f}"


def megabytes(value: float | None) -> str:
    """Return bytes as whole megabytes."""
    return NOTHING if value is None else f"{value / MB:.0f}"
