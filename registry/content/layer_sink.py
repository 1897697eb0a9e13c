"""Layers on their way into the store: one pass from tar to blob.

A layer is cut into blocks that are compressed independently, on threads if there is more than one, and joined in
order; so its bytes depend on content, kind, level and the version of the compressor, never on the number of threads or
on how the tar was handed over. gzip blocks end at a byte boundary (sync flush) and see the last 32 KiB of the block
before; zstd blocks are frames of their own, which every decoder joins.

Source: RFC 1952 (gzip), RFC 1951 (deflate), RFC 8878 (zstd); image-spec, layer.md and media-types.md.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, Self, assert_never

from registry.content.compression import DEFAULT_LEVELS, Compression
from registry.content.layer_stream import open_layer
from registry.oci.descriptor import Descriptor
from registry.oci.digest import Digest
from registry.oci.media_types import CompressionKind, oci_layer_media_type
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from registry.content.store import BlobStore, BlobWriter

    _Compress = Callable[[bytearray, bytes], bytes | bytearray]

BLOCK_SIZES: Final[dict[CompressionKind, int]] = {"gzip": 1 << 20, "zstd": 1 << 21, "uncompressed": 1 << 20}
"""Bytes of tar in one block; a part of the format that is written, as other blocks give other bytes."""

_READ_SIZE: Final = 128 * 1024
_WINDOW: Final = 32 * 1024
# No extra fields, no time, no name, unknown operating system: nothing of the machine.
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_IGZIP_MEMORY: Final = 2
"""igzip's small buffer, in which it ends a block with codes of its own sooner; a part of the format as `BLOCK_SIZES` is.

It is 1.3 % smaller than with the buffer of its default, 8, and takes as long.
"""

_ZLIB_MEMORY: Final = 8
_GZIP_END: Final = b"\x03\x00"  # an empty final block with fixed codes


@frozen
class LayerBlob:
    """A stored layer: *descriptor* of the blob, *diff_id* and length of the tar in it."""

    descriptor: Descriptor
    diff_id: Digest
    uncompressed_size: int


class LayerSink:
    """Takes a layer's tar and stores it: diff_id, compression, digest and blob in one pass.

    Leaving the `with` without `finish` aborts the blob. A layer of less than one block is compressed where `finish` is
    called and starts no thread. Memory stays below 32 MiB at default levels. Used from one thread.

    Args:
        writer: takes the compressed bytes; committed by `finish`, aborted by `abort`.
        compression: kind and level.
        threads: how many compress; 0 means the caller's.
    """

    def __init__(self, writer: BlobWriter, compression: Compression, *, threads: int = 2) -> None:
        self._writer = writer
        self._kind = compression.kind
        self._codec = _make_codec(compression)
        self._block_size = BLOCK_SIZES[compression.kind]
        self._thread_count = threads
        self._threads: _BlockThreads | None = None
        self._buffer = bytearray()
        self._window = b""
        self._size = 0
        self._diff = hashlib.sha256()
        self._closed = False
        writer.write(self._codec.start)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append *data*, which may be changed afterwards.

        Raises:
            ContentError: the blob cannot be written; it may stem from earlier data.
        """
        buffer = self._buffer
        if len(buffer) + len(data) < self._block_size:
            buffer += data
            return
        rest = memoryview(data).cast("B")
        while len(self._buffer) + len(rest) >= self._block_size:
            room = self._block_size - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]
            self._cut()
        self._buffer += rest

    def finish(self) -> LayerBlob:
        """Compress what is left, commit the blob and describe it.

        Raises:
            ContentError: the blob cannot be written or committed; nothing is stored.
        """
        try:
            # Even nothing makes one block: an empty file is no gzip and no zstd.
            if self._buffer or not self._size:
                self._cut(last=True)
            if self._threads is not None:
                self._threads.finish()
            self._writer.write(self._codec.end(self._size))
            info = self._writer.commit()
        except BaseException:
            self.abort()
            raise
        self._closed = True
        descriptor = Descriptor(media_type=oci_layer_media_type(self._kind), digest=info.digest, size=info.size)
        diff_id = info.digest if self._kind == "uncompressed" else Digest("sha256:" + self._diff.hexdigest())
        return LayerBlob(descriptor=descriptor, diff_id=diff_id, uncompressed_size=self._size)

    def abort(self) -> None:
        """Forget the layer and end its threads. Idempotent, and without effect after `finish`."""
        if not self._closed:
            self._closed = True
            if self._threads is not None:
                self._threads.stop()
            self._writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()

    def _cut(self, *, last: bool = False) -> None:
        block, window = self._buffer, self._window
        self._buffer = bytearray()
        self._window = bytes(block[-_WINDOW:]) if self._codec.windowed else b""
        self._size += len(block)
        if self._threads is None and self._thread_count and not last:
            self._threads = _BlockThreads(self._codec.compressor, self._deliver, self._thread_count)
        if self._threads is not None:
            self._threads.submit(block, window)
        else:
            self._deliver(block, self._codec.compressor()(block, window))

    def _deliver(self, block: bytearray, compressed: bytes | bytearray) -> None:
        """Hash and store one block; called in order and never twice at a time."""
        if self._kind != "uncompressed":
            self._diff.update(block)
        self._codec.see(block)
        self._writer.write(compressed)


class Deflater:
    """Compresses bytes fast, to a zlib stream."""

    def __init__(self) -> None:
        from isal import isal_zlib  # noqa: PLC0415  (slow)

        self._stream = isal_zlib.compressobj(1)

    def compress(self, data: bytes) -> bytes:
        """Take the next bytes, and give what is ready."""
        return bytes(self._stream.compress(data))

    def finish(self) -> bytes:
        """Give the end."""
        return bytes(self._stream.flush())


