"""Layers in and out: the same bytes in every way of writing, every damage found in reading."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import BinaryIO, cast

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from registry.content.compression import MAX_LEVELS, Compression
from registry.content.layer_sink import BLOCK_SIZES, LayerBlob, LayerSink, recompress
from registry.content.layer_stream import open_archive, open_layer
from registry.content.local import LocalBlobStore
from registry.content.local_writer import LocalBlobWriter
from registry.errors import (
    BlobMissingError,
    CompressionInvalidError,
    DigestMismatchError,
    LayerDamagedError,
    SizeMismatchError,
    StoreFullError,
)
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, CompressionKind

ROOT = Path(__file__).parents[3]
KINDS: tuple[CompressionKind, ...] = ("gzip", "zstd", "uncompressed")
MEDIA_TYPES = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD, "uncompressed": OCI_LAYER}
TAR = b"name".ljust(257, b"\0") + b"ustar\x0000" + b"\0" * 1272


def make_text(size: int) -> bytes:
    """Return text of random words, the same at every call."""
    source = random.Random(7)
    words = [source.randbytes(source.randrange(2, 9)).hex().encode() for _ in range(2000)]
    return b" ".join(source.choices(words, k=size // 8))[:size]


LARGE = make_text(5 * (1 << 20) + 12345)


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    """A store in a new folder."""
    return LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")


def write(
    store: LocalBlobStore, data: bytes, compression: Compression, *, threads: int = 2, piece: int = 65536
) -> LayerBlob:
    """Write *data* in pieces through a sink."""
    with LayerSink(store.writer(), compression, threads=threads) as sink:
        for start in range(0, len(data), piece):
            sink.write(memoryview(data)[start : start + piece])
        return sink.finish()


def stored(store: LocalBlobStore, layer: LayerBlob) -> bytes:
    """Return the bytes of a layer's blob."""
    return store.read_bytes(layer.descriptor.digest, limit=1 << 30)


def decompress(kind: str, data: bytes) -> bytes:
    """Let another implementation read what we wrote."""
    if kind == "gzip":
        return gzip.decompress(data)
    if kind == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2048, 1 << 20, 1 << 21, len(LARGE)])
def test_layer_is_read_by_other_implementations(store: LocalBlobStore, kind: CompressionKind, size: int) -> None:
    """Descriptor, diff_id and length are right, and the bytes are of the format they claim."""
    data = LARGE[:size]

    layer = write(store, data, Compression(kind))

    blob = stored(store, layer)
    assert decompress(kind, blob) == data
    assert layer == LayerBlob(
        descriptor=Descriptor(media_type=MEDIA_TYPES[kind], digest=digest_of(blob), size=len(blob)),
        diff_id=digest_of(data),
        uncompressed_size=size,
    )


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("level", [0, 1, 2, 3, 6, 9])
def test_layer_of_any_level_is_read_by_other_implementations(
    store: LocalBlobStore, kind: CompressionKind, level: int
) -> None:
    """All levels give the format, over a border of blocks too."""
    data = LARGE[: BLOCK_SIZES[kind] + 5000]

    assert decompress(kind, stored(store, write(store, data, Compression(kind, level)))) == data


def test_layer_of_higher_level_is_smaller(store: LocalBlobStore) -> None:
    """Zlib's levels are there for who wants small layers."""
    sizes = [write(store, LARGE[:300_000], Compression("gzip", level)).descriptor.size for level in (0, 1, 2, 9)]

    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_layer_has_the_same_bytes_for_any_threads_and_pieces(store: LocalBlobStore, kind: CompressionKind) -> None:
    """The blob depends on content and compression only."""
    first = write(store, LARGE, Compression(kind), threads=0)

    for threads, piece in [(1, 65536), (2, 4099), (2, len(LARGE)), (3, 1 << 20), (3, 1000003)]:
        assert write(store, LARGE, Compression(kind), threads=threads, piece=piece) == first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(pieces=st.lists(st.binary(max_size=300), max_size=8), kind=st.sampled_from(KINDS))
def test_layer_of_small_pieces_is_that_of_the_whole(
    store: LocalBlobStore, pieces: list[bytes], kind: CompressionKind
) -> None:
    """However the tar is cut, the layer is the same, and reading gives it back."""
    pieces = [b"tar", *pieces]  # what begins like a compressed layer is taken for one, and no tar does
    with LayerSink(store.writer(), Compression(kind)) as sink:
        for piece in pieces:
            sink.write(piece)
        layer = sink.finish()

    assert layer == write(store, b"".join(pieces), Compression(kind))
    with open_layer(store.open_verified(layer.descriptor.digest), media_type=None) as tar:
        assert tar.read() == b"".join(pieces)


