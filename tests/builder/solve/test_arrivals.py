"""Base images that are not in the store: fetched when their files are wanted, read while they come, trusted at the end."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from builder.cache.turns import Turns
from builder.errors import BaseImageError, BuildError, WrongLayerError
from builder.solve.arrivals import Arrivals
from builder.solve.filesystem import FileSystems, snapshot_name
from builder.store import Store
from builder.transfer import keep_image
from registry.client import RegistryClient
from registry.content.image import load_image
from registry.errors import BlobAbandonedError
from registry.hosts import Mirror, RegistryRule, RegistrySettings
from registry.oci.reference import parse_reference
from registry.retries import Pacing
from registry.transfer import CHUNK_SIZE
from tests.fakes.layered_image import make_image, make_layer
from tests.fakes.random_image import make_store
from tests.fakes.registry_server import FakeRegistry, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.solve.filesystem import FileSystem
    from registry.content.image import Image
    from registry.oci.digest import Digest
    from registry.oci.reference import Reference

LONG = json.dumps([random.Random(number).random() for number in range(60_000)])
"""Text that stays longer than a chunk when it is compressed."""

FILES = ({"first": "base", "long": LONG}, {"second": "above"})


class Site:
    """A store, a registry with one image, and what brings the one to the other."""

    def __init__(self, folder: Path, fake: FakeRegistry) -> None:
        self.fake = fake
        self.source = make_store(folder / "source")
        self.store = Store(folder / "root")
        self.store.copy_snapshots()
        self.settings = RegistrySettings()
        self.arrivals = Arrivals(self.store, self._connect, lambda image, name: keep_image(self.store, image, name))
        self.systems = FileSystems(self.store, self.arrivals)
        self.clients: list[RegistryClient] = []

    def publish(self, *layers: dict[str, str], diff_ids: list[Digest] | None = None, tag: str = "1") -> Image:
        """Put an image into the registry."""
        image = make_image(self.source, [make_layer(self.source, files) for files in layers], diff_ids=diff_ids)
        for blob in (image.manifest.config, *image.manifest.layers):
            self.fake.add_blob("base", self.source.read_bytes(blob.digest, limit=1 << 30))
        self.fake.add_manifest("base", tag, image.descriptor.media_type, image.manifest.to_bytes())
        return image

    def name(self, tag: str = "1") -> Reference:
        """Return how the image is called."""
        return parse_reference(f"{self.fake.address}/base:{tag}")

    def expect(self, image: Image, tag: str = "1") -> FileSystem:
        """Fetch the documents of an image alone, as planning does."""
        with self._connect("") as client:
            assert client.pull(self.name(tag), None, self.store.blobs, layers=False) == image
        self.arrivals.add(image, self.name(tag), None)
        self.fake.requests.clear()
        return self.systems.add_image(image, "base:1")

    def text_of(self, layers: FileSystem, name: str) -> str:
        """Read a file of the topmost snapshot of a file system."""
        (top,) = self.store.snapshots.lowers([snapshot_name(layers)])
        return (top / name).read_text()

    def _connect(self, _: str) -> RegistryClient:
        return RegistryClient(
            self.settings, environment={}, pacing=Pacing(pause=lambda cancellation, _: cancellation.check())
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site whose store unpacks by copies, which needs no rights."""
    with FakeRegistry() as fake:
        site = Site(tmp_path, fake)
        with site.store:
            yield site
            site.arrivals.close()
    assert [thread for thread in threading.enumerate() if thread.name in {"arrival", "read-ahead"}] == []


READERS: dict[str, Callable[[FileSystems, FileSystem], object]] = {
    "tree": lambda systems, layers: systems.tree(layers),
    "snapshots": lambda systems, layers: systems.snapshots(layers),
}
each_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())


def test_image_that_nobody_asks_for_is_not_fetched(site: Site) -> None:
    """Its manifest and config make a plan; it has no name in the store, where it is not whole."""
    image = site.publish(*FILES)

    layers = site.expect(image)

    assert [layer.diff_id for layer in layers] == list(image.config.diff_ids)
    assert site.fake.requests == []
    assert site.store.layout.find(site.name()) is None


@each_reader
def test_image_is_fetched_whole_when_its_files_are_wanted(site: Site, read: Callable[..., object]) -> None:
    """Each layer once, and then the image has its name."""
    image = site.publish(*FILES)
    layers = site.expect(image)

    read(site.systems, layers)
    read(site.systems, layers)
    site.systems.fetch(image)

    assert site.fake.count("GET", "/blobs/") == len(FILES)
    assert site.store.layout.find(site.name()) == image.descriptor
    assert load_image(site.store.blobs, image.descriptor) == image


def test_snapshot_of_an_image_that_arrives_has_its_files(site: Site) -> None:
    """Unpacking from the first bytes on gives what unpacking a stored layer gives."""
    layers = site.expect(site.publish(*FILES))

    site.systems.snapshots(layers)

    assert site.text_of(layers[:1], "long") == LONG
    assert site.text_of(layers, "second") == "above"


def test_layer_is_read_before_it_is_there(site: Site) -> None:
    """Bytes are given as they come; the end only when the blob is stored."""
    image = site.publish(*FILES)
    site.expect(image)
    blob, goes_on = image.manifest.layers[0], threading.Event()
    site.fake.faults.append(Fault(path=blob.digest, cut_after=CHUNK_SIZE, wait_for=goes_on))

    stream = site.arrivals.follow(blob, Turns(site.store.root))
    assert stream is not None
    with stream:
        head = stream.read(1000)
        stored_by_then = site.store.blobs.has(blob.digest)
        goes_on.set()
        rest = stream.read()

    assert not stored_by_then
    assert head + rest == site.source.read_bytes(blob.digest, limit=1 << 30)
    assert site.store.blobs.has(blob.digest)


