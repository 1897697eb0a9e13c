"""Blobs on disk: the contract of every store, crashes, full disks, and several processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.content.local import LocalBlobStore
from registry.content.store import BlobInfo, BlobStore
from registry.errors import (
    BlobDamagedError,
    BlobMissingError,
    BlobTooLargeError,
    ContentError,
    DigestInvalidError,
    DigestMismatchError,
    SizeMismatchError,
    StoreFullError,
)
from registry.oci.digest import Digest, digest_of, parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
MISSING = digest_of(b"not there")


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    """A store in a new folder."""
    return LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")


def leftovers(store: LocalBlobStore) -> list[str]:
    """Return the names of unfinished blobs."""
    folder = store._temporary
    return os.listdir(folder) if folder.exists() else []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.binary(max_size=200))
def test_store_gives_back_what_was_put(store: BlobStore, data: bytes) -> None:
    """Every way of reading gives the bytes, as often as they are put."""
    info = store.put(data)

    assert info == store.put(data) == BlobInfo(digest_of(data), len(data))
    assert store.has(info.digest)
    assert store.size(info.digest) == len(data)
    assert store.read_bytes(info.digest, limit=200) == data
    with store.open(info.digest) as plain, store.open_verified(info.digest, size=len(data)) as verified:
        assert plain.read() == verified.read() == data
    assert info in set(store.walk())


def test_store_writer_takes_pieces_of_any_kind(store: BlobStore) -> None:
    """Bytes, bytearrays and views are appended."""
    with store.writer() as writer:
        for piece in (b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], b""):
            writer.write(piece)
        info = writer.commit(digest_of(b"abcdef"), 6)

    assert store.read_bytes(info.digest, limit=6) == b"abcdef"


@pytest.mark.parametrize("operation", ["size", "open", "open_verified", "read_bytes"])
def test_store_without_the_blob_says_so(store: LocalBlobStore, operation: str) -> None:
    """Nobody gets an OSError."""
    options = {"limit": 1} if operation == "read_bytes" else {}

    with pytest.raises(BlobMissingError, match="blob is not in the store") as caught:
        getattr(store, operation)(MISSING, **options)
    assert caught.value.digest == MISSING
    assert not store.has(MISSING)


@pytest.mark.parametrize("operation", ["has", "size", "open", "delete", "path"])
def test_store_does_not_join_a_text_that_is_no_digest(store: LocalBlobStore, operation: str) -> None:
    """A digest from outside cannot lead out of the store."""
    with pytest.raises(DigestInvalidError, match="invalid digest"):
        getattr(store, operation)(Digest("sha256:../../../etc/passwd"))


def test_store_refuses_bytes_under_another_digest(store: LocalBlobStore) -> None:
    """Nothing is stored under either name."""
    with store.writer() as writer:
        writer.write(b"x")
        with pytest.raises(DigestMismatchError, match=f"expected {MISSING}"):
            writer.commit(MISSING)

    assert list(store.walk()) == []
    assert leftovers(store) == []


def test_store_refuses_bytes_of_another_length(store: LocalBlobStore) -> None:
    """Neither a truncated nor an overlong download is stored."""
    with store.writer() as writer:
        writer.write(b"x")
        with pytest.raises(SizeMismatchError, match="expected 2 bytes, got `1`"):
            writer.commit(digest_of(b"x"), 2)

    assert list(store.walk()) == []
    assert leftovers(store) == []


def test_store_keeps_a_blob_named_by_sha512(store: LocalBlobStore) -> None:
    """What is announced by sha512 is checked and found by it."""
    digest = parse_digest("sha512:" + hashlib.sha512(b"x").hexdigest())
    with store.writer() as writer:
        writer.write(b"x")
        info = writer.commit(digest)

    assert info.digest == digest
    assert store.read_bytes(digest, limit=1) == b"x"


def test_store_refuses_bytes_under_another_sha512(store: LocalBlobStore) -> None:
    """The second read of such a blob is a real check."""
    with store.writer() as writer:
        writer.write(b"y")
        with pytest.raises(DigestMismatchError, match="digest mismatch"):
            writer.commit(parse_digest("sha512:" + hashlib.sha512(b"x").hexdigest()))

    assert list(store.walk()) == []


def test_store_writer_that_is_left_without_commit_stores_nothing(store: LocalBlobStore) -> None:
    """An error in the middle leaves nothing."""
    with pytest.raises(ZeroDivisionError, match="division"), store.writer() as writer:
        writer.write(b"x" * (1 // 0))

    assert list(store.walk()) == []
    assert leftovers(store) == []


def test_store_finds_a_damaged_blob(store: LocalBlobStore) -> None:
    """A bit that changed on disk is noticed by the verified readers."""
    info = store.put(b"good")
    store.path(info.digest).write_bytes(b"evil")

    with pytest.raises(DigestMismatchError, match=f"digest mismatch in blob {info.digest}"):
        store.read_bytes(info.digest, limit=4)


def test_store_replaces_a_blob_of_another_length(store: LocalBlobStore) -> None:
    """Putting again heals a truncated blob."""
    info = store.put(b"good")
    store.path(info.digest).write_bytes(b"go")

    store.put(b"good")

    assert store.read_bytes(info.digest, limit=4) == b"good"


def test_store_marks_a_blob_that_is_put_again_as_fresh(store: LocalBlobStore) -> None:
    """A collector that goes by age does not take what was just asked for."""
    path = store.path(store.put(b"x").digest)
    os.utime(path, (1, 1))

    store.put(b"x")

    assert path.stat().st_mtime > 1


def test_store_does_not_read_more_than_the_limit(store: BlobStore) -> None:
    """A manifest of a gigabyte is refused by its size."""
    info = store.put(b"abc")

    with pytest.raises(BlobTooLargeError, match="3 bytes is longer than the 2"):
        store.read_bytes(info.digest, limit=2)


def test_store_deletes_once_and_again(store: LocalBlobStore) -> None:
    """Deleting is idempotent."""
    info = store.put(b"x")

    store.delete(info.digest)
    store.delete(info.digest)

    assert not store.has(info.digest)


def test_store_walk_passes_foreign_files_by(store: LocalBlobStore) -> None:
    """Only names that are digests are blobs."""
    info = store.put(b"x")
    (store.path(info.digest).parent / "README").write_text("hello")

    assert list(store.walk()) == [info]


def test_store_writer_refuses_use_after_commit(store: LocalBlobStore) -> None:
    """A mistake of ours is loud."""
    writer = store.writer()
    writer.commit()

    with pytest.raises(ValueError, match="closed blob"):
        writer.write(b"x")
    with pytest.raises(ValueError, match="closed blob"):
        writer.commit()


@pytest.mark.parametrize("call", ["write", "fdatasync", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=["space", "quota"])
def test_store_that_is_full_says_so_and_leaves_nothing(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """The error names the folder and what to do; the temporary file is gone."""

    def fail(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreFullError, match="the store cannot take more bytes") as caught:
            store.put(b"x")

    assert caught.value.exit_code == 5
    assert str(store._images) in caught.value.message
    assert "pybuild prune" in str(caught.value.hint)
    assert list(store.walk()) == []
    assert leftovers(store) == []


def test_store_on_a_really_full_device_says_so(tmp_path: Path) -> None:
    """The kernel's own error, from /dev/full, is understood."""
    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")
    writer = store.writer()
    full = os.open("/dev/full", os.O_RDWR)
    assert writer._fd is not None
    os.dup2(full, writer._fd)
    os.close(full)

    with pytest.raises(StoreFullError, match="No space left on device"):
        writer.write(b"x")
    assert leftovers(store) == []


