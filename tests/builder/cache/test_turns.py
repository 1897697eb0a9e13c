"""Turns: who has one, who waits, and what is left of those who were killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from builder.cache.turns import FOLDER, Turns, sweep_turns
from builder.errors import BuildError

CHECKOUT = Path(__file__).parents[3]

HOLD = """
import sys
from pathlib import Path
from builder.cache.turns import Turns
with Turns(Path(sys.argv[1])).taken("name"):
    print("held", flush=True)
    sys.stdin.read()
"""
"""Takes a turn and keeps it until standard input ends."""


def hold(root: Path) -> subprocess.Popen[bytes]:
    """Start a process that has a turn."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_turn_that_nobody_has_is_taken_without_a_word(tmp_path: Path) -> None:
    """Nothing is told, others are free, and nothing stays on disk."""
    turns = Turns(tmp_path)
    with turns.taken("a", tell=pytest.fail), turns.taken("b", tell=pytest.fail):
        pass

    assert list((tmp_path / FOLDER).iterdir()) == []


def test_threads_take_a_turn_one_after_the_other(tmp_path: Path) -> None:
    """Eight threads that want the same never have it at the same time, and all get it."""
    turns = Turns(tmp_path)
    inside: list[int] = []
    most: list[int] = []

    def want() -> None:
        with turns.taken("name"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1] * 8
    assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize("end", [subprocess.Popen.kill, lambda process: process.stdin.close()], ids=["killed", "done"])
def test_turn_of_a_process_ends_with_it(tmp_path: Path, end) -> None:
    """Who waits is told once, and goes on when the other is done or dead."""
    told: list[str] = []

    def tell() -> None:
        told.append("waits")
        end(process)

    with hold(tmp_path) as process, Turns(tmp_path).taken("name", tell=tell):
        assert told == ["waits"]

    assert list((tmp_path / FOLDER).iterdir()) == []


def test_waiting_ends_when_the_build_is_canceled(tmp_path: Path) -> None:
    """Canceling lets nobody wait, though the turn is never given back."""
    turns = Turns(tmp_path)
    with (
        Turns(tmp_path).taken("name"),
        pytest.raises(BuildError, match="canceled while waiting for another build"),
        turns.taken("name", tell=turns.cancel),
    ):
        pytest.fail("it has the turn")


def test_sweep_removes_turns_of_the_dead_and_spares_those_of_the_living(tmp_path: Path) -> None:
    """What a killed process left is removed; a turn that somebody has stays his."""
    with hold(tmp_path) as process:
        process.kill()
    with Turns(tmp_path).taken("held"):
        sweep_turns(tmp_path)

        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["held"]


def test_turn_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    """Where no lock can be made, work is done without: at worst twice."""
    (tmp_path / FOLDER).touch()
    with Turns(tmp_path).taken("name", tell=pytest.fail):
        pass


def test_turn_that_is_free_is_taken_at_once(tmp_path: Path) -> None:
    """It is a turn like others until it is given back."""
    turns = Turns(tmp_path)
    with turns.take_if_free("a"):
        is_locked = (tmp_path / FOLDER / "a").exists()
        with turns.take_if_free("a"):
            pass
        is_still_locked = (tmp_path / FOLDER / "a").exists()

    assert is_locked
    assert is_still_locked
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_turn_that_another_process_has_is_not_waited_for(tmp_path: Path) -> None:
    """Who asks goes on without it, and takes nothing away."""
    process = hold(tmp_path)
    with Turns(tmp_path).take_if_free("name"):
        pass
    is_there = (tmp_path / FOLDER / "name").exists()
    process.communicate()

    assert is_there
