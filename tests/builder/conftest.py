"""What tests of builds share: how old the files of a context are."""

from __future__ import annotations

import pytest

from builder.context import digest
from builder.context.fingerprint import RACY_NS


@pytest.fixture(params=["young", "old"])
def age(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files of the context written just now, or long ago."""
    if request.param == "old":
        later = digest.time.time_ns
        monkeypatch.setattr(digest.time, "time_ns", lambda: later() + 10 * RACY_NS)