def test_layer_gzip_header_holds_nothing_of_the_machine(store: LocalBlobStore) -> None:
    """No time, no name, unknown operating system."""
    assert stored(store, write(store, b"x", Compression()))[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def test_layer_sink_takes_a_buffer_that_changes_afterwards(store: LocalBlobStore) -> None:
    """A caller may reuse its buffer at once."""
    buffer = bytearray(b"a" * 700_000)
    with LayerSink(store.writer(), Compression()) as sink:
        for letter in b"abcd":
            buffer[:] = bytes([letter]) * len(buffer)
            sink.write(memoryview(buffer))
        layer = sink.finish()

    assert layer.diff_id == digest_of(b"".join(bytes([letter]) * len(buffer) for letter in b"abcd"))


def test_layer_below_a_block_starts_no_thread(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers cost no more than their bytes."""
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: pytest.fail("a thread was started"))

    write(store, LARGE[: (1 << 20) - 1], Compression())


def fail_after(sink: LayerSink, data: bytes) -> None:
    """Write *data* and fail."""
    sink.write(data)
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize("threads", [0, 2])
def test_layer_sink_that_is_left_stores_nothing_and_ends_its_threads(store: LocalBlobStore, threads: int) -> None:
    """An error of the caller leaves no blob, no temporary file, no thread."""
    before = threading.active_count()
    with (
        pytest.raises(ZeroDivisionError, match="division"),
        LayerSink(store.writer(), Compression(), threads=threads) as sink,
    ):
        fail_after(sink, LARGE)

    assert threading.active_count() <= before
    assert list(store.walk()) == []
    assert list(store._temporary.iterdir()) == []


class FullWriter(LocalBlobWriter):
    """A writer whose disk is full after 500 kB."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        if self._size + len(data) > 500_000:
            self.abort()
            raise StoreFullError("/images", "No space left on device")
        return super().write(data)


def finish_with(sink: LayerSink, data: bytes) -> LayerBlob:
    """Write *data* and finish; the error may come from either."""
    sink.write(data)
    return sink.finish()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_layer_sink_raises_what_its_threads_failed_with(store: LocalBlobStore, threads: int) -> None:
    """A full disk met by a thread is the caller's error, and nothing is left."""
    before = threading.active_count()
    writer = FullWriter(store._images, store._temporary)
    with (
        pytest.raises(StoreFullError, match="No space left"),
        LayerSink(writer, Compression("uncompressed"), threads=threads) as sink,
    ):
        finish_with(sink, LARGE * 3)

    assert threading.active_count() <= before
    assert list(store.walk()) == []
    assert list(store._temporary.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_layer_sink_needs_less_than_32_mib(tmp_path: Path, kind: str) -> None:
    """However long the layer, memory is bounded: the peak of a process that writes 200 MiB."""
    script = f"""
import resource, sys
from pathlib import Path
import zstandard, isal.isal_zlib
from registry.content.compression import Compression
from registry.content.layer_sink import LayerSink
from registry.content.local import LocalBlobStore
store = LocalBlobStore(Path({str(tmp_path)!r}) / "images", temporary=Path({str(tmp_path)!r}) / "tmp")
piece = bytes(range(256)) * 256
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with LayerSink(store.writer(), Compression({kind!r})) as sink:
    for _ in range(3200):
        sink.write(piece)
    sink.finish()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)

    assert int(done.stdout) < 32 * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_layer_recompressed_has_the_same_diff_id(store: LocalBlobStore, kind: CompressionKind) -> None:
    """Only the form changes."""
    layer = write(store, LARGE[:50_000], Compression("gzip", 1))

    again = recompress(store, layer.descriptor, Compression(kind))

    assert again.diff_id == layer.diff_id
    assert again.descriptor.media_type == MEDIA_TYPES[kind]
    assert again == write(store, LARGE[:50_000], Compression(kind))


def test_layer_that_is_missing_cannot_be_recompressed(store: LocalBlobStore) -> None:
    """The error is that of the store."""
    missing = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"x"), size=1)

    with pytest.raises(BlobMissingError, match="not in the store"):
        recompress(store, missing, Compression())


@pytest.mark.parametrize(
    ("kind", "level", "hint"),
    [
        pytest.param("estargz", None, "use one of gzip, zstd, uncompressed", id="kind"),
        pytest.param("gzip", "10", "levels of gzip go from 0 to 9", id="high"),
        pytest.param("zstd", "23", "levels of zstd go from 0 to 22", id="high zstd"),
        pytest.param("gzip", "-1", "a level is a number", id="negative"),
        pytest.param("gzip", "fast", "a level is a number", id="word"),
        pytest.param("uncompressed", "1", "uncompressed layers have no level", id="level of nothing"),
    ],
)
def test_compression_that_there_is_not_is_refused(kind: str, level: str | None, hint: str) -> None:
    """The hint says what there is."""
    with pytest.raises(CompressionInvalidError, match="unknown compression") as caught:
        Compression.parse(kind, level)

    assert hint in str(caught.value.hint)
    assert caught.value.exit_code == 2


def test_compression_is_parsed() -> None:
    """Values of options become a value."""
    assert Compression.parse("zstd", "19") == Compression("zstd", 19)
    assert Compression.parse("gzip") == Compression()
    assert set(MAX_LEVELS) == set(KINDS)


def test_compression_module_loads_no_compressor() -> None:
    """Naming a compression costs no start-up time."""
    script = "import sys, registry.content.compression; print([m for m in ('isal', 'zstandard') if m in sys.modules])"

    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT) == b"[]\n"


def compressed(kind: str, data: bytes) -> bytes:
    """Return *data* as a file of that kind."""
    return {
        "gzip": lambda: gzip.compress(data),
        "zstd": lambda: zstandard.ZstdCompressor(write_checksum=True).compress(data),
        "bzip2": lambda: bz2.compress(data),
        "xz": lambda: lzma.compress(data),
    }[kind]()


FORMATS = ["gzip", "zstd", "bzip2", "xz"]


class Trickle(io.RawIOBase):
    """A stream like a socket: it gives a few bytes at a time."""

    def __init__(self, data: bytes, piece: int) -> None:
        super().__init__()
        self._data, self._piece = data, piece

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        size = self._piece if size is None or size < 0 else min(size, self._piece)
        result, self._data = self._data[:size], self._data[size:]
        return result


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("piece", [1, 3, 1000, 1 << 20])
def test_archive_is_decompressed_from_any_stream(kind: str, piece: int) -> None:
    """Several members, skippable frames and padding, in pieces of any size, give one stream."""
    data = make_text(3000)
    blob = compressed(kind, data[:2000]) + compressed(kind, data[2000:]) + compressed(kind, b"")
    if kind == "zstd":
        blob = b"\x50\x2a\x4d\x18\x03\0\0\0abc" + blob + b"\x5f\x2a\x4d\x18\0\0\0\0"
    else:
        blob += b"\0" * 512

    with open_archive(cast("BinaryIO", Trickle(blob, piece))) as archive:
        assert archive.read() == data


@pytest.mark.parametrize("kind", FORMATS)
def test_archive_that_is_cut_anywhere_is_refused(kind: str) -> None:
    """No truncated stream passes for a whole one."""
    blob = compressed(kind, b"0123456789" * 20)

    for end in range(14, len(blob)):
        with pytest.raises(LayerDamagedError, match="damaged archive"):
            open_archive(io.BytesIO(blob[:end])).read()


@pytest.mark.parametrize("kind", FORMATS)
def test_archive_with_other_bytes_behind_it_is_refused(kind: str) -> None:
    """What one tool ignores, another may unpack."""
    with pytest.raises(LayerDamagedError, match="other bytes follow its end"):
        open_archive(io.BytesIO(compressed(kind, TAR) + b"garbage")).read()


@pytest.mark.parametrize("kind", FORMATS)
def test_archive_with_a_flipped_bit_is_refused(kind: str) -> None:
    """Checksums of the formats are looked at."""
    blob = bytearray(compressed(kind, make_text(5000)))
    blob[len(blob) // 2] ^= 4

    with pytest.raises(LayerDamagedError, match=r"cannot be decompressed|ends early|no known kind|other bytes"):
        open_archive(io.BytesIO(bytes(blob))).read()


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz"])
def test_archive_of_zeros_is_read_in_bounded_memory(kind: str) -> None:
    """A bomb is the reader's to stop: it comes in pieces that fit."""
    code = f"""
import io, resource
from registry.content.layer_stream import open_archive
from tests.registry.content.test_compression import compressed
blob = compressed({kind!r}, bytes(100 << 20)) if {kind!r} != "zstd" else compressed("zstd", bytes(1 << 20)) * 100
open_archive(io.BytesIO(compressed({kind!r}, b"x"))).read()
import gc; gc.collect()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
before, count = peak(), 0
with open_archive(io.BytesIO(blob)) as archive:
    while data := archive.read(65536):
        count += len(data)
print(count >> 20, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    size, memory = map(int, done.stdout.split())

    assert size == 100
    assert memory < 24 * 1024


def test_layer_bytes_decide_against_the_media_type() -> None:
    """Media types lie; docker and containerd look at the bytes too."""
    for kind in ("gzip", "zstd"):
        for media_type in (*MEDIA_TYPES.values(), None, "x/y"):
            assert open_layer(io.BytesIO(compressed(kind, TAR)), media_type=media_type).read() == TAR
    assert open_layer(io.BytesIO(TAR), media_type=OCI_LAYER_GZIP).read() == TAR


@pytest.mark.parametrize("media_type", [OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
def test_layer_announced_as_compressed_that_is_neither_is_refused(media_type: str) -> None:
    """HTML from a proxy is no layer."""
    with pytest.raises(LayerDamagedError, match=r"it is announced as .* and is not"):
        open_layer(io.BytesIO(b"<html>" + b"x" * 600), media_type=media_type)


@given(
    st.binary(max_size=600), st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"\xfd7zXZ\0"])
)
def test_archive_of_any_bytes_is_read_or_refused_with_its_own_error(data: bytes, magic: bytes) -> None:
    """Nothing makes the reader fail in another way, nor hang."""
    try:
        result = open_archive(io.BytesIO(magic + data)).read()
    except LayerDamagedError:
        return

    assert result == magic + data or magic


@given(st.binary(max_size=300), st.integers(0, 10_000), st.integers(0, 255))
def test_archive_with_one_wrong_byte_never_gives_other_content(data: bytes, position: int, value: int) -> None:
    """With its checksum, a zstd stream is whole or refused."""
    blob = bytearray(compressed("zstd", data))
    blob[position % len(blob)] = value
    try:
        result = open_layer(io.BytesIO(bytes(blob)), media_type=None).read()
    except LayerDamagedError:
        return

    assert result == data or not blob.startswith(b"\x28\xb5\x2f\xfd") or not blob[4] & 4


def test_layer_read_to_its_end_verifies_its_blob(store: LocalBlobStore) -> None:
    """The last read of the tar meets the end of the blob, so damage behind the tar is found."""
    layer = write(store, TAR, Compression())
    blob = stored(store, layer)
    store.path(layer.descriptor.digest).write_bytes(blob[:4] + b"\1" + blob[5:])

    with pytest.raises(DigestMismatchError, match="digest mismatch in blob"):
        open_layer(store.open_verified(layer.descriptor.digest), media_type=OCI_LAYER_GZIP).read()


def test_layer_longer_than_announced_is_refused(store: LocalBlobStore) -> None:
    """The size of the descriptor counts."""
    layer = write(store, TAR, Compression())

    with pytest.raises(SizeMismatchError, match="expected 5 bytes"):
        open_layer(store.open_verified(layer.descriptor.digest, size=5), media_type=None).read()


@pytest.mark.parametrize("kind", KINDS)
def test_layer_closed_early_closes_its_stream(store: LocalBlobStore, kind: CompressionKind) -> None:
    """Who stops reading leaks nothing."""
    layer = write(store, LARGE, Compression(kind))
    stream: BinaryIO = store.open(layer.descriptor.digest)
    with open_layer(stream, media_type=None) as tar:
        tar.read(10)

    assert stream.closed


def test_layer_is_read_by_tarfile(store: LocalBlobStore) -> None:
    """The reader is a file object for other libraries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO(b""))
    layer = write(store, buffer.getvalue(), Compression("zstd"))

    with (
        open_layer(store.open_verified(layer.descriptor.digest), media_type=None) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        assert archive.getnames() == ["a"]
    assert hashlib.sha256(buffer.getvalue()).hexdigest() in layer.diff_id


def test_default_gzip_layer_is_smaller_than_igzip_makes_it_by_itself(store: LocalBlobStore) -> None:
    """Of a program, of which most of a distribution's layer is made; even in blocks that are compressed by themselves."""
    program = Path(sys.executable).resolve().read_bytes()

    with LayerSink(store.writer(), Compression()) as sink:
        sink.write(program)
        size = sink.finish().descriptor.size

    assert len(program) > BLOCK_SIZES["gzip"]
    assert size < len(isal_zlib.compress(program, 2))
