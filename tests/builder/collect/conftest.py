"""What the tests of collecting share: a store that is filled by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.store import Store
from tests.fakes.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """Give a store that is filled by hand."""
    with Store(tmp_path / "root") as store:
        yield Shelf(store)