def recompress(store: BlobStore, descriptor: Descriptor, compression: Compression, *, threads: int = 2) -> LayerBlob:
    """Store a layer once more, with another compression.

    Raises:
        ContentError: the layer is missing or damaged, or the new blob cannot be written.
    """
    source = store.open_verified(descriptor.digest, size=descriptor.size)
    with (
        open_layer(source, media_type=descriptor.media_type) as layer,
        LayerSink(store.writer(), compression, threads=threads) as sink,
    ):
        while data := layer.read(_READ_SIZE):
            sink.write(data)
        return sink.finish()


class _Codec(Protocol):
    """One kind of compression: its blocks, and what stands before and after them."""

    start: bytes
    windowed: bool

    def compressor(self) -> _Compress:
        """Return a function of block and window, to be used by one thread."""
        ...

    def see(self, block: bytearray) -> None:
        """Take note of a block, in order."""
        ...

    def end(self, size: int) -> bytes:
        """Return what follows the last block, after *size* bytes of tar."""
        ...


class _GzipCodec:
    start = _GZIP_HEADER
    windowed = True

    def __init__(self, level: int) -> None:
        import zlib  # noqa: PLC0415  (needed by few levels)

        from isal import isal_zlib  # noqa: PLC0415  (slow)

        self._level = level
        self._library = isal_zlib if 1 <= level <= 3 else zlib
        self._memory = _IGZIP_MEMORY if self._library is isal_zlib else _ZLIB_MEMORY
        self._checksum = isal_zlib.crc32
        self._crc = 0

    def compressor(self) -> _Compress:
        return self._compress

    def see(self, block: bytearray) -> None:
        self._crc = self._checksum(block, self._crc)

    def end(self, size: int) -> bytes:
        return _GZIP_END + self._crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")

    def _compress(self, block: bytearray, window: bytes) -> bytes:
        library = self._library
        if window:
            compressor = library.compressobj(
                self._level, library.DEFLATED, -15, self._memory, library.Z_DEFAULT_STRATEGY, window
            )
        else:
            compressor = library.compressobj(
                self._level, library.DEFLATED, -15, self._memory, library.Z_DEFAULT_STRATEGY
            )
        return b"".join((compressor.compress(block), compressor.flush(library.Z_SYNC_FLUSH)))


class _ZstdCodec:
    start = b""
    windowed = False

    def __init__(self, level: int) -> None:
        self._level = level

    def compressor(self) -> _Compress:
        import zstandard  # noqa: PLC0415  (slow)

        context = zstandard.ZstdCompressor(level=self._level)
        return lambda block, _window: context.compress(block)

    def see(self, block: bytearray) -> None:
        """Frames check nothing here, as digests do."""

    def end(self, size: int) -> bytes:  # noqa: ARG002  (one protocol for all kinds)
        return b""


class _PlainCodec:
    start = b""
    windowed = False

    def compressor(self) -> _Compress:
        return lambda block, _window: block

    def see(self, block: bytearray) -> None:
        """Nothing follows a plain tar."""

    def end(self, size: int) -> bytes:  # noqa: ARG002  (one protocol for all kinds)
        return b""


def _make_codec(compression: Compression) -> _Codec:
    level = DEFAULT_LEVELS[compression.kind] if compression.level is None else compression.level
    match compression.kind:
        case "gzip":
            return _GzipCodec(level)
        case "zstd":
            return _ZstdCodec(level)
        case "uncompressed":
            return _PlainCodec()
        case _:
            assert_never(compression.kind)


class _BlockThreads:
    """Threads that compress blocks out of order and deliver them in order.

    Each thread takes the next block, compresses it, waits for its turn and delivers. So hashing and writing overlap
    with the compression of later blocks, and the caller only ever copies. `submit` waits while as many blocks are
    queued as there are threads.

    Args:
        compressor: makes the function of one thread.
        deliver: takes block and compressed bytes, by one thread at a time.
        count: number of threads.
    """

    def __init__(
        self,
        compressor: Callable[[], _Compress],
        deliver: Callable[[bytearray, bytes | bytearray], None],
        count: int,
    ) -> None:
        self._compressor = compressor
        self._deliver = deliver
        self._limit = count
        self._queue: deque[tuple[int, bytearray, bytes]] = deque()
        self._changed = threading.Condition()
        self._submitted = 0
        self._delivered = 0
        self._closed = False
        self._failure: Exception | None = None
        # Daemons, so that a sink somebody forgot cannot keep the interpreter from ending.
        self._threads = [threading.Thread(target=self._run, name="layer", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, block: bytearray, window: bytes) -> None:
        """Queue a block; raise what a thread failed with, if one did."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) < self._limit or self._failure)
            if self._failure is not None:
                raise self._failure
            self._queue.append((self._submitted, block, window))
            self._submitted += 1
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until all blocks are delivered; raise what a thread failed with, if one did."""
        self._join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Drop what is queued and wait until the threads have ended."""
        with self._changed:
            self._queue.clear()
            self._failure = self._failure or RuntimeError("the layer was aborted")
        self._join()

    def _join(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            compress = self._compressor()
            while (job := self._take()) is not None:
                number, block, window = job
                compressed = compress(block, window)
                if not self._await_turn(number):
                    return
                self._deliver(block, compressed)
                with self._changed:
                    self._delivered += 1
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001  (whatever it is, the caller's thread raises it)
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _take(self) -> tuple[int, bytearray, bytes] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed or self._failure)
            if self._failure is not None or not self._queue:
                return None
            job = self._queue.popleft()
            self._changed.notify_all()
            return job

    def _await_turn(self, number: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._delivered == number or self._failure)
            return self._failure is None
