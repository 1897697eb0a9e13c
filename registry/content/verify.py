"""Readers that check what they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from registry.content.raw_reader import RawReader
from registry.errors import DigestMismatchError, SizeMismatchError
from registry.hashing import new_hash
from registry.oci.digest import Digest, digest_algorithm

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.errors import ContentError


class VerifyingReader(RawReader):
    """Passes a stream through, and checks digest and length when it ends.

    Only the read that meets the end checks, so a reader who stops early has verified nothing; `verify` reads the
    rest. A stream that grows past *size* fails as soon as it does. Closing closes *stream*. Reading raises
    DigestMismatchError where the stream ends and does not hash to the digest, SizeMismatchError where it ends too early
    or goes on too long.

    Args:
        stream: the bytes; `read(n)` is all that is used.
        digest: what they have to hash to.
        size: how many there have to be, None if not known.
        subject: whose bytes they are, for errors.
        blame: makes the error for another digest than *digest*, of that digest; None for DigestMismatchError.
    """

    def __init__(
        self,
        stream: BinaryIO,
        digest: Digest,
        *,
        size: int | None = None,
        subject: str,
        blame: Callable[[str], ContentError] | None = None,
    ) -> None:
        super().__init__()
        self._stream = stream
        self._digest = digest
        self._size = size
        self._subject = subject
        self._blame = blame
        self._hash = new_hash(digest_algorithm(digest), size)
        self._count = 0
        self._ended = False

    def _read(self, size: int) -> bytes:
        if self._ended:
            return b""
        data = self._stream.read(size)
        if data:
            self._hash.update(data)
            self._count += len(data)
            if self._size is not None and self._count > self._size:
                raise SizeMismatchError(expected=self._size, actual=self._count, subject=self._subject)
        else:
            self._check()
            self._ended = True
        return data

    def verify(self) -> None:
        """Read what is left and check the whole.

        Raises:
            DigestMismatchError: as `read`.
            SizeMismatchError: as `read`.
        """
        while self.read(1 << 20):
            pass

    def close(self) -> None:
        """Close the stream as well."""
        if not self.closed:
            self._stream.close()
        super().close()

    def _check(self) -> None:
        actual = f"{digest_algorithm(self._digest)}:{self._hash.hexdigest()}"
        if actual != self._digest and self._blame is not None:
            raise self._blame(actual)
        if self._size is not None and self._count != self._size:
            raise SizeMismatchError(expected=self._size, actual=self._count, subject=self._subject)
        if actual != self._digest:
            raise DigestMismatchError(expected=self._digest, actual=actual, subject=self._subject)
