"""The trees below a step, while they move."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.solve.chain import Chain, Upper
from runtime.snapshots.overlay import Snapshots

if TYPE_CHECKING:
    from runtime.snapshots.snapshotter import Active

PATIENCE = 20
A_WHILE = 0.5
"""Seconds in which something would happen that must not; nothing is asserted of how long anything takes."""


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    """Give a store of snapshots."""
    return Snapshots(tmp_path / "snapshots", tmp_path / "tmp")


def leave(snapshots: Snapshots, text: str) -> tuple[Active, Upper]:
    """Make what a step has left: one file."""
    active = snapshots.prepare()
    (active.upper / "file").write_text(text)
    return active, Upper(active, snapshots)


def test_tree_is_not_moved_while_it_is_opened(snapshots: Snapshots) -> None:
    """Who opens it finds it where it was said to be."""
    active, upper = leave(snapshots, "x")
    opening = ExitStack()
    (path,) = Chain((), (upper,)).opening(opening)
    committing = threading.Thread(target=upper.commit, args=("name",))
    committing.start()
    committing.join(A_WHILE)
    read = (path / "file").read_text()
    opening.close()
    committing.join(PATIENCE)

    assert read == "x"
    assert path == active.upper
    assert upper.path == snapshots.path("name")
    assert (upper.path / "file").read_text() == "x"


def test_tree_that_is_there_already_stays_where_it_was_made(snapshots: Snapshots) -> None:
    """What runs on it goes on seeing it, times and all, until the last one lets go."""
    other, _ = leave(snapshots, "x")
    snapshots.commit(other, "name")
    active, upper = leave(snapshots, "x")
    chain = Chain((), (upper,))
    with chain.held():
        upper.commit("name")
        upper.release()
        seen = (chain.paths[0] / "file").read_text()

    assert seen == "x"
    assert not upper.is_committed
    assert not active.upper.parent.exists()
    assert (snapshots.path("name") / "file").exists()


def test_chain_forgets_what_has_its_name(snapshots: Snapshots) -> None:
    """Only what may still move has to be held by the steps above it."""
    _, first = leave(snapshots, "1")
    _, second = leave(snapshots, "2")
    first.commit("first")
    above = Chain((Path("/base"),), (first,)).with_upper(second)

    assert above == Chain((Path("/base"), snapshots.path("first")), (second,))
    assert above.paths == (Path("/base"), snapshots.path("first"), second.path)
