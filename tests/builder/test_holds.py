"""Holding: what counts, for how long, and who waits for whom."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from builder.holds import LOCK_NAME, Holds, is_alive, list_held, locked
from registry.errors import StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Path]:
    """Give the folder of a process that lives."""
    folder = tmp_path / "tmp" / "1-live"
    folder.mkdir(parents=True)
    with locked(folder / LOCK_NAME, fcntl.LOCK_EX):
        yield folder


def test_held_names_count_while_the_process_lives(tmp_path: Path, process: Path) -> None:
    """Names of the living count, those of the dead do not."""
    holds = Holds(tmp_path / "lock", process)
    with holds.hold("sha256:one"), holds.hold("two"):
        pass
    dead = tmp_path / "tmp" / "2-dead"
    dead.mkdir()
    (dead / LOCK_NAME).touch()
    (dead / ".held").write_text("three\n")

    assert list_held(tmp_path / "tmp") == {"sha256:one", "two"}
    assert is_alive(process)
    assert not is_alive(dead)
    holds.close()


def test_name_is_written_once(tmp_path: Path, process: Path) -> None:
    """What is asked for again and again costs nothing more."""
    holds = Holds(tmp_path / "lock", process)
    for _ in range(3):
        with holds.hold("name"):
            pass

    assert (process / ".held").read_text() == "name\n"
    holds.close()


def test_nothing_is_removed_while_something_is_looked_for(tmp_path: Path, process: Path) -> None:
    """Who removes has to wait until the block ends, so what is found in it is held before it can go."""
    holds = Holds(tmp_path / "lock", process)
    remover = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    with holds.hold("name"):
        with pytest.raises(BlockingIOError):
            fcntl.flock(remover, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert list_held(tmp_path / "tmp") == {"name"}
    fcntl.flock(remover, fcntl.LOCK_EX | fcntl.LOCK_NB)

    os.close(remover)
    holds.close()


def test_hold_that_cannot_be_written_down_is_none(
    tmp_path: Path, process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the build ends; what it could not hold, another process may remove."""
    holds = Holds(tmp_path / "lock", process)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(StoreFullError), holds.hold("name"):
            pytest.fail("went on without")
    assert list_held(tmp_path / "tmp") == set()

    with holds.hold("name"):
        assert list_held(tmp_path / "tmp") == {"name"}
    holds.close()
