"""Blobs that go from one store to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from registry.content.copy import copy_blob
from registry.content.local import LocalBlobStore
from registry.errors import BlobMissingError, ContentError, DigestMismatchError, SizeMismatchError
from registry.oci.digest import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from registry.oci.digest import Digest

DATA = b"some bytes"


@pytest.fixture
def stores(tmp_path: Path) -> tuple[LocalBlobStore, LocalBlobStore]:
    """Return two stores, the first of which has the blob."""
    source, target = (LocalBlobStore(tmp_path / name, temporary=tmp_path / "tmp") for name in ("a", "b"))
    source.put(DATA)
    return source, target


def test_blob_is_copied_once(stores: tuple[LocalBlobStore, LocalBlobStore]) -> None:
    """It arrives, and what is there is not asked for again."""
    source, target = stores

    copy_blob(source, target, digest_of(DATA), size=len(DATA))
    source.delete(digest_of(DATA))
    copy_blob(source, target, digest_of(DATA))

    assert target.read_bytes(digest_of(DATA), limit=100) == DATA


@pytest.mark.parametrize(
    ("content", "size", "error"),
    [
        (None, None, BlobMissingError),
        (b"longer bytes", len(DATA), SizeMismatchError),
        (b"other byte", len(DATA), DigestMismatchError),
        (b"other byte", None, DigestMismatchError),
    ],
)
def test_blob_that_is_not_what_it_is_called_does_not_arrive(
    stores: tuple[LocalBlobStore, LocalBlobStore], content: bytes | None, size: int | None, error: type[ContentError]
) -> None:
    """A missing, longer or changed blob is an error, and nothing is left of it."""
    source, target = stores
    digest: Digest = digest_of(DATA)
    source.delete(digest)
    if content is not None:
        source.path(digest).write_bytes(content)

    with pytest.raises(error):
        copy_blob(source, target, digest, size=size)

    assert list(target.walk()) == []
