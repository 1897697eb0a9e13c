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

from registry.content.paths import blob_file, blobs_directory
from registry.content.store import BlobInfo
from registry.errors import (
    BlobDamagedError,
    BlobMissingError,
    BlobTooLargeError,
    ContentError,
    DigestInvalidError,
    DigestMismatchError,
)
from registry.oci.digest import HEX_LENGTHS, Digest, digest_algorithm, digest_of, parse_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from registry.content.local_writer import LocalBlobWriter
    from registry.content.store import Hold


def hold_nothing(_: str) -> contextlib.AbstractContextManager[None]:
    """Hold nothing: where nobody collects, or somebody else holds."""
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
        return take(path, digest, size, self._hold)

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
        from registry.content.local_writer import LocalBlobWriter  # noqa: PLC0415  (a cached build writes hardly any)

        return LocalBlobWriter(self._images, self._temporary, self._hold or hold_nothing)

    def put(self, data: bytes) -> BlobInfo:
        """Store *data* under its sha256 digest. Idempotent.

        Raises:
            StoreFullError: no space, quota or inode is left.
        """
        digest = digest_of(data)
        if take(self.path(digest), digest, len(data), self._hold or hold_nothing):
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


def take(path: Path, digest: Digest, size: int | None, hold: Hold) -> bool:
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
