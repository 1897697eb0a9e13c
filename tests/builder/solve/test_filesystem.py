"""File systems: layers count as what images say they are only once they were read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from builder.errors import BaseImageError, StoreError, WrongLayerError
from builder.solve.filesystem import FileSystems, snapshot_name
from builder.store import Store
from registry.content.compression import Compression
from registry.content.layer_sink import recompress
from registry.value import replace
from tests.fakes.layered_image import make_image, make_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.solve.filesystem import FileSystem

READERS: dict[str, Callable[[FileSystems, FileSystem], object]] = {
    "tree": lambda systems, layers: systems.tree(layers),
    "snapshots": lambda systems, layers: systems.snapshots(layers),
}
"""What trusts a diff_id: the index that COPY reads, and the trees that steps run on."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty store that unpacks by copies, which needs no rights."""
    with Store(tmp_path / "root") as opened:
        opened.copy_snapshots()
        yield opened


def text_of(store: Store, layers: FileSystem, name: str) -> str:
    """Read a file of the topmost snapshot of a file system."""
    (top,) = store.snapshots.lowers([snapshot_name(layers)])
    return (top / name).read_text()


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_layer_with_the_diff_id_of_another_is_refused(store: Store, read: Callable[..., object]) -> None:
    """The error names image, layer and both diff_ids, and nothing is kept that could be found by the false one."""
    good, bad = make_layer(store.blobs, {"file": "good"}), make_layer(store.blobs, {"file": "bad"})
    systems = FileSystems(store)
    layers = systems.add_image(make_image(store.blobs, [bad], diff_ids=[good.diff_id]), "hostile:1")

    with pytest.raises(WrongLayerError, match="its config names") as caught:
        read(systems, layers)

    error = caught.value
    assert (error.image, error.layer) == ("hostile:1", bad.descriptor.digest)
    assert (error.expected, error.actual) == (good.diff_id, bad.diff_id)
    assert all(word in error.message for word in ("hostile:1", bad.descriptor.digest, good.diff_id, bad.diff_id))
    assert error.exit_code == 3
    assert store.snapshots.names() == ()
    assert not store.index.has(good.diff_id)
    assert store.state.find_blobs(good.diff_id) == ()
    assert store.blobs.has(bad.descriptor.digest)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_layer_is_refused_though_the_true_one_was_read_before(store: Store, read: Callable[..., object]) -> None:
    """That the snapshot or tree of a diff_id is there proves nothing for another blob."""
    good, bad = make_layer(store.blobs, {"file": "good"}), make_layer(store.blobs, {"file": "bad"})
    honest = FileSystems(store)
    layers = honest.add_image(make_image(store.blobs, [good]), "honest")
    read(honest, layers)
    systems = FileSystems(store)

    with pytest.raises(WrongLayerError, match="hostile"):
        read(systems, systems.add_image(make_image(store.blobs, [bad], diff_ids=[good.diff_id]), "hostile"))

    assert store.state.find_blobs(good.diff_id) == (good.descriptor,)
    read(honest, layers)


def test_true_layer_is_used_though_a_false_one_came_before(store: Store) -> None:
    """After a hostile image was refused, the image whose diff_ids it claimed is what it should be."""
    good, bad = make_layer(store.blobs, {"file": "good"}), make_layer(store.blobs, {"file": "bad"})
    systems = FileSystems(store)
    with pytest.raises(WrongLayerError, match="hostile"):
        systems.snapshots(systems.add_image(make_image(store.blobs, [bad], diff_ids=[good.diff_id]), "hostile"))

    systems = FileSystems(store)
    layers = systems.add_image(make_image(store.blobs, [good]), "honest")
    systems.snapshots(layers)

    assert text_of(store, layers, "file") == "good"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_layers_in_another_order_than_their_diff_ids_are_refused(store: Store, read: Callable[..., object]) -> None:
    """Each diff_id belongs to the layer in its place."""
    one, two = make_layer(store.blobs, {"a": "1"}), make_layer(store.blobs, {"a": "2"})
    systems = FileSystems(store)
    layers = systems.add_image(make_image(store.blobs, [one, two], diff_ids=[two.diff_id, one.diff_id]), "swapped")

    with pytest.raises(WrongLayerError, match="swapped"):
        read(systems, layers)


def test_one_image_may_have_a_layer_twice(store: Store) -> None:
    """The same layer in two places is one layer."""
    one, two = make_layer(store.blobs, {"a": "1"}), make_layer(store.blobs, {"a": "2"})
    systems = FileSystems(store)
    layers = systems.add_image(make_image(store.blobs, [one, two, one]), "twice")

    assert len(systems.snapshots(layers)) == 3
    assert text_of(store, layers, "a") == "1"


