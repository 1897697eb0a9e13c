"""What is chosen to go, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.collect.choice import cache_size, choose
from builder.collect.inventory import take_inventory
from tests.fakes.shelf import KIB, SECOND

if TYPE_CHECKING:
    from builder.collect.choice import Choice
    from tests.fakes.shelf import Shelf

EVER = 1 << 63


def choose_all(shelf: Shelf, *, used_before: int = EVER, keep: int | None = None, only_blobs: bool = False) -> Choice:
    """Choose among everything there is."""
    inventory = take_inventory(shelf.store, measure=True)
    return choose(inventory, lambda _: True, used_before=used_before, keep=keep, only_blobs=only_blobs)


def test_choice_of_everything_spares_tagged_images(shelf: Shelf) -> None:
    """All goes but the blobs of images with names."""
    base, step, old = shelf.layer("base"), shelf.layer("step"), shelf.layer("old")
    shelf.image(base, name="base")
    shelf.image(old)
    shelf.record("step", step, below=(base,))
    shelf.snapshot(base)
    shelf.mount("key")
    shelf.download("http://a/b")
    lost = shelf.blob("lost")
    choice = choose_all(shelf)
    left = {part.name for part in take_inventory(shelf.store, measure=True).parts.values()}
    left -= {part.name for part in choice.parts}

    assert [item.kind for item in choice.items if item.kind != "snapshot"].count("record") == 1
    assert choice.parts[0].name == lost
    assert shelf.blob_of(base) in left
    assert len(left) == 3  # with the two documents of the image
    assert choice.size == cache_size(take_inventory(shelf.store, measure=True))


@pytest.mark.parametrize(
    ("keep", "chosen"),
    [(0, ["old", "middle", "new"]), (8 * KIB, ["old"]), (7 * KIB, ["old", "middle"]), (100 * KIB, [])],
)
def test_choice_takes_what_was_used_least_recently_until_the_rest_fits(
    shelf: Shelf, keep: int, chosen: list[str]
) -> None:
    """Records go in the order of their last use, and no more of them than necessary."""
    for number, key in enumerate(["old", "middle", "new"]):
        shelf.record(key, shelf.layer(key, used=number), used=number)

    assert [item.key for item in choose_all(shelf, keep=keep).items] == chosen


def test_limit_does_not_take_steps_of_tagged_images(shelf: Shelf) -> None:
    """Their layers stay anyway, so the steps would be lost for nothing; their snapshots go, and who wants all gone gets it."""
    shipped, other = shelf.layer("shipped", used=1), shelf.layer("other", used=2)
    shelf.image(shipped, name="app")
    shelf.record("shipped", shipped, used=1)
    shelf.record("other", other, used=2)
    snapshot = shelf.snapshot(shipped, used=3)

    assert [item.key for item in choose_all(shelf, keep=0).items] == ["other", snapshot]
    assert [item.key for item in choose_all(shelf).items] == ["shipped", "other", snapshot]


def test_layer_goes_with_the_last_record_that_answers_with_it(shelf: Shelf) -> None:
    """A layer of two records counts once, and stays while one of them does."""
    shared = shelf.layer("shared", used=1)
    shelf.record("one", shared, used=1)
    shelf.record("two", shared, used=9)
    shelf.record("three", shelf.layer("three", used=3), used=3)
    few, more = choose_all(shelf, used_before=2 * SECOND), choose_all(shelf, used_before=9 * SECOND + 1)

    assert ([item.key for item in few.items], few.parts) == (["one"], ())
    assert len(more.parts) == 2


def test_snapshot_goes_with_the_last_that_leads_to_it(shelf: Shelf) -> None:
    """A snapshot that no record and no image leads to any more is not kept for its own last use."""
    layer = shelf.layer("step", used=1)
    shelf.record("step", layer, used=1)
    name = shelf.snapshot(layer, used=9)
    choice = choose_all(shelf, used_before=5 * SECOND)

    assert name in {part.name for part in choice.parts}
    assert [item.kind for item in choice.items] == ["record"]


def test_choice_spares_what_is_held(shelf: Shelf) -> None:
    """Nothing goes that a running process has looked at, nor the record and the image that it used."""
    held, other = shelf.layer("held"), shelf.layer("other")
    shelf.record("held", held)
    shelf.record("other", other)
    image = shelf.image(held)
    snapshot = shelf.snapshot(other)
    for blob in (shelf.blob_of(held), image):
        shelf.store.blobs.has(blob)
    shelf.store.snapshots.has(snapshot)
    choice = choose_all(shelf)

    assert [(item.kind, item.key) for item in choice.items] == [("record", "other")]
    assert [part.name for part in choice.parts] == [shelf.blob_of(other)]


def test_what_shares_a_base_with_a_running_build_may_go(shelf: Shelf) -> None:
    """A base that is held stays; what else was made on it does not stay for that."""
    base, step = shelf.layer("base"), shelf.layer("step")
    shelf.image(base, step)
    shelf.record("step", step, below=(base,))
    shelf.store.snapshots.has(shelf.snapshot(base))
    shelf.store.blobs.has(shelf.blob_of(base))
    choice = choose_all(shelf)

    assert {item.kind for item in choice.items} == {"image", "record"}
    assert shelf.blob_of(step) in {part.name for part in choice.parts}
    assert shelf.blob_of(base) not in {part.name for part in choice.parts}


def test_choice_by_age_spares_young_orphans(shelf: Shelf) -> None:
    """What nothing needs yet may be about to be named."""
    old, young = shelf.blob("old", used=1), shelf.blob("young", used=9)

    assert [part.name for part in choose_all(shelf, used_before=5 * SECOND).parts] == [old]
    assert {part.name for part in choose_all(shelf).parts} == {old, young}


def test_choice_outside_the_namespace_takes_blobs_only(shelf: Shelf) -> None:
    """Snapshots and cache mounts count there, but stay."""
    layer = shelf.layer("step")
    shelf.record("step", layer)
    shelf.snapshot(layer)
    shelf.mount("key")

    assert [part.kind for part in choose_all(shelf, only_blobs=True).parts] == ["blob"]
