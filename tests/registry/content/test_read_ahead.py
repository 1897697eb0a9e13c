"""Streams that are read ahead by a thread: the same bytes, the same error, and no thread left."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest

from registry.content.read_ahead import BLOCK_SIZE, BLOCKS_AHEAD, ReadAhead
from registry.content.verify import VerifyingReader
from registry.errors import DigestMismatchError
from registry.oci.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = b"".join(number.to_bytes(4, "big") for number in range(3 * BLOCKS_AHEAD * BLOCK_SIZE // 4 + 5))


class Counted(io.RawIOBase):
    """A stream that tells how many blocks were asked of it, by which threads, and after how many it fails."""

    def __init__(self, data: bytes, *, fails_after: int | None = None) -> None:
        super().__init__()
        self._data = io.BytesIO(data)
        self._fails_after = fails_after
        self.calls = 0
        self.threads: set[int] = set()
        self.asked = threading.Condition()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return a block, or fail."""
        with self.asked:
            self.calls += 1
            self.threads.add(threading.get_ident())
            self.asked.notify_all()
        if self._fails_after is not None and self.calls > self._fails_after:
            raise OSError("the disk is gone")
        return self._data.read(size)


def ahead(stream: io.RawIOBase) -> ReadAhead:
    """Return the reader ahead of *stream*."""
    return ReadAhead(cast("BinaryIO", stream))


def threads_of_readers() -> list[threading.Thread]:
    """Return the threads that read ahead."""
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize(
    "take",
    [
        pytest.param(lambda reader: reader.read(), id="at-once"),
        pytest.param(lambda reader: b"".join(iter(lambda: reader.read(100_001), b"")), id="in-pieces"),
        pytest.param(lambda reader: b"".join(iter(lambda: reader.read(3 * BLOCK_SIZE), b"")), id="in-large-pieces"),
        pytest.param(lambda reader: io.BufferedReader(reader, 777).read(), id="into-a-buffer"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, BLOCK_SIZE, BLOCK_SIZE + 1, len(DATA)])
def test_reader_ahead_gives_the_bytes_of_its_stream(take: Callable[[ReadAhead], bytes], size: int) -> None:
    """However it is read, and at its end again and again."""
    with ahead(Counted(DATA[:size])) as reader:
        assert take(reader) == DATA[:size]
        assert reader.closed or reader.read(5) == b""


def test_reader_ahead_reads_on_another_thread_and_not_further_than_it_may() -> None:
    """The blocks that wait, the one that was taken first and the one that waits for room are all that was read."""
    stream = Counted(DATA)
    with ahead(stream) as reader:
        reader.read(BLOCK_SIZE)
        reader.read(1)
        with stream.asked:
            assert stream.asked.wait_for(lambda: stream.calls >= BLOCKS_AHEAD + 3, timeout=30)

    assert stream.calls == BLOCKS_AHEAD + 3
    assert threading.get_ident() in stream.threads
    assert len(stream.threads) == 2


def test_reader_ahead_of_a_short_stream_starts_no_thread() -> None:
    """Most layers of a build are short."""
    stream = Counted(DATA[: BLOCK_SIZE - 1])

    with ahead(stream) as reader:
        reader.read()

    assert stream.threads == {threading.get_ident()}


def test_reader_ahead_gives_what_came_before_an_error_then_the_error() -> None:
    """An error of the stream is raised where its bytes would have been, and stays."""
    with ahead(Counted(DATA, fails_after=3)) as reader:
        assert b"".join(reader.read(BLOCK_SIZE) for _ in range(3)) == DATA[: 3 * BLOCK_SIZE]
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                reader.read(1)


def test_reader_ahead_of_other_bytes_fails_at_the_end() -> None:
    """The verdict of a verifying stream reaches who reads to the end."""
    stream = VerifyingReader(io.BytesIO(DATA), digest_of(b"other bytes"), subject="layer x")

    with ahead(stream) as reader, pytest.raises(DigestMismatchError, match="digest mismatch in layer x"):
        reader.read()


@pytest.mark.parametrize("blocks", [1, 2, 3 * BLOCKS_AHEAD])
def test_reader_ahead_that_is_closed_leaves_no_thread_and_no_open_stream(blocks: int) -> None:
    """Wherever it was; a process that forks afterwards has one thread."""
    stream = Counted(DATA)

    with ahead(stream) as reader:
        for _ in range(blocks):
            reader.read(BLOCK_SIZE)

    assert threads_of_readers() == []
    assert stream.closed
