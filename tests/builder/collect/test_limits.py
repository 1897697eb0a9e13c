"""How much of a disk the cache may take."""

from __future__ import annotations

import pytest

from builder.collect.limits import DEFAULT_LIMITS, Disk, Limits, Space

GB = 1_000_000_000


def test_space_is_the_smaller_of_a_size_and_a_share() -> None:
    """A share of a large disk may be more than is wanted, a size more than a small one has."""
    space = Space(size=10 * GB, share=0.1)

    assert space.of(Disk(size=50 * GB, free=0)) == 5 * GB
    assert space.of(Disk(size=500 * GB, free=0)) == 10 * GB


@pytest.mark.parametrize(
    ("limits", "free", "used", "kept"),
    [
        (Limits(max_used=Space(size=10)), 0, 30, 10),
        (Limits(max_used=Space(size=10)), 0, 5, 5),
        (Limits(min_free=Space(size=20)), 15, 30, 25),
        (Limits(min_free=Space(size=20)), 25, 30, 30),
        (Limits(min_free=Space(share=0.5)), 20, 40, 10),
        (Limits(min_free=Space(size=90)), 0, 40, 0),
        (Limits(reserved=Space(size=12)), 0, 30, 12),
        (Limits(min_free=Space(size=90), reserved=Space(size=12)), 0, 40, 12),
        (Limits(max_used=Space(size=10), min_free=Space(size=20), reserved=Space(size=3)), 0, 30, 10),
        (Limits(max_used=Space(size=30), min_free=Space(size=25), reserved=Space(size=3)), 0, 30, 5),
    ],
)
def test_limits_keep_as_much_as_they_may(limits: Limits, free: int, used: int, kept: int) -> None:
    """The strictest limit counts, and what is reserved stays whatever the others say."""
    assert limits.keep(Disk(size=100, free=free), used) == kept


def test_default_leaves_a_fifth_free_but_takes_no_small_cache() -> None:
    """On a disk that others filled, a cache below the reserve stays whole, and a larger one only shrinks to it."""
    full = Disk(size=200 * GB, free=1 * GB)

    assert DEFAULT_LIMITS.is_kept(Disk(size=200 * GB, free=40 * GB))
    assert not DEFAULT_LIMITS.is_kept(full)
    assert DEFAULT_LIMITS.keep(full, 9 * GB) >= 9 * GB
    assert DEFAULT_LIMITS.keep(full, 30 * GB) == 10 * GB
    assert DEFAULT_LIMITS.keep(Disk(size=200 * GB, free=35 * GB), 30 * GB) == 25 * GB
