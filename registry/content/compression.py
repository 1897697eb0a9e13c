"""Layers on their way into and out of the store: one pass from tar to blob, and streams back.

Writing. A layer is cut into blocks that are compressed independently, on threads if there is more than one, and
joined in order; so its bytes depend on content, kind, level and the version of the compressor, never on the number of
threads or on how the tar was handed over. gzip blocks end at a byte boundary (sync flush) and see the last 32 KiB of
the block before; zstd blocks are frames of their own, which every decoder joins.

Reading. The first bytes tell the compression, as media types are often wrong. Decompression is streaming with memory
bounded by the format's window, whatever the stream claims; reading a stream to its end reads its source to the end,
so a verifying source gets to its verdict.

Source: RFC 1952 (gzip), RFC 1951 (deflate), RFC 8878 (zstd); image-spec, layer.md and media-types.md.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self, assert_never, cast

from registry.errors import CompressionInvalidError, LayerDamagedError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import Digest
from registry.oci.media_types import CompressionKind, layer_compression, oci_layer_media_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from registry.content.store import BlobStore, BlobWriter

    _Compress = Callable[[bytearray, bytes], bytes | bytearray]

DEFAULT_LEVELS: Final[dict[CompressionKind, int]] = {"gzip": 2, "zstd": 3, "uncompressed": 0}
"""Levels where none is asked for. igzip's 2 is as fast as its 1 and 3 % smaller; 3 is 1 % smaller again and slower."""

MAX_LEVELS: Final[dict[CompressionKind, int]] = {"gzip": 9, "zstd": 22, "uncompressed": 0}
"""Highest levels. gzip: 0 stores, 1 to 3 are igzip's, 4 to 9 are zlib's, smaller and ten times slower."""

BLOCK_SIZES: Final[dict[CompressionKind, int]] = {"gzip": 1 << 20, "zstd": 1 << 21, "uncompressed": 1 << 20}
"""Bytes of tar in one block; a part of the format that is written, as other blocks give other bytes."""

_WINDOW: Final = 32 * 1024
# No extra fields, no time, no name, unknown operating system: nothing of the machine.
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_END: Final = b"\x03\x00"  # an empty final block with fixed codes
_READ_SIZE: Final = 128 * 1024
_MAX_PIECE: Final = 1 << 20
_ZSTD_MAX_WINDOW: Final = 128 * 1024 * 1024  # what `zstd -d` accepts unasked
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_MAX_BLOCK: Final = 128 * 1024
_XZ_MAGIC: Final = b"\xfd7zXZ\x00"
_XZ_MEMORY: Final = 256 * 1024 * 1024  # xz -9 takes 65 MiB


@dataclass(frozen=True, slots=True)
class Compression:
    """How the layers of an image are stored. *level* None means `DEFAULT_LEVELS`."""

    kind: CompressionKind = "gzip"
    level: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in MAX_LEVELS:
            raise CompressionInvalidError(self.kind, hint=f"use one of {', '.join(MAX_LEVELS)}")
        highest = MAX_LEVELS[self.kind]
        if self.level is not None and not 0 <= self.level <= highest:
            hint = f"levels of {self.kind} go from 0 to {highest}" if highest else f"{self.kind} layers have no level"
            raise CompressionInvalidError(f"{self.kind} level {self.level}", hint=hint)

    @classmethod
    def parse(cls, kind: str, level: str | None = None) -> Compression:
        """Read the values of `compression=` and `compression-level=`.

        Raises:
            CompressionInvalidError: an unknown kind, or a level that is no number or not one of the kind's.
        """
        if level is not None and not (level.isascii() and level.isdigit() and len(level) < 3):
            raise CompressionInvalidError(f"{kind} level {level}", hint="a level is a number like 6")
        # The constructor refuses kinds that are not among the literals.
        return cls(cast("CompressionKind", kind), None if level is None else int(level))


@dataclass(frozen=True, slots=True, kw_only=True)
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


