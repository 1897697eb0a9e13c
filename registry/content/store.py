"""The seam between those who have blobs and those who want them.

A blob store maps digests to bytes. Readers see a whole blob or none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import BinaryIO, Protocol, Self

    from registry.content.growing import GrowingBlob
    from registry.oci.digest import Digest
else:
    Protocol = object


@frozen(kw_only=False)
class BlobInfo:
    """Name and length, in bytes, of a stored blob."""

    digest: Digest
    size: int


Hold = Callable[[str], AbstractContextManager[None]]
"""Keeps what has this name from being removed, for as long as this process lives.

During the block nobody removes anything, so what is found there stays.
"""


class BlobWriter(Protocol):
    """A blob on its way in. Leaving its `with` without `commit` aborts it."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of *data*; return its length.

        Raises:
            StoreFullError: no space or quota is left.
        """

    def follow(self) -> GrowingBlob:
        """Have the bytes read while they are written. By the thread that writes, before it does."""

    def commit(self, expected: Digest | None = None, size: int | None = None) -> BlobInfo:
        """Make the written bytes visible under their digest and close the writer, also on error.

        Idempotent: committing bytes that are already stored returns the stored blob.

        Raises:
            DigestMismatchError: the bytes do not hash to *expected*; nothing is stored.
            SizeMismatchError: the length differs from *size*; nothing is stored.
            StoreFullError: no space or quota is left.

        Source: image-spec, descriptor.md, section Verification.
        """

    def abort(self) -> None:
        """Forget the written bytes. Idempotent, and without effect after `commit`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class BlobStore(Protocol):
    """Blobs by digest."""

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Tell whether the blob is there, in its length if that is given; its bytes are not looked at.

        Who asks is taken to want it.
        """

    def size(self, digest: Digest) -> int:
        """Return the length of a blob.

        Raises:
            BlobMissingError: it is not there.
        """

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, unverified; the caller closes it.

        Raises:
            BlobMissingError: it is not there.
        """

    def open_verified(self, digest: Digest, *, size: int | None = None) -> BinaryIO:
        """Open a blob for reading; the read that meets its end checks digest and, if given, *size*.

        Raises:
            BlobMissingError: it is not there. The reader raises DigestMismatchError and SizeMismatchError.
        """

    def read_bytes(self, digest: Digest, *, limit: int) -> bytes:
        """Return a whole blob, verified.

        Raises:
            BlobMissingError: it is not there.
            BlobTooLargeError: it is longer than *limit*.
            DigestMismatchError: it is damaged.
        """

    def writer(self) -> BlobWriter:
        """Start a blob whose digest is not known yet."""

    def put(self, data: bytes) -> BlobInfo:
        """Store *data* under its sha256 digest. Idempotent."""

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens if it is not there. Open readers keep their bytes."""

    def walk(self) -> Iterator[BlobInfo]:
        """Yield every blob, in no order; those that come or go meanwhile may be missed."""
