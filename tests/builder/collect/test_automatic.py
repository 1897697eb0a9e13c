"""Collecting at the end of a build: when, what, and what never."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from builder.collect import automatic
from builder.collect.automatic import collect_after_build
from builder.collect.inventory import take_inventory
from builder.collect.limits import DEFAULT_LIMITS, Disk, Limits, Space
from builder.collect.room import has_room
from builder.store import RESERVE_NAME, RESERVE_SIZE
from tests.fakes.shelf import KIB

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.shelf import Shelf

ALL_FREE = Limits(min_free=Space(share=1.0))
"""Wants more of the disk free than there can be, so everything that may go has to."""


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be half full, whatever it is."""
    monkeypatch.setattr(Disk, "of", lambda _: Disk(size=1000 * KIB, free=500 * KIB))


def left(shelf: Shelf) -> set[str]:
    """Return the keys of the records that are left."""
    return {item.key for item in take_inventory(shelf.store, measure=False).items if item.kind == "record"}


def test_nothing_is_looked_at_while_the_disk_has_room(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """With enough free space the store is not even read."""
    monkeypatch.setattr(automatic, "collect", lambda *_, **__: pytest.fail("read the store"))

    assert collect_after_build(shelf.store, DEFAULT_LIMITS, is_inside=True) == 0


def test_only_what_is_short_is_removed(shelf: Shelf) -> None:
    """What was used least recently goes until the disk has what it should, and no more."""
    for number in range(4):
        shelf.record(str(number), shelf.layer(str(number), size=10 * 4 * KIB, used=number), used=number)
    freed = collect_after_build(shelf.store, Limits(min_free=Space(size=550 * KIB)), is_inside=True)

    assert freed == 2 * 40 * KIB
    assert left(shelf) == {"2", "3"}


def test_small_cache_on_a_full_disk_is_left_alone(shelf: Shelf) -> None:
    """Others filled the disk: throwing away a small cache at each build would help nobody."""
    shelf.record("old", shelf.layer("old", used=1), used=1)
    limits = Limits(min_free=Space(share=1.0), reserved=Space(size=100 * KIB))

    assert collect_after_build(shelf.store, limits, is_inside=True) == 0
    assert left(shelf) == {"old"}


def test_tagged_images_and_what_is_held_stay(shelf: Shelf) -> None:
    """Whatever the disk lacks, images with names stay, and what a build holds; images without names go."""
    base, held, old = shelf.layer("base", used=1), shelf.layer("held", used=1), shelf.layer("old", used=1)
    shelf.image(base, name="base", used=1)
    unnamed = shelf.image(old, used=1)
    shelf.record("held", held, used=1)
    shelf.store.blobs.has(shelf.blob_of(held))
    freed = collect_after_build(shelf.store, ALL_FREE, is_inside=True)
    entries = shelf.store.layout.entries()

    assert freed == 3 * 4 * KIB
    assert left(shelf) == {"held"}
    assert unnamed not in {entry.descriptor.digest for entry in entries}
    assert shelf.store.blobs.path(shelf.blob_of(base)).exists()


def test_what_was_used_within_the_hour_stays(shelf: Shelf) -> None:
    """Builds that take turns on a full disk do not throw out each other's cache."""
    now = time.time()
    for key, age in (("old", 3700), ("young", 3500)):
        shelf.record(key, shelf.layer(key, used=now - age), used=now - age)
    collect_after_build(shelf.store, ALL_FREE, is_inside=True)

    assert left(shelf) == {"young"}


def test_scarce_disk_takes_what_is_recent_too(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is all but full the next build would fail, so a slow one is the lesser evil."""
    monkeypatch.setattr(Disk, "of", lambda _: Disk(size=1000 * KIB, free=10 * KIB))
    shelf.record("young", shelf.layer("young", used=time.time() - 5), used=time.time() - 5)
    collect_after_build(shelf.store, ALL_FREE, is_inside=True)

    assert left(shelf) == set()


def test_cap_that_was_asked_for_is_one(shelf: Shelf) -> None:
    """A cache over its cap shrinks to it, however young it is."""
    for number in range(3):
        used = time.time() - 30 + number
        shelf.record(str(number), shelf.layer(str(number), used=used), used=used)
    collect_after_build(shelf.store, Limits(max_used=Space(size=8 * KIB)), is_inside=True)

    assert left(shelf) == {"1", "2"}


def test_look_that_found_nothing_is_not_repeated_at_once(shelf: Shelf) -> None:
    """On a disk that stays full, builds do not read the whole store each time; later they look again."""
    collect_after_build(shelf.store, ALL_FREE, is_inside=True)
    shelf.record("old", shelf.layer("old", used=1), used=1)
    paused = collect_after_build(shelf.store, ALL_FREE, is_inside=True)
    note = shelf.store.root / "collected"
    os.utime(note, (0, 0))
    later = collect_after_build(shelf.store, ALL_FREE, is_inside=True)

    assert (paused, later) == (0, 4 * KIB)


def test_build_does_not_fail_for_what_is_wrong_with_the_store(shelf: Shelf) -> None:
    """A damaged list of images is for others to report."""
    (shelf.store.root / "images" / "index.json").write_text("no json")

    assert collect_after_build(shelf.store, ALL_FREE, is_inside=True) == 0


@pytest.mark.parametrize(("free", "kept"), [(RESERVE_SIZE - 1, False), (RESERVE_SIZE, True)])
def test_reserve_makes_removing_possible_on_a_full_disk(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, free: int, kept: bool
) -> None:
    """It is given up before anything is removed, and only where there is no other room to write in."""
    monkeypatch.setattr(Disk, "of", lambda _: Disk(size=1000 * RESERVE_SIZE, free=free))
    shelf.record("old", shelf.layer("old", used=1), used=1)
    reserve = shelf.store.root / RESERVE_NAME
    assert reserve.exists()
    seen = []
    real = automatic.collect
    monkeypatch.setattr(automatic, "collect", lambda *a, **k: (seen.append(reserve.exists()), real(*a, **k))[1])

    assert collect_after_build(shelf.store, ALL_FREE, is_inside=True) > 0
    assert seen == [kept]


def test_room_is_asked_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the blocks free is room; a folder that is gone needs none."""
    found = os.statvfs(tmp_path)

    def at(share: float) -> os.statvfs_result:
        values = list(found)
        values[2], values[4] = 1000, int(1000 * share)
        return os.statvfs_result(values)

    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda _: at(0.25))
        assert has_room(tmp_path)
        patched.setattr(os, "statvfs", lambda _: at(0.19))
        assert not has_room(tmp_path)
    assert has_room(tmp_path / "gone")