def test_store_in_a_place_that_is_no_folder_says_so(tmp_path: Path) -> None:
    """A file where the folder should be is no traceback."""
    (tmp_path / "tmp").write_text("")
    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")

    with pytest.raises(ContentError, match="blob cannot be written, Not a directory"):
        store.writer()


WRITER = """
import sys
from pathlib import Path
from registry.content.local import LocalBlobStore
root = Path(sys.argv[1])
store = LocalBlobStore(root / "images", temporary=root / "tmp")
"""


def run(script: str, *args: object) -> subprocess.Popen[bytes]:
    """Start a process that has a store."""
    command = [sys.executable, "-c", WRITER + script, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={"PYTHONDONTWRITEBYTECODE": "1"})


def test_store_writer_that_is_killed_leaves_no_blob(tmp_path: Path) -> None:
    """A crash in the middle leaves a temporary file and nothing under a digest."""
    script = "w = store.writer(); w.write(b'x' * 100000); print('written', flush=True); sys.stdin.read()"
    with run(script, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)

    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")
    assert list(store.walk()) == []
    assert len(leftovers(store)) == 1


def test_store_is_written_by_many_processes_at_once(tmp_path: Path) -> None:
    """Writers of the same blobs do not disturb each other, and every reader sees whole blobs."""
    script = "[store.put(b'%d' % n * 5000) for _ in range(3) for n in range(20)]"
    processes = [run(script, tmp_path) for _ in range(4)]
    for process in processes:
        assert process.communicate(timeout=60)[0] == b""
        assert process.returncode == 0

    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")
    expected = {BlobInfo(digest_of(b"%d" % n * 5000), len(b"%d" % n) * 5000) for n in range(20)}
    assert set(store.walk()) == expected
    assert all(digest_of(store.read_bytes(info.digest, limit=info.size)) == info.digest for info in expected)
    assert leftovers(store) == []


