"""What needs what in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.collect.inventory import part_path, take_inventory
from registry.oci.descriptor import Descriptor
from registry.oci.media_types import OCI_LAYER_ZSTD
from tests.fakes.shelf import KIB, SECOND

if TYPE_CHECKING:
    from builder.collect.inventory import Inventory
    from tests.fakes.shelf import Shelf


def item(inventory: Inventory, key: str):
    """Return the item of that key."""
    return next(item for item in inventory.items if item.key == key)


def test_inventory_of_an_empty_store_is_empty(shelf: Shelf) -> None:
    """There is nothing in a store that was just made."""
    inventory = take_inventory(shelf.store, measure=True)

    assert (dict(inventory.parts), inventory.items, inventory.tagged) == ({}, (), ())


def test_inventory_tells_orphans_from_what_is_needed(shelf: Shelf) -> None:
    """Blobs and snapshots are orphans unless an image, a record or an address leads to them."""
    base, step = shelf.layer("base"), shelf.layer("step")
    shelf.image(base, name="base")
    shelf.record("step", step, below=(base,))
    shelf.download("http://a/b")
    shelf.snapshot(base)
    shelf.snapshot(base, step)
    lost, torn = shelf.blob("lost"), shelf.snapshot(step, base)

    assert {part.name for part in take_inventory(shelf.store, measure=False).orphans()} == {lost, torn}


def test_inventory_pins_what_tagged_images_are_made_of(shelf: Shelf) -> None:
    """Blobs of a tagged image may not go, its snapshots may; those of an image without a name may."""
    base, old = shelf.layer("base"), shelf.layer("old")
    shelf.image(base, name="base")
    unnamed = shelf.image(old)
    snapshot = shelf.snapshot(base)
    inventory = take_inventory(shelf.store, measure=False)
    cache = {part.name for part in inventory.parts.values() if inventory.is_cache(part)}

    assert shelf.blob_of(base) not in cache
    assert cache >= {unnamed, shelf.blob_of(old), snapshot}
    assert [image.description for image in inventory.images()] == ["base:latest", "<none>"]


def test_use_of_a_step_is_one_of_the_steps_below(shelf: Shelf) -> None:
    """A record is given up before those that made what it was given, whatever the clock says."""
    layers = [shelf.layer(name) for name in "abc"]
    for count, layer in enumerate(layers):
        shelf.record("abc"[count], layer, below=tuple(layers[:count]), used=[10, 30, 20][count])
    inventory = take_inventory(shelf.store, measure=False)

    assert [item(inventory, key).used for key in "abc"] == [30 * SECOND, 30 * SECOND, 20 * SECOND]
    assert inventory.items[0].key == "c"


def test_snapshot_is_given_up_before_those_it_lies_on(shelf: Shelf) -> None:
    """The base of a chain serves others, so it counts as used after what lies on it."""
    base, step = shelf.layer("base"), shelf.layer("step")
    shelf.image(base, step, name="app")
    lower, upper = shelf.snapshot(base, used=10), shelf.snapshot(base, step, used=20)
    inventory = take_inventory(shelf.store, measure=False)

    assert [found.key for found in inventory.items if found.kind == "snapshot"] == [upper, lower]


def test_steps_made_of_each_other_are_read(shelf: Shelf) -> None:
    """Linked copies whose layers are each other's source make a circle, which does no harm."""
    first, second = shelf.layer("first", used=1), shelf.layer("second", used=2)
    shelf.record("x", first, below=(second,), used=1)
    shelf.record("y", second, below=(), used=2)
    shelf.record("z", first, below=(), used=3)
    with shelf.store.state.writing() as connection:
        source = f'[["source file system","{first.removeprefix("sha256:")}"]]'
        connection.execute("UPDATE record SET ingredients = ? WHERE key = 'y'", (source,))
        source = source.replace(first.removeprefix("sha256:"), second.removeprefix("sha256:"))
        connection.execute("UPDATE record SET ingredients = ? WHERE key = 'z'", (source,))

    inventory = take_inventory(shelf.store, measure=False)

    assert {item(inventory, key).used for key in "yz"} == {3 * SECOND}


def test_a_cache_hit_counts_as_use(shelf: Shelf) -> None:
    """Asking for a blob notes its use, and so that of the records that answer with it."""
    layer = shelf.layer("step", used=10)
    shelf.record("step", layer, used=10)
    before = item(take_inventory(shelf.store, measure=False), "step").used
    shelf.store.blobs.has(shelf.blob_of(layer))

    assert before == 10 * SECOND
    assert item(take_inventory(shelf.store, measure=False), "step").used > before


def test_image_was_used_when_all_of_it_was(shelf: Shelf) -> None:
    """A layer that others use too says nothing of an image."""
    shared, own = shelf.layer("shared", used=50), shelf.layer("own", used=20)
    image = shelf.image(shared, own, used=10)

    assert item(take_inventory(shelf.store, measure=False), image).used == 20 * SECOND


def test_sizes_are_measured_once(shelf: Shelf) -> None:
    """The size of a snapshot is found out where that is possible, and known to everybody from then on."""
    name = shelf.snapshot(shelf.layer("base"), size=40 * KIB, used=7)
    unknown = take_inventory(shelf.store, measure=False).parts[name]
    measured = take_inventory(shelf.store, measure=True).parts[name]
    known = take_inventory(shelf.store, measure=False).parts[name]

    assert unknown.size is None
    assert 40 * KIB <= (measured.size or 0) <= 52 * KIB
    assert known == measured
    assert known.mark == 7 * SECOND


def test_parts_lie_where_they_are_said_to(shelf: Shelf) -> None:
    """The path of a part is that of what it takes on disk."""
    shelf.snapshot(shelf.layer("base"))
    shelf.mount("key")
    parts = take_inventory(shelf.store, measure=False).parts.values()

    assert {part.kind for part in parts} == {"blob", "snapshot", "mount"}
    assert all(part_path(shelf.store, part).exists() for part in parts)


def test_another_form_of_a_layer_of_an_image_is_an_item(shelf: Shelf) -> None:
    """A layer that was compressed anew for an output can be done without, but is no orphan."""
    layer = shelf.layer("gzip")
    shelf.image(layer, name="app")
    other = shelf.blob("zstd")
    shelf.store.state.put_blob(layer, Descriptor(media_type=OCI_LAYER_ZSTD, digest=other, size=1))
    inventory = take_inventory(shelf.store, measure=False)

    assert item(inventory, other).kind == "form"
    assert inventory.orphans() == ()
