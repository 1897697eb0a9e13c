"""Blobs on their way into a directory: written aside, synchronised, renamed. See `registry.content.local`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from registry.content.local import hold_nothing, take
from registry.content.paths import NO_SPACE, blob_file
from registry.content.store import BlobInfo
from registry.errors import ContentError, DigestMismatchError, SizeMismatchError, StoreFullError
from registry.hashing import new_hash
from registry.oci.digest import Digest, digest_algorithm, parse_digest

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from registry.content.growing import GrowingBlob
    from registry.content.store import Hold


class LocalBlobWriter:
    """A blob being written to a temporary file, hashed on the way. Used from one thread at a time.

    Args:
        images: the layout's directory.
        temporary: where the file lies; on the same filesystem.
        hold: keeps the blob from being removed.

    Raises:
        StoreFullError: no space, quota or inode is left.
        ContentError: the temporary directory cannot be written.
    """

    def __init__(self, images: Path, temporary: Path, hold: Hold = hold_nothing) -> None:
        self._images = images
        self._temporary = temporary
        self._hold = hold
        self._hash = new_hash("sha256", None)
        self._size = 0
        self._path = temporary / f"blob-{os.urandom(8).hex()}"
        self._growing: GrowingBlob | None = None
        self._fd: int | None = self._create()

    def follow(self) -> GrowingBlob:
        """Have the bytes read while they are written. By the thread that writes, before it does.

        Raises:
            ContentError: no descriptor is left.
        """
        from registry.content.growing import GrowingBlob  # noqa: PLC0415  few blobs are read as they come

        if self._fd is None:
            raise ValueError("follow of a closed blob")
        try:
            self._growing = GrowingBlob(self._fd)
        except OSError as error:
            raise self._wrap(error) from error
        return self._growing

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of *data*; return its length.

        Raises:
            StoreFullError: no space or quota is left; the temporary file is removed.
        """
        if self._fd is None:
            raise ValueError("write to a closed blob")
        self._hash.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.abort()
            raise self._wrap(error) from error
        self._size += len(data)
        if self._growing is not None:
            self._growing.advance(self._size)
        return len(data)

    def commit(self, expected: Digest | None = None, size: int | None = None) -> BlobInfo:
        """Make the written bytes visible under their digest and close the writer, also on error.

        A blob that is already there stays as it is and only gets a new time stamp, which tells a collector that it is
        wanted again; one of another length is damaged and is replaced.

        Raises:
            DigestMismatchError: the bytes do not hash to *expected*; nothing is stored.
            SizeMismatchError: the length differs from *size*; nothing is stored.
            StoreFullError: no space or quota is left; nothing is stored.
        """
        if self._fd is None:
            raise ValueError("commit of a closed blob")
        try:
            digest = self._check(expected, size)
            target = blob_file(self._images, digest)
            if not take(target, digest, self._size, self._hold):
                os.fdatasync(self._fd)
                self._publish(target)
            if self._growing is not None:
                self._growing.end(stored=True)
            return BlobInfo(digest, self._size)
        except OSError as error:
            raise self._wrap(error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Forget the written bytes. Idempotent, and without effect after `commit`."""
        if self._fd is not None:
            if self._growing is not None:
                self._growing.end(stored=False)  # which a commit came before
            os.close(self._fd)
            self._fd = None
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()

    def _create(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            try:
                return os.open(self._path, flags, 0o644)
            except FileNotFoundError:
                self._temporary.mkdir(parents=True, exist_ok=True)
                return os.open(self._path, flags, 0o644)
        except OSError as error:
            raise self._wrap(error) from error

    def _check(self, expected: Digest | None, size: int | None) -> Digest:
        if size is not None and size != self._size:
            raise SizeMismatchError(expected=size, actual=self._size, subject=f"blob {expected or ''}".rstrip())
        digest = Digest("sha256:" + self._hash.hexdigest())
        if expected is None or expected == digest:
            return digest
        algorithm = digest_algorithm(parse_digest(expected))
        if algorithm != "sha256":
            digest = self._rehash(algorithm)
        if expected != digest:
            raise DigestMismatchError(expected=expected, actual=digest, subject=f"blob {expected}")
        return digest

    def _rehash(self, algorithm: str) -> Digest:
        # Blobs named by sha512 are rare, so a second read is better than hashing every blob twice.
        with open(self._path, "rb") as file:
            import hashlib  # noqa: PLC0415  as in `new_hash`

            return Digest(f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}")

    def _publish(self, target: Path) -> None:
        try:
            self._path.rename(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._path.rename(target)

    def _wrap(self, error: OSError) -> ContentError:
        if error.errno in NO_SPACE:
            return StoreFullError(str(self._images), str(error.strerror))
        return ContentError(f"blob cannot be written, {error.strerror}: `{self._temporary}`")