@pytest.mark.parametrize("damage", [b"xbc", b"ab", b"abcd"], ids=["other bytes", "shorter", "longer"])
def test_damaged_blob_is_removed_where_that_is_asked_for(tmp_path: Path, damage: bytes) -> None:
    """A blob that is not what its name says goes when it was read to its end, so that a good one can come."""
    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp", removes_damaged=True)
    digest = store.put(b"abc").digest
    store.path(digest).write_bytes(damage)

    with (
        pytest.raises(BlobDamagedError, match="a stored blob was damaged and is removed"),
        store.open_verified(digest, size=len(damage)) as blob,
    ):
        blob.read()

    assert not store.has(digest)
    store.put(b"abc")
    assert store.read_bytes(digest, limit=10) == b"abc"


def test_damaged_blob_of_others_stays(tmp_path: Path) -> None:
    """Nothing is removed from layouts that are only read."""
    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")
    digest = store.put(b"abc").digest
    store.path(digest).write_bytes(b"xbc")

    with pytest.raises(DigestMismatchError, match="digest mismatch"):
        store.read_bytes(digest, limit=10)

    assert store.has(digest)


def test_good_blob_stays_whatever_size_it_is_said_to_have(tmp_path: Path) -> None:
    """A size comes from documents of others, which must not be able to remove blobs."""
    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp", removes_damaged=True)
    digest = store.put(b"abc").digest

    for size in (2, 4):
        with pytest.raises(SizeMismatchError, match="size mismatch"), store.open_verified(digest, size=size) as blob:
            blob.read()

    assert store.has(digest)


def test_store_holds_what_is_asked_for_and_made(tmp_path: Path) -> None:
    """A blob is held before it is said to be there, and before it is there; asking for it notes its use."""
    held: list[str] = []

    @contextlib.contextmanager
    def hold(name: str) -> Iterator[None]:
        held.append(name)
        yield

    store = LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp", hold=hold)
    digest = store.put(b"blob").digest
    os.utime(store.path(digest), (1, 1))

    assert store.has(digest)
    assert not store.has(MISSING)
    assert held == [digest, digest, digest, MISSING]
    assert store.path(digest).stat().st_mtime > 1


def test_store_that_nobody_collects_leaves_time_stamps_alone(store: LocalBlobStore) -> None:
    """A layout of another tool is only read."""
    digest = store.put(b"blob").digest
    os.utime(store.path(digest), (1, 1))

    assert store.has(digest)
    assert store.path(digest).stat().st_mtime == 1
    assert [(found, status.st_size) for found, status in store.scan()] == [(digest, 4)]
