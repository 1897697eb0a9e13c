"""Files that are digested while they are copied: all that comes of it is what comes of digesting them before."""

from __future__ import annotations

import gc
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from builder.cache.listing import unpack_listing
from builder.cache.state import Record
from builder.context import contents, digest, root, walk
from builder.context.fingerprint import RACY_NS
from builder.context.walk import Found, Opener
from builder.errors import ContextError, CopyError
from builder.events import VertexCompleted, VertexStatus
from tests.builder.test_pipeline import Workshop
from tests.fakes.context import make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.context.root import SourceRoot

EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
LARGE = (3 << 20) + 7
TREE = {
    "a": b"A",
    "b": b"",
    "large": bytes(range(256)) * (LARGE // 256),
    "d/x": b"x",
    "d/x-y": b"x-y",
    "d/x.d/z": b"z",
    "d/sub/y": b"yy",
    "d/sub/run": b"#!/bin/sh\n",
    "d/link": "no/where",
    "d/empty": None,
    "e/sub/y": b"other",
    "e/only": b"only",
    "ignored/file": b"nobody sees it",
    ".dockerignore": b"ignored\n",
}


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """Give a workshop with a context of everything a directory may hold."""
    made = Workshop(tmp_path)
    make_tree(made.context, TREE)
    (made.context / "d/sub/run").chmod(0o755)
    (made.context / "d/hard").hardlink_to(made.context / "d/x")
    (made.context / "d/sub/hard").hardlink_to(made.context / "d/x")
    os.mkfifo(made.context / "d/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(made.context / "d/socket"))
    yield made
    made.store.close()


@pytest.fixture(params=["at once", "in pieces", "walked anew"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files go through the build together, a few at a time, or forgotten in between."""
    if request.param != "at once":
        for module in (contents, digest, walk):
            monkeypatch.setattr(module, "CHUNK", 3)
    if request.param == "walked anew":
        monkeypatch.setattr(root, "KEPT", 2)


class Reading:
    """Counts how often files are opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[bytes] = []
        genuine = Opener._open

        def open_and_count(opener: Opener, root: SourceRoot, path: bytes) -> int:
            self.opened.append(path)
            return genuine(opener, root, path)

        monkeypatch.setattr(Opener, "_open", open_and_count)


class Told(list):
    """Events; sets *waiting* when one says that a step waits for another build."""

    def __init__(self, waiting: threading.Event) -> None:
        super().__init__()
        self._waiting = waiting

    def append(self, event: object) -> None:
        """Take an event."""
        super().append(event)
        if isinstance(event, VertexStatus) and event.id.startswith("waiting for the same step"):
            self._waiting.set()


def known_of(workshop: Workshop) -> dict[str, object]:
    """Give all that the state database says of a build, but for times."""
    state = workshop.store.state
    records = {record.key: record for record, _ in state.records() if record.key != "unlike"}
    with state.reading() as connection:
        tables = {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall())
            for table, columns in (("file", "*"), ("sight", "sight, digest"), ("tree", "folder, names"))
        }
    listings = {key: tuple(unpack_listing(state.find_listing(key))) for key in records}
    return {
        "listings": listings,
        "records": {key: (one.op, one.diff_id, one.name, one.ingredients) for key, one in records.items()},
        **tables,
    }


def beside(workshop: Workshop, folder: Path) -> Workshop:
    """Give a second workshop with the same context, which knows the operations of the first."""
    other = Workshop(folder)
    other.context = workshop.context
    for record, _ in workshop.store.state.records():
        stranger = Record(
            key="unlike", op=record.op, diff_id=record.diff_id, created="", name=record.name, ingredients=()
        )
        other.store.state.put_record(stranger)
    return other


@pytest.mark.usefixtures("age", "memory")
@pytest.mark.parametrize(
    "instruction",
    [
        "COPY . /x",
        "COPY d /x",
        "COPY d e /x",
        "COPY a b large /x/",
        "COPY a /a",
        "COPY large /deep/er/large",
        "COPY d/x* /x/",
        "COPY nothing* /x/",
        "COPY --exclude=sub d /x",
        "COPY --parents d/sub/y e/only /x",
        "COPY --parents ./d/*/y /x",
        "COPY --link d /x",
        "COPY --chown=5:6 --chmod=700 d /x",
        "COPY a d/x d/hard /x/",
        "COPY a <<in /x/\ntext\nin",
        "COPY --from=other . /x",
        "ADD d /x",
        "ADD d e /x/",
    ],
)
def test_copy_that_digests_on_the_way_gives_what_digesting_before_gives(
    workshop: Workshop, tmp_path: Path, instruction: str
) -> None:
    """Blob, diff_id, key, ingredients, listing, fingerprints, sights and the tree are the same to the byte."""
    wishes = {"build_args": EPOCH, "build_contexts": {"other": workshop.context / "e"}}
    text = f"FROM scratch\n{instruction}\n"
    image = workshop.build(text, **wishes)
    (tmp_path / "second").mkdir()
    other = beside(workshop, tmp_path / "second")
    with other.store:
        other_image = other.build(text, **wishes)
        known = known_of(other)

    assert other_image.manifest.layers == image.manifest.layers
    assert other_image.config.diff_ids == image.config.diff_ids
    assert known_of(workshop) == known


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("instruction", ["COPY . /x", "COPY d e /x"])
def test_copy_without_cache_gives_the_same_layer_and_key(workshop: Workshop, instruction: str) -> None:
    """`--no-cache` needs no key before either, and its record takes the place of the other."""
    text = f"FROM scratch\n{instruction}\n"
    image = workshop.build(text, build_args=EPOCH)
    before = known_of(workshop)
    again = workshop.build(text, build_args=EPOCH, no_cache=True)

    assert workshop.cached() == []
    assert again.manifest.layers == image.manifest.layers
    assert known_of(workshop) == before


def test_file_that_is_copied_for_the_first_time_is_read_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes go into layer and digest; of a hard link only the first name is opened."""
    later = digest.time.time_ns
    monkeypatch.setattr(digest.time, "time_ns", lambda: later() + 10 * RACY_NS)
    reading = Reading(monkeypatch)
    workshop.build("FROM scratch\nCOPY d /x\n")

    assert sorted(reading.opened) == [b"d/hard", b"d/sub/run", b"d/sub/y", b"d/x-y", b"d/x.d/z"]


def test_copy_of_the_same_files_is_cached_after_they_were_digested_on_the_way(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept of the files serves the next build, which reads none."""
    later = digest.time.time_ns
    monkeypatch.setattr(digest.time, "time_ns", lambda: later() + 10 * RACY_NS)
    text = "FROM scratch\nCOPY d /x\n"
    workshop.build(text)
    reading = Reading(monkeypatch)
    workshop.build(text)

    assert workshop.cached() == ["[2/2] COPY d /x"]
    assert reading.opened == []


def test_archive_that_add_unpacks_is_digested_before(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ADD may unpack is read by who unpacks it."""
    later = digest.time.time_ns
    monkeypatch.setattr(digest.time, "time_ns", lambda: later() + 10 * RACY_NS)
    reading = Reading(monkeypatch)
    workshop.build("FROM scratch\nADD large /x/\n")

    assert reading.opened == [b"large"] * 3


@pytest.mark.parametrize("is_known", [True, False], ids=["digested before", "digested once"])
def test_copy_that_fails_is_explained(workshop: Workshop, tmp_path: Path, is_known: bool) -> None:
    """A step that does not fit is told with what the cache said to it, whenever its files are digested."""
    text = "FROM scratch\nCOPY a /x\n"
    workshop.build(text)
    if is_known:
        make_tree(workshop.context, {"f/d/x": b"x"})
        workshop.build("FROM scratch\nCOPY f/d /x\n")
    with pytest.raises(CopyError):
        workshop.build(text + "COPY d /x\n", explain_cache=True)
    answers = [event.answer for event in workshop.events if isinstance(event, VertexCompleted) and event.error]

    assert [answer.reason for answer in answers] == ["new"]


def test_missing_source_fails_before_anything_is_made(workshop: Workshop) -> None:
    """What is not there is found when the cache is asked, also where nothing is looked up."""
    with pytest.raises(ContextError, match='"/missing": not found'):
        workshop.build("FROM scratch\nCOPY missing /x\n")

    assert workshop.events == []


def test_builds_that_copy_the_same_at_the_same_time_copy_once(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits for the first, says so, and then finds its record."""
    second = Workshop(tmp_path / "second")
    second.store.close()
    second.store, second.context = workshop.store, workshop.context
    text = "FROM scratch\nCOPY a /x\n"
    begun, waiting = threading.Event(), threading.Event()
    genuine = Opener._open

    def open_late(opener: Opener, root: SourceRoot, path: bytes) -> int:
        begun.set()
        assert waiting.wait(30)
        return genuine(opener, root, path)

    monkeypatch.setattr(Opener, "_open", open_late)
    images = []
    first = threading.Thread(target=lambda: images.append(workshop.build(text, build_args=EPOCH)))
    first.start()
    assert begun.wait(30)
    second.events = Told(waiting)
    image = second.build(text, build_args=EPOCH)
    first.join()

    assert images[0].manifest.layers == image.manifest.layers
    assert len(workshop.store.state.records()) == 1


@pytest.mark.parametrize("is_known", [True, False], ids=["digested before", "digested once"])
def test_few_files_of_many_are_in_memory_at_a_time(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """However many are copied, those that were read are forgotten, also if they are walked a second time."""
    later = digest.time.time_ns
    monkeypatch.setattr(digest.time, "time_ns", lambda: later() + 10 * RACY_NS)
    for module in (contents, digest, walk):
        monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(root, "KEPT", 8)
    make_tree(workshop.context, {f"many/{number // 5}/{number}": b"%d" % number for number in range(200)})
    text = "FROM scratch\nCOPY many /x\n"
    if is_known:
        (workshop.context / "many/new").touch()
        workshop.build(text)
        (workshop.context / "many/new").unlink()
    gc.collect()
    most = before = _count_found()
    genuine = Opener._open

    def open_and_count(opener: Opener, root: SourceRoot, path: bytes) -> int:
        nonlocal most
        most = max(most, _count_found())
        return genuine(opener, root, path)

    monkeypatch.setattr(Opener, "_open", open_and_count)
    workshop.build(text)

    assert 0 < most - before < 80


def _count_found() -> int:
    return sum(isinstance(each, Found) for each in gc.get_objects())
