"""When a file is too young, or keeps too little of its history, for its digest to be remembered."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from builder.context.fingerprint import RACY_NS, find_racy

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND + 123_456_789
OLD = NOW - 5 * RACY_NS

CASES = {
    "changed long ago": (OLD, OLD + 5, False),
    "changed just now": (NOW - 1, NOW - 1, True),
    "changed within the same second": (NOW - SECOND // 2, NOW - SECOND // 2, True),
    "changed just now, old time restored": (OLD, NOW - 1, True),
    "time of now given to an old file": (NOW, OLD, True),
    "changed in the future, as after a clock was set back": (NOW + 100 * RACY_NS, NOW + 100 * RACY_NS, True),
    "time in the future, changed long ago": (NOW + 100 * RACY_NS, OLD, False),
    "whole seconds, the same twice: no time of change is kept": (OLD // SECOND * SECOND, OLD // SECOND * SECOND, True),
    "whole seconds, but not the same": (OLD // SECOND * SECOND, OLD // SECOND * SECOND + SECOND, False),
    "the same twice, but no whole seconds": (OLD, OLD, False),
}


@pytest.mark.parametrize(("mtime_ns", "ctime_ns", "expected"), CASES.values(), ids=CASES.keys())
def test_file_is_racy(mtime_ns: int, ctime_ns: int, expected: bool) -> None:
    """A digest is remembered only if every later change will show in the stamps."""
    old = SimpleNamespace(st_mtime_ns=OLD, st_ctime_ns=OLD + 5)
    status = SimpleNamespace(st_mtime_ns=mtime_ns, st_ctime_ns=ctime_ns)

    assert find_racy([old, status, old], NOW) == [1] * expected
