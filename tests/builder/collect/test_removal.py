"""Removing beside others: what they do between looking, choosing and removing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from builder.collect.choice import choose
from builder.collect.inventory import take_inventory
from builder.collect.removal import collect, collect_orphans, remove
from builder.solve.cache_mounts import CacheMounts
from builder.store import Store
from registry.oci.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from builder.collect.choice import Choice
    from builder.collect.inventory import Inventory
    from builder.collect.removal import Freed
    from tests.fakes.shelf import Shelf


def choose_all(inventory: Inventory) -> Choice:
    """Choose everything that may go."""
    return choose(inventory, lambda _: True, used_before=1 << 63)


def remove_after(shelf: Shelf, meanwhile: Callable[[], object]) -> Freed:
    """Choose everything, let something happen, and remove what was chosen."""
    began = time.time()
    inventory = take_inventory(shelf.store, measure=True)
    choice = choose_all(inventory)
    meanwhile()
    return remove(shelf.store, inventory, choice, used_until=began)


def test_removal_leaves_nothing_behind(shelf: Shelf) -> None:
    """What is chosen is gone from the disk and from the database, and nothing else."""
    base, step = shelf.layer("base"), shelf.layer("step")
    shelf.image(base, name="base")
    shelf.image(step)
    shelf.record("step", step, below=(base,))
    shelf.snapshot(base, step)
    shelf.mount("key")
    shelf.download("http://a/b")
    inventory, freed = collect(shelf.store, choose_all)
    left = take_inventory(shelf.store, measure=True)

    assert {part.name for part in inventory.parts.values()} - {part.name for part in freed.parts} == set(left.parts)
    assert left.items == ()
    assert [image.description for image in left.images()] == ["base:latest"]
    assert shelf.store.state.layer_blobs() == {base: (shelf.blob_of(base),)}
    assert shelf.store.state.find_url("http://a/b") is None
    assert [path.name for path in shelf.store.temporary.iterdir() if path.name.startswith("removed")] == []
    assert list((shelf.store.root / "snapshots" / ".sizes").iterdir()) == []


def test_removal_spares_what_somebody_began_to_hold(shelf: Shelf) -> None:
    """A build that finds a layer after it was chosen keeps it and its record, not all that happen to have it too."""
    used, other = shelf.layer("used"), shelf.layer("other")
    shelf.image(used, other)
    shelf.record("used", used)
    shelf.record("other", other)
    with Store(shelf.store.root) as build:
        freed = remove_after(shelf, lambda: build.blobs.has(shelf.blob_of(used)))

        assert sorted((item.kind, item.key) for item in freed.items)[1:] == [("record", "other")]
        assert build.blobs.path(shelf.blob_of(used)).exists()
        assert shelf.store.state.find_record("used") is not None
        assert build.layout.entries() == ()


def test_removal_keeps_all_of_an_image_that_somebody_began_to_use(shelf: Shelf) -> None:
    """An image stays whole, though only its manifest is held."""
    layer = shelf.layer("layer")
    image = shelf.image(layer)
    with Store(shelf.store.root) as container:
        freed = remove_after(shelf, lambda: container.blobs.has(image))

    assert (freed.items, freed.parts) == ((), ())
    assert shelf.store.layout.entries()[0].descriptor.digest == image


def test_removal_spares_what_somebody_used_who_is_gone(shelf: Shelf) -> None:
    """A build that came and went meanwhile may have left something that needs what it used."""
    layer = shelf.layer("used")
    shelf.record("used", layer)

    def build() -> None:
        with Store(shelf.store.root) as store:
            assert store.blobs.has(shelf.blob_of(layer))

    freed = remove_after(shelf, build)

    assert (freed.items, freed.parts) == ((), ())
    assert shelf.store.state.find_record("used") is not None


def test_removal_keeps_a_name_that_was_given_meanwhile(shelf: Shelf) -> None:
    """An image without a name that is tagged after it was chosen keeps the name."""
    layer = shelf.layer("layer")
    image = shelf.image(layer)
    descriptor = shelf.store.layout.entries()[0].descriptor
    remove_after(shelf, lambda: shelf.store.layout.put(descriptor, parse_reference("app")))

    found = shelf.store.layout.find(parse_reference("app"))
    assert found is not None
    assert found.digest == image


def test_removal_leaves_a_cache_mount_that_a_step_took(shelf: Shelf) -> None:
    """A cache mount in use stays."""
    shelf.mount("key")
    caches = CacheMounts(shelf.store.root, shelf.store.temporary, lambda: False)
    with caches.hold("key", "cache key", "shared", fill=lambda _: None) as tree:
        _, freed = collect(shelf.store, choose_all)

        assert freed.parts == ()
        assert (tree / "file").exists()


def test_removal_by_two_at_once_gives_each_part_to_one(shelf: Shelf) -> None:
    """The second finds gone what it chose, and says so."""
    blob = shelf.blob("lost")
    first: list[Freed] = []

    def other() -> None:
        with Store(shelf.store.root) as store:
            first.append(collect(store, choose_all)[1])

    second = remove_after(shelf, other)

    assert [part.name for part in first[0].parts] == [blob]
    assert second.parts == ()


def test_removal_counts_only_what_it_could_remove(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be moved, such as another user's, stays and is not said to be gone."""
    blob = shelf.blob("lost")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "rename", refuse)

    assert collect_orphans(shelf.store).parts == ()
    assert shelf.store.blobs.path(blob).exists()


def test_orphans_of_some_are_collected_alone(shelf: Shelf) -> None:
    """After a crash only what the dead process held is looked at; another tool may be writing here."""
    ours, foreign = shelf.blob("ours"), shelf.blob("foreign")
    needed = shelf.layer("needed")
    shelf.record("needed", needed)
    freed = collect_orphans(shelf.store, only={ours, shelf.blob_of(needed)})

    assert [part.name for part in freed.parts] == [ours]
    assert shelf.store.blobs.path(foreign).exists()
