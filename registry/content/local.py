"""Blobs in a directory, the `blobs/` of an OCI image layout.

Any number of processes may read and write one store. A blob is written to the temporary directory, synchronised, and
renamed, so a crash leaves at most a temporary file. See `registry.content.paths` for the tree.

The time stamp of a blob says when it was last wanted: made, or asked for. A *hold* keeps what is wanted from a collector.
"""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial

from registry.content.paths import NO_SPACE, blob_file, blobs_directory
from registry.content.store import BlobInfo
from registry.errors import (
    BlobDamagedError,
    BlobMissingError,
    BlobTooLargeError,
    ContentError,
    DigestInvalidError,
    DigestMismatchError,
    SizeMismatchError,
    StoreFullError,
)
from registry.hashing import new_hash
from registry.oci.digest import HEX_LENGTHS, Digest, digest_algorithm, digest_of, parse_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

    from registry.content.growing import GrowingBlob
    from registry.content.store import Hold


def _hold_nothing(_: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


class LocalBlobStore:
    """The blobs of an image layout on disk.

    Directories are made when first needed. Blobs are trusted by name alone, except where a method says `verified`.

    Args:
        images: the layout's directory.
        temporary: where unfinished blobs lie; on the same filesystem.
        hold: keeps blobs that are asked for or made from being removed; without it nobody collects here.
        removes_damaged: remove a blob that turns out, when it is read to its end, not to be what its name says. It would
            stay in the way of a good one of the same length for ever. Not for layouts of others.
    """

    def __init__(
        self, images: Path, *, temporary: Path, hold: Hold | None = None, removes_damaged: bool = False
    ) -> None:
        self._images = images
        self._temporary = temporary
        self._hold = hold
        self._removes_damaged = removes_damaged

    def path(self, digest: Digest) -> Path:
        """Return where a blob lies, whether it exists or not.

        Raises:
            DigestInvalidError: *digest* is not one; nothing else ever becomes a part of a path.
        """
        return blob_file(self._images, digest)

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Tell whether the blob is there, in its length if that is given; its bytes are not looked at.

        If it is, it is held and gets a new time stamp.
        """
        path = self.path(digest)
        if self._hold is None:
            return _is_there(path, size)
        return _take(path, digest, size, self._hold)

    def size(self, digest: Digest) -> int:
        """Return the length of a blob.

        Raises:
            BlobMissingError: it is not there.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise BlobMissingError(digest) from error

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, unverified and unbuffered; the caller closes it.

        Raises:
            BlobMissingError: it is not there.
            ContentError: it cannot be opened.
        """
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError as error:
            raise BlobMissingError(digest) from error
        except OSError as error:
            raise ContentError(f"blob cannot be opened, {error.strerror}: `{digest}`") from error

    def open_verified(self, digest: Digest, *, size: int | None = None) -> BinaryIO:
        """Open a blob for reading; the read that meets its end checks digest and, if given, *size*.

        Raises:
            BlobMissingError: it is not there.
            ContentError: it cannot be opened. The reader raises DigestMismatchError, BlobDamagedError where damaged
                blobs are removed, and SizeMismatchError.
        """
        from registry.content.verify import VerifyingReader  # noqa: PLC0415  documents are read without it

        blame = partial(self._remove_damaged, digest) if self._removes_damaged else None
        # A RawIOBase has every method of BinaryIO that a reader may call; typeshed does not relate the two.
        return VerifyingReader(  # type: ignore[return-value]
            self.open(digest), digest, size=size, subject=f"blob {digest}", blame=blame
        )

    def read_bytes(self, digest: Digest, *, limit: int) -> bytes:
        """Return a whole blob, verified.

        Raises:
            BlobMissingError: it is not there.
            BlobTooLargeError: it is longer than *limit* bytes.
            DigestMismatchError: it is damaged.
        """
        size = self.size(digest)
        if size > limit:
            raise BlobTooLargeError(digest, size=size, limit=limit)
        with self.open(digest) as blob:
            data = blob.read(size + 1)
        actual = digest_of(data, digest_algorithm(digest))
        if actual == digest:
            return data
        if self._removes_damaged:
            raise self._remove_damaged(digest, actual)
        raise DigestMismatchError(expected=digest, actual=actual, subject=f"blob {digest}")

    def writer(self) -> LocalBlobWriter:
        """Start a blob whose digest is not known yet.

        Raises:
            StoreFullError: no space, quota or inode is left.
            ContentError: the temporary directory cannot be written.
        """
        return LocalBlobWriter(self._images, self._temporary, self._hold or _hold_nothing)

    def put(self, data: bytes) -> BlobInfo:
        """Store *data* under its sha256 digest. Idempotent.

        Raises:
            StoreFullError: no space, quota or inode is left.
        """
        digest = digest_of(data)
        if _take(self.path(digest), digest, len(data), self._hold or _hold_nothing):
            return BlobInfo(digest, len(data))
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def _remove_damaged(self, digest: Digest, actual: str) -> BlobDamagedError:
        self.delete(digest)
        return BlobDamagedError(expected=digest, actual=actual)

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens if it is not there. Open readers keep their bytes."""
        self.path(digest).unlink(missing_ok=True)

    def walk(self) -> Iterator[BlobInfo]:
        """Yield every blob, in no order; those that come or go meanwhile may be missed. Foreign names are passed by."""
        for digest, status in self.scan():
            yield BlobInfo(digest, status.st_size)

    def scan(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Yield every blob as `walk` does, with what the file system knows of it."""
        for algorithm in HEX_LENGTHS:
            try:
                entries = os.scandir(blobs_directory(self._images, algorithm))
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    try:
                        digest = parse_digest(f"{algorithm}:{entry.name}")
                        yield digest, entry.stat()
                    except (DigestInvalidError, FileNotFoundError):
                        continue


class LocalBlobWriter:
    """A blob being written to a temporary file, hashed on the way. Used from one thread at a time."""

    def __init__(self, images: Path, temporary: Path, hold: Hold = _hold_nothing) -> None:
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
            if not _take(target, digest, self._size, self._hold):
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


def _take(path: Path, digest: Digest, size: int | None, hold: Hold) -> bool:
    """Tell whether a blob is there. It is held from now on, or what is put in its place is, and gets a new time stamp."""
    with hold(digest):
        return _is_there(path, size) and _touch(path)


def _is_there(path: Path, size: int | None) -> bool:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(status.st_mode) and size in {None, status.st_size}


def _touch(path: Path) -> bool:
    """Give a blob a new time stamp; return whether it is still there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # another user's, or on a file system that is read-only
        pass
    return True