def test_two_images_may_have_a_layer_in_different_forms(store: Store) -> None:
    """Each form is read once, and both are known afterwards; a false one among them is found."""
    packed = make_layer(store.blobs, {"a": "1"})
    other = recompress(store.blobs, packed.descriptor, Compression("zstd"))
    bad = make_layer(store.blobs, {"a": "2"})
    systems = FileSystems(store)
    for layer in (packed, other):
        layers = systems.add_image(make_image(store.blobs, [layer]), "honest")
    systems.tree(layers)

    known = {blob.digest for blob in store.state.find_blobs(packed.diff_id)}
    assert known == {packed.descriptor.digest, other.descriptor.digest}

    layers = systems.add_image(make_image(store.blobs, [bad], diff_ids=[packed.diff_id]), "hostile")
    with pytest.raises(WrongLayerError, match="hostile"):
        systems.tree(layers)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_layer_that_was_read_is_believed_by_later_builds(
    store: Store, read: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build on the same image opens no layer."""
    layer = make_layer(store.blobs, {"a": "1"})
    image = make_image(store.blobs, [layer])
    systems = FileSystems(store)
    read(systems, systems.add_image(image, "base"))
    monkeypatch.setattr(store.blobs, "open_verified", None)
    systems = FileSystems(store)

    read(systems, systems.add_image(image, "base"))


def test_claim_is_no_answer_to_what_form_a_layer_has(store: Store) -> None:
    """A record of the cache is never answered with a blob that only an image says is the layer."""
    good, bad = make_layer(store.blobs, {"a": "1"}), make_layer(store.blobs, {"a": "2"})
    systems = FileSystems(store)
    systems.add_image(make_image(store.blobs, [bad], diff_ids=[good.diff_id]), "hostile")

    assert systems.find_blob(good.diff_id) is None
    with pytest.raises(StoreError, match="a layer is missing from the store"):
        systems.get_blob(good.diff_id)


def test_layer_damaged_on_disk_is_removed(store: Store) -> None:
    """Other bytes than the digest says are no fault of the image: they go, to be pulled again, and no tree is kept."""
    layer = make_layer(store.blobs, {"a": "1"})
    path = store.blobs.path(layer.descriptor.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    systems = FileSystems(store)

    with pytest.raises(StoreError, match="a stored layer was damaged and is removed"):
        systems.tree(systems.add_image(make_image(store.blobs, [layer]), "base"))

    assert not path.exists()
    assert not store.index.has(layer.diff_id)


def test_layer_that_is_no_archive_is_the_fault_of_its_image(store: Store) -> None:
    """Bytes that are those of the digest and cannot be decompressed are not removed: pulling them again is no help."""
    layer = make_layer(store.blobs, {"a": "1" * 5000})
    stored = store.blobs.put(store.blobs.path(layer.descriptor.digest).read_bytes()[:-20])
    cut = replace(layer, descriptor=replace(layer.descriptor, digest=stored.digest, size=stored.size))
    systems = FileSystems(store)

    with pytest.raises(BaseImageError, match=re.escape("cannot be unpacked, damaged layer, it ends early")) as caught:
        systems.tree(systems.add_image(make_image(store.blobs, [cut]), "base"))

    assert "`base`" in caught.value.message
    assert store.blobs.has(stored.digest)


def test_blob_of_another_size_than_an_image_says_is_not_removed(store: Store) -> None:
    """A manifest that lies about a size cannot make the store throw a good layer away."""
    layer = make_layer(store.blobs, {"a": "1"})
    wrong = replace(layer, descriptor=replace(layer.descriptor, size=layer.descriptor.size + 1))
    systems = FileSystems(store)

    with pytest.raises(BaseImageError, match="size mismatch"):
        systems.tree(systems.add_image(make_image(store.blobs, [wrong]), "base"))

    assert store.blobs.has(layer.descriptor.digest)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("is_claimed", [False, True], ids=["known", "claimed"])
def test_damage_that_makes_a_layer_no_tar_is_told_as_damage(
    store: Store, read: Callable[..., object], *, is_claimed: bool
) -> None:
    """The tar's reader meets it before the digest at the end does; the blob is removed all the same."""
    layer = make_layer(store.blobs, {"file": "text"}, kind="uncompressed")
    systems = FileSystems(store)
    layers = systems.add_image(make_image(store.blobs, [layer]), "base:1")
    if not is_claimed:
        systems.prove(layer.diff_id)
    path = store.blobs.path(layer.descriptor.digest)
    content = bytearray(path.read_bytes())
    content[0] ^= 1  # of the name in the first header, whose checksum is then wrong
    path.write_bytes(content)

    with pytest.raises(StoreError, match="was damaged and is removed, the first header has a wrong checksum"):
        read(systems, layers)

    assert not store.blobs.has(layer.descriptor.digest)
