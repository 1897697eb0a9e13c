"""Blobs that are read while they are written: the end is met by who reads a stored blob, and by nobody else."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from registry.errors import BlobAbandonedError, DigestMismatchError
from registry.oci.digest import digest_of
from tests.fakes.random_image import make_store

if TYPE_CHECKING:
    from pathlib import Path

    from registry.content.local import LocalBlobStore
    from registry.content.local_writer import LocalBlobWriter


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    """Give an empty store."""
    return make_store(tmp_path)


def test_reader_gets_what_is_written_and_waits_for_more(store: LocalBlobStore) -> None:
    """Several readers read the whole blob, each at its own pace; who reads on waits for the writer."""
    with ThreadPoolExecutor(2) as pool, store.writer() as writer:
        growing = writer.follow()
        readers = [growing.open(), growing.open()]
        assert readers[0] is not None
        assert readers[1] is not None
        writer.write(b"one ")
        assert readers[0].read(100) == b"one "
        whole = [pool.submit(io.BufferedReader(reader, 3).read) for reader in readers]  # type: ignore[arg-type]  # raw
        writer.write(b"two")
        stored = writer.commit()

        assert [each.result(timeout=60) for each in whole] == [b"two", b"one two"]

    assert stored.digest == digest_of(b"one two")


@pytest.mark.parametrize("already_there", [False, True])
def test_reader_meets_the_end_when_the_blob_is_stored(store: LocalBlobStore, *, already_there: bool) -> None:
    """Not when its bytes are all there: they are not verified by then."""
    if already_there:
        store.put(b"data")
    with store.writer() as writer:
        reader = writer.follow().open()
        assert reader is not None
        writer.write(b"data")
        assert reader.read(4) == b"data"
        seen: list[bool] = []
        ending = threading.Thread(target=lambda: seen.append(reader.read(1) == b"" and store.has(digest_of(b"data"))))
        ending.start()
        was_waiting = not seen
        writer.commit(digest_of(b"data"))
        ending.join(60)

    assert was_waiting
    assert seen == [True]


def commit_as_another(writer: LocalBlobWriter) -> None:
    """Commit under a digest that the bytes do not have."""
    with pytest.raises(DigestMismatchError):
        writer.commit(digest_of(b"else"))


@pytest.mark.parametrize("give_up", [lambda writer: writer.abort(), commit_as_another], ids=["aborted", "mismatch"])
def test_reader_of_a_blob_that_is_given_up_fails(store: LocalBlobStore, give_up) -> None:  # type: ignore[no-untyped-def]  # a table
    """Also where bytes are left that it has not read; nobody can open it any more."""
    with store.writer() as writer:
        growing = writer.follow()
        reader = growing.open()
        assert reader is not None
        writer.write(b"data")
        give_up(writer)

    with pytest.raises(BlobAbandonedError, match="will not come"):
        reader.read(1)
    assert growing.open() is None


def test_growing_blob_leaves_no_descriptor(store: LocalBlobStore) -> None:
    """Whether it was stored or given up, once writer and readers are closed."""
    before = len(os.listdir("/proc/self/fd"))
    for end in ("commit", "abort"):
        with store.writer() as writer:
            reader = writer.follow().open()
            assert reader is not None
            writer.write(end.encode())
            getattr(writer, end)()
            reader.close()

    assert len(os.listdir("/proc/self/fd")) == before
