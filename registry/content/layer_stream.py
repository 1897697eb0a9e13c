"""Layers and archives on their way out: streams that decompress.

The first bytes tell the compression, as media types are often wrong. Decompression is streaming with memory bounded by
the format's window, whatever the stream claims; reading a stream to its end reads its source to the end, so a
verifying source gets to its verdict.

Source: RFC 1952 (gzip), RFC 8878 (zstd); image-spec, layer.md and media-types.md.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from registry.content.raw_reader import BlockReader
from registry.content.replayed_stream import ReplayedStream, peek
from registry.errors import LayerDamagedError
from registry.oci.media_types import layer_compression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_READ_SIZE: Final = 128 * 1024
_MAX_PIECE: Final = 1 << 20
_ZSTD_MAX_WINDOW: Final = 128 * 1024 * 1024  # what `zstd -d` accepts unasked
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_MAX_BLOCK: Final = 128 * 1024
_XZ_MAGIC: Final = b"\xfd7zXZ\x00"
_XZ_MEMORY: Final = 256 * 1024 * 1024  # xz -9 takes 65 MiB


def open_layer(stream: BinaryIO, *, media_type: str | None) -> BinaryIO:
    """Open the tar in a stored layer.

    The bytes decide between gzip (any number of members), zstd (any number of frames) and a plain tar; *media_type*
    only serves to refuse what is announced as compressed and is neither that nor a tar.

    Args:
        stream: the blob; only `read(n)` is used. Closed with the result, and on error.
        media_type: what the manifest says, None if nothing.

    Returns:
        A reader without a buffer: `read(n)` gives what is there, b"" only at the end. It raises LayerDamagedError for a
        stream that ends early, is followed by other bytes than zeros, or cannot be decompressed.
    """
    with _closing_on_error(stream):
        head, source = peek(stream)
        announced = layer_compression(media_type) if media_type else None
        raw = _open_compressed(head, source, subject="layer")
        if raw is None and announced in {"gzip", "zstd"} and not _is_tar(head):
            raise LayerDamagedError(f"it is announced as {announced} and is not", subject="layer")
        # A RawIOBase has every method of BinaryIO that a reader may call; typeshed does not relate the two.
        return cast("BinaryIO", raw or source)


def open_archive(stream: BinaryIO) -> BinaryIO:
    """Open the content of a file that may be compressed with gzip, zstd, bzip2 or xz; anything else is passed through.

    Args:
        stream: the file; only `read(n)` is used. Closed with the result, and on error.

    Returns:
        A buffered reader. It raises LayerDamagedError as that of `open_layer`.
    """
    with _closing_on_error(stream):
        head, source = peek(stream)
        raw = _open_compressed(head, source, subject="archive")
        if head.startswith(b"BZh") and head[4:10] in {b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"}:
            raw = _MemberReader(source, _make_bzip2_decoder, magic=b"BZh", subject="archive")
        elif head.startswith(_XZ_MAGIC):
            raw = _MemberReader(source, _make_xz_decoder, magic=_XZ_MAGIC, subject="archive")
        return io.BufferedReader(raw or source, _READ_SIZE)


class _Decoder(Protocol):
    """The interface that bz2, lzma and isal share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Decompressed(BlockReader):
    """What a decoder makes of a stream, block by block."""

    def __init__(self, source: ReplayedStream, *, subject: str) -> None:
        super().__init__()
        self._source = source
        self._subject = subject

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _damaged(self, reason: str) -> LayerDamagedError:
        return LayerDamagedError(reason, subject=self._subject)


class _MemberReader(_Decompressed):
    """Members one after the other, with zeros between or behind them: gzip, bzip2, xz."""

    def __init__(
        self, source: ReplayedStream, make_decoder: Callable[[], _Decoder], *, magic: bytes, subject: str
    ) -> None:
        super().__init__(source, subject=subject)
        self._make_decoder = make_decoder
        self._decoder: _Decoder | None = make_decoder()
        self._magic = magic

    def _next(self, size: int) -> bytes:
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
            data = self._decode(decoder, chunk, min(size, _MAX_PIECE))
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

    def __init__(self, source: ReplayedStream, *, subject: str) -> None:
        super().__init__(source, subject=subject)
        import zstandard  # noqa: PLC0415  (slow)

        self._library = zstandard
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
        self._input = io.BufferedReader(source, _READ_SIZE)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._has_checksum = False

    def _next(self, size: int) -> bytes:  # noqa: ARG002  (a block is what there is at once)
        while True:
            if self._frame is None:
                if not self._open_frame():
                    return b""
                continue
            header = self._take(3)
            word = int.from_bytes(header, "little")
            last, kind, length = word & 1, word >> 1 & 3, word >> 3
            if kind == 3 or length > _ZSTD_MAX_BLOCK:
                raise self._damaged("it has a block of no known kind")
            block = header + self._take(1 if kind == 1 else length)
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


def _open_compressed(head: bytes, source: ReplayedStream, *, subject: str) -> _Decompressed | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return _MemberReader(source, _make_gzip_decoder, magic=b"\x1f\x8b", subject=subject)
    if head.startswith(_ZSTD_MAGIC) or _is_skippable(head[:4]):
        return _ZstdReader(source, subject=subject)
    return None


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
