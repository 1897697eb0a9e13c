"""Layers that are the same but for times after the epoch."""

import pytest

from builder.image.assemble import Layer
from builder.solve.filesystem import FileSystems
from builder.solve.layer import LayerMaker
from builder.solve.same_layer import find_same_layer
from builder.store import Store
from registry.content.compression import Compression
from runtime.layers.entry import Entry, EntryKind

EPOCH = 1000


class Factory:
    """Makes layers of one file in a store, each in a build of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def make(self, time: int, *, name: bytes = b"f", epoch: int = EPOCH) -> tuple[Layer, Layer | None]:
        """Make a layer, and find one that is the same."""
        entry = Entry(path=name, kind=EntryKind.FILE, mode=0o644, uid=0, gid=0, mtime=time)
        maker = LayerMaker(self.store, Compression(), threads=1, now=lambda: f"made at {time}")
        made = maker.make(lambda archive, note: (archive.add(entry), note(entry)), epoch=epoch)
        assert made.clamped is not None
        return made, find_same_layer(made, made.clamped, epoch, self.store, FileSystems(self.store))


@pytest.fixture
def factory(tmp_path):
    """Give one with an empty store."""
    with Store(tmp_path) as store:
        yield Factory(store)


def test_layer_with_another_time_after_the_epoch_is_the_same(factory):
    """The first one counts, for the second and the third."""
    first, nothing = factory.make(2000)
    second, same = factory.make(3000)
    _, again = factory.make(4000)

    assert nothing is None
    assert first.diff_id != second.diff_id
    assert same.diff_id == again.diff_id == first.diff_id
    assert same.created == "made at 3000"


@pytest.mark.parametrize(("time", "name"), [(999, b"f"), (2000, b"g")], ids=["time before the epoch", "other name"])
def test_layer_with_another_content_is_another(factory, time, name):
    """Times that the epoch leaves alone are content."""
    factory.make(2000)

    assert factory.make(time, name=name)[1] is None


def test_layer_that_is_made_once_more_to_the_byte_is_itself(factory):
    """There is nothing to put in its place."""
    factory.make(2000)

    assert factory.make(2000)[1] is None


def test_other_epoch_asks_anew(factory):
    """A time between two epochs counts for the later one: a layer of the time 1500 is not that of the time 1000."""
    factory.make(1500, epoch=1000)

    assert factory.make(1000, epoch=2000)[1] is None


def test_layer_that_is_gone_is_not_found(factory):
    """The new one takes its place for the next time."""
    first, _ = factory.make(2000)
    factory.store.blobs.delete(FileSystems(factory.store).get_blob(first.diff_id).digest)
    second, gone = factory.make(3000)

    assert gone is None
    assert factory.make(4000)[1].diff_id == second.diff_id


def test_layer_knows_nothing_of_it_unless_it_is_asked(factory):
    """Without an epoch all times count."""
    maker = LayerMaker(factory.store, Compression(), threads=1, now=lambda: "now")

    assert maker.make(lambda *_: None).clamped is None