@each_reader
def test_layer_that_arrives_as_other_bytes_is_refused(site: Site, read: Callable[..., object]) -> None:
    """Though it can be unpacked: what was made of it on the way is thrown away, and nothing has its names."""
    image = site.publish(*FILES)
    layers = site.expect(image)
    other = make_layer(site.source, {"first": "hostile", "long": LONG[::-1]})
    bad = site.source.read_bytes(other.descriptor.digest, limit=1 << 30)
    size = image.manifest.layers[0].size
    site.fake.faults.append(Fault(path=image.manifest.layers[0].digest, replace=(bad + bytes(size))[:size], times=9))

    with pytest.raises(BaseImageError, match="mismatch"):
        read(site.systems, layers)

    assert not site.store.blobs.has(image.manifest.layers[0].digest)
    assert site.store.snapshots.names() == ()
    assert not site.store.index.has(image.config.diff_ids[0])
    assert site.store.layout.find(site.name()) is None


@each_reader
def test_mirror_that_sends_other_bytes_is_passed_over(site: Site, read: Callable[..., object]) -> None:
    """What came from it is thrown away, and the layer is read again from its origin."""
    image = site.publish(*FILES)
    blob = image.manifest.layers[0]
    with FakeRegistry() as mirror:
        mirror.blobs, mirror.manifests = site.fake.blobs, site.fake.manifests
        mirror.faults.append(Fault(path=blob.digest, replace=bytes(blob.size), times=9))
        address = site.fake.address
        rule = RegistryRule(prefix=address, location=address, mirrors=(Mirror(location=mirror.address),))
        site.settings = RegistrySettings(rules=(rule,))
        layers = site.expect(image)

        read(site.systems, layers)

        assert mirror.count("GET", blob.digest) == 1
    assert site.fake.count("GET", blob.digest) == 1
    site.systems.snapshots(layers)
    assert site.text_of(layers[:1], "first") == "base"


@each_reader
def test_arriving_layer_with_the_diff_id_of_another_is_refused(site: Site, read: Callable[..., object]) -> None:
    """The error is the one for a layer that is stored, and nothing is kept that could be found by the false diff_id."""
    good = make_layer(site.source, {"file": "good"})
    layers = site.expect(site.publish({"file": "bad"}, diff_ids=[good.diff_id]))

    with pytest.raises(WrongLayerError, match="its config names"):
        read(site.systems, layers)

    assert site.store.snapshots.names() == ()
    assert not site.store.index.has(good.diff_id)
    assert site.store.state.find_blobs(good.diff_id) == ()


@pytest.mark.parametrize("cut_after", [0, 1000])
def test_layer_that_never_comes_fails_the_build_and_its_readers(site: Site, cut_after: int) -> None:
    """Who reads it is told that it will not come, who waits for it why."""
    image = site.publish(*FILES)
    layers = site.expect(image)
    site.fake.faults.append(Fault(path=image.manifest.layers[0].digest, cut_after=cut_after, times=99))
    turns = Turns(site.store.root)

    stream = site.arrivals.follow(image.manifest.layers[0], turns)
    if stream is not None:
        with stream, pytest.raises(BlobAbandonedError):
            stream.read()
    with pytest.raises(BaseImageError, match="connection broke"):
        site.systems.snapshots(layers)


def test_image_is_fetched_once_by_all_who_want_it(site: Site) -> None:
    """Threads of one build, and another build on the same store."""
    image = site.publish(*FILES)
    layers = site.expect(image)
    others = Arrivals(site.store, site._connect, lambda *_: None)
    others.add(image, site.name(), None)
    other_systems = FileSystems(site.store, others)
    other_systems.add_image(image, "base:1")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(systems.tree, layers) for systems in (site.systems, other_systems) * 2]:
            done.result(timeout=60)
    others.close()

    assert site.fake.count("GET", "/blobs/") == len(FILES)


def test_images_that_share_a_layer_are_both_whole_in_the_end(site: Site) -> None:
    """A layer that came with another image is not fetched again."""
    one, two = site.publish(*FILES), site.publish(FILES[0], {"third": "else"}, tag="2")
    site.expect(one)
    site.expect(two, tag="2")

    site.systems.fetch(one)
    site.systems.fetch(two)

    assert site.fake.count("GET", "/blobs/") == 3
    assert site.store.layout.find(site.name()) == one.descriptor
    assert site.store.layout.find(site.name("2")) == two.descriptor


def test_cancelled_build_waits_for_no_image(site: Site) -> None:
    """Who reads and who waits gets an error though the server never goes on, and nothing is begun any more."""
    image = site.publish(*FILES)
    layers = site.expect(image)
    blob, goes_on = image.manifest.layers[0], threading.Event()
    site.fake.faults.append(Fault(path=blob.digest, cut_after=CHUNK_SIZE, wait_for=goes_on))
    stream = site.arrivals.follow(blob, Turns(site.store.root))
    assert stream is not None
    stream.read(1000)

    with stream:
        site.systems.cancel()
        with pytest.raises(BlobAbandonedError):
            stream.read()
    with pytest.raises(BuildError):
        site.systems.snapshots(layers)
    goes_on.set()
