"""Verifying readers: the verdict comes with the end."""

from __future__ import annotations

import io

import pytest

from registry.content.verify import VerifyingReader
from registry.errors import DigestMismatchError, SizeMismatchError
from registry.oci.digest import digest_of, parse_digest


def reader(data: bytes, promised: bytes, *, size: int | None = None) -> VerifyingReader:
    """Return a reader of *data* that was promised to be *promised*."""
    return VerifyingReader(io.BytesIO(data), digest_of(promised), size=size, subject="blob x")


def test_reader_of_good_bytes_passes_them_through() -> None:
    """Reading in pieces, into buffers and at once give the same bytes."""
    data = bytes(range(256)) * 20

    assert reader(data, data, size=len(data)).read() == data
    pieces = reader(data, data)
    assert b"".join(iter(lambda: pieces.read(7), b"")) == data
    assert io.BufferedReader(reader(data, data), 16).read() == data


def test_reader_of_other_bytes_fails_at_the_end() -> None:
    """The bytes come first, the verdict with the end; it names the subject."""
    stream = reader(b"abd", b"abc")

    assert stream.read(3) == b"abd"
    with pytest.raises(DigestMismatchError, match="digest mismatch in blob x") as caught:
        stream.read(1)
    assert caught.value.actual == digest_of(b"abd")


@pytest.mark.parametrize(
    ("data", "actual"), [pytest.param(b"ab", 2, id="truncated"), pytest.param(b"abcd", 4, id="longer")]
)
def test_reader_of_another_length_fails(data: bytes, actual: int) -> None:
    """A size that was announced is checked too."""
    with pytest.raises(SizeMismatchError, match="size mismatch in blob x") as caught:
        reader(data, b"abc", size=3).verify()

    assert (caught.value.expected, caught.value.actual) == (3, actual)


def test_reader_stops_an_endless_stream_at_the_announced_size() -> None:
    """Bytes beyond the size are not waited for."""
    endless = io.BytesIO(b"x" * 10_000)
    stream = VerifyingReader(endless, digest_of(b"x"), size=10, subject="blob x")

    with pytest.raises(SizeMismatchError, match="expected 10 bytes"):
        stream.read(100)
    assert endless.tell() == 100


def test_reader_knows_sha512() -> None:
    """The algorithm is that of the digest."""
    digest = parse_digest(
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    )

    assert VerifyingReader(io.BytesIO(b"abc"), digest, subject="x").read() == b"abc"


def test_reader_closes_its_stream() -> None:
    """Who closes the reader closes the file."""
    stream = io.BytesIO(b"")
    VerifyingReader(stream, digest_of(b""), subject="x").close()

    assert stream.closed