def open_layer(stream: BinaryIO, *, media_type: str | None) -> BinaryIO:
    """Open the tar in a stored layer.

    The bytes decide between gzip (any number of members), zstd (any number of frames) and a plain tar; *media_type*
    only serves to refuse what is announced as compressed and is neither that nor a tar.

    Args:
        stream: the blob; only `read(n)` is used. Closed with the result, and on error.
        media_type: what the manifest says, None if nothing.

    Returns:
        A buffered reader. It raises LayerDamagedError for a stream that ends early, is followed by other bytes than
        zeros, or cannot be decompressed.
    """
    with _closing_on_error(stream):
        head, source = _peek(stream)
        announced = layer_compression(media_type) if media_type else None
        raw = _open_compressed(head, source, subject="layer")
        if raw is None and announced in {"gzip", "zstd"} and not _is_tar(head):
            raise LayerDamagedError(f"it is announced as {announced} and is not", subject="layer")
        return _buffer(raw or source)


def open_archive(stream: BinaryIO) -> BinaryIO:
    """Open the content of a file that may be compressed with gzip, zstd, bzip2 or xz; anything else is passed through.

    Args:
        stream: the file; only `read(n)` is used. Closed with the result, and on error.

    Returns:
        A buffered reader. It raises LayerDamagedError as that of `open_layer`.
    """
    with _closing_on_error(stream):
        head, source = _peek(stream)
        raw = _open_compressed(head, source, subject="archive")
        if head.startswith(b"BZh") and head[4:10] in {b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"}:
            raw = _MemberReader(source, _make_bzip2_decoder, magic=b"BZh", subject="archive")
        elif head.startswith(_XZ_MAGIC):
            raw = _MemberReader(source, _make_xz_decoder, magic=_XZ_MAGIC, subject="archive")
        return _buffer(raw or source)


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
            compressor = library.compressobj(self._level, library.DEFLATED, -15, 8, library.Z_DEFAULT_STRATEGY, window)
        else:
            compressor = library.compressobj(self._level, library.DEFLATED, -15, 8, library.Z_DEFAULT_STRATEGY)
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


class _Source(io.RawIOBase):
    """A stream whose first bytes were already read."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_READ_SIZE), b""))
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)

    def unread(self, data: bytes) -> None:
        """Put *data* back, to be read next."""
        self._head = data + self._head

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed wants any buffer
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _Decoder(Protocol):
    """The interface that bz2, lzma and isal share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Decompressed(io.RawIOBase):
    """A reader over `_fill`, which gives the next bytes and `b""` only at the end."""

    def __init__(self, source: _Source, *, subject: str) -> None:
        super().__init__()
        self._source = source
        self._subject = subject
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed wants any buffer
        if not self._ready:
            self._ready = memoryview(self._fill(len(buffer)))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _fill(self, limit: int) -> bytes:
        raise NotImplementedError

    def _damaged(self, reason: str) -> LayerDamagedError:
        return LayerDamagedError(reason, subject=self._subject)


class _MemberReader(_Decompressed):
    """Members one after the other, with zeros between or behind them: gzip, bzip2, xz."""

    def __init__(self, source: _Source, make_decoder: Callable[[], _Decoder], *, magic: bytes, subject: str) -> None:
        super().__init__(source, subject=subject)
        self._make_decoder = make_decoder
        self._decoder: _Decoder | None = make_decoder()
        self._magic = magic

    def _fill(self, limit: int) -> bytes:
        while self._decoder is not None:
            decoder = self._decoder
            if decoder.eof:
                self._next_member(decoder.unused_data)
                continue
            chunk = b""
            if decoder.needs_input:
                chunk = self._source.read(_READ_SIZE // 2)
                if not chunk:
                    raise self._damaged("it ends early")
            data = self._decode(decoder, chunk, min(limit, _MAX_PIECE))
            if data:
                return data
        return b""

    def _decode(self, decoder: _Decoder, chunk: bytes, limit: int) -> bytes:
        try:
            return decoder.decompress(chunk, limit)
        # isal raises an error of its own, bz2 OSError, lzma LZMAError; all three may come from no other call here.
        except Exception as error:
            raise self._damaged(f"it cannot be decompressed ({error})") from error

    def _next_member(self, rest: bytes) -> None:
        rest = rest.lstrip(b"\0")
        while not rest:
            chunk = self._source.read(_READ_SIZE // 2)
            if not chunk:
                self._decoder = None
                return
            rest = chunk.lstrip(b"\0")
        while len(rest) < len(self._magic) and (chunk := self._source.read(_READ_SIZE // 2)):
            rest += chunk
        if not rest.startswith(self._magic):
            raise self._damaged("other bytes follow its end")
        self._source.unread(rest)
        self._decoder = self._make_decoder()


class _ZstdReader(_Decompressed):
    """Frames one after the other, fed to the decoder block by block.

    A block gives at most 128 KiB, whatever it says, and a frame that ends early is seen here; zstandard's own reader
    takes that for the end.

    Source: RFC 8878, section 3.1.
    """

    def __init__(self, source: _Source, *, subject: str) -> None:
        super().__init__(source, subject=subject)
        import zstandard  # noqa: PLC0415  (slow)

        self._library = zstandard
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
        self._input = io.BufferedReader(source, _READ_SIZE)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._has_checksum = False

    def _fill(self, limit: int) -> bytes:  # noqa: ARG002  (a block is what there is at once)
        while True:
            if self._frame is None:
                if not self._open_frame():
                    return b""
                continue
            header = self._take(3)
            word = int.from_bytes(header, "little")
            last, kind, size = word & 1, word >> 1 & 3, word >> 3
            if kind == 3 or size > _ZSTD_MAX_BLOCK:
                raise self._damaged("it has a block of no known kind")
            block = header + self._take(1 if kind == 1 else size)
            if last and self._has_checksum:
                block += self._take(4)
            data = self._decode(block)
            if last:
                self._frame = None
            if data:
                return data

    def _open_frame(self) -> bool:
        magic = self._input.read(4)
        if not magic:
            return False
        if len(magic) < 4:
            raise self._damaged("it ends early")
        if _is_skippable(magic):
            size = int.from_bytes(self._take(4), "little")
            while size:
                size -= len(self._take(min(size, _READ_SIZE)))
            return True
        if magic != _ZSTD_MAGIC:
            raise self._damaged("other bytes follow its end")
        header = self._take(1)
        flags = header[0]
        single_segment = flags & 0x20
        size = (0, 1, 2, 4)[flags & 3] + ((1 if single_segment else 0), 2, 4, 8)[flags >> 6] + (not single_segment)
        self._has_checksum = bool(flags & 4)
        self._frame = self._context.decompressobj()
        self._decode(magic + header + self._take(size))
        return True

    def _take(self, size: int) -> bytes:
        data = self._input.read(size)
        if len(data) < size:
            raise self._damaged("it ends early")
        return data

    def _decode(self, data: bytes) -> bytes:
        assert self._frame is not None  # noqa: S101  (both callers have just opened one)
        try:
            return self._frame.decompress(data)
        except self._library.ZstdError as error:
            raise self._damaged(f"it cannot be decompressed ({error})") from error


@contextmanager
def _closing_on_error(stream: BinaryIO) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stream.close()
        raise


def _peek(stream: BinaryIO) -> tuple[bytes, _Source]:
    """Return the first 512 bytes, or fewer if there are no more, and the stream as if they had not been read."""
    head = b""
    while len(head) < 512 and (chunk := stream.read(512 - len(head))):
        head += chunk
    return head, _Source(head, stream)


def _open_compressed(head: bytes, source: _Source, *, subject: str) -> _Decompressed | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return _MemberReader(source, _make_gzip_decoder, magic=b"\x1f\x8b", subject=subject)
    if head.startswith(_ZSTD_MAGIC) or _is_skippable(head[:4]):
        return _ZstdReader(source, subject=subject)
    return None


def _buffer(raw: io.RawIOBase) -> BinaryIO:
    return io.BufferedReader(raw, _READ_SIZE)


def _is_skippable(magic: bytes) -> bool:
    return magic[1:4] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5


def _is_tar(head: bytes) -> bool:
    """Tell whether *head* may be the first block of a tar: POSIX or GNU magic, or the zeros at the end of an empty one."""
    return head[257:262] == b"ustar" or not head.strip(b"\0")


def _make_gzip_decoder() -> _Decoder:
    from isal import igzip_lib  # noqa: PLC0415  (slow)

    decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decoder


def _make_bzip2_decoder() -> _Decoder:
    import bz2  # noqa: PLC0415  (rare)

    return bz2.BZ2Decompressor()


def _make_xz_decoder() -> _Decoder:
    import lzma  # noqa: PLC0415  (rare)

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
