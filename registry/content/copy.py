"""Blobs from one store to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from registry.errors import SizeMismatchError

if TYPE_CHECKING:
    from registry.content.store import BlobStore
    from registry.oci.digest import Digest

_COPY_SIZE: Final = 1 << 20


def copy_blob(source: BlobStore, target: BlobStore, digest: Digest, *, size: int | None = None) -> None:
    """Copy a blob, unless the target has it; it arrives verified, or not at all.

    Args:
        source: has it; a store that is not trusted has to hold nothing but files below its `blobs`.
        target: takes it.
        digest: of the blob.
        size: what it has to be long, None if not known.

    Raises:
        BlobMissingError: the source has no such blob.
        ContentError: its bytes are not those of the digest, or it cannot be read or written.
    """
    if target.has(digest):
        return
    if size is not None and (actual := source.size(digest)) != size:
        raise SizeMismatchError(expected=size, actual=actual, subject=f"blob {digest}")
    with source.open(digest) as content, target.writer() as writer:
        while data := content.read(_COPY_SIZE):
            writer.write(data)
        writer.commit(digest, size)
