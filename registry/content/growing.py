"""A blob that is read while it is written.

Readers get the bytes as they are written, and meet the end only when all of them are stored under their digest. So
who has read to the end has read a verified blob, and who acts on bytes before that has to be ready to take it back.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import BinaryIO, cast

from registry.content.raw_reader import RawReader
from registry.errors import BlobAbandonedError


class GrowingBlob:
    """What a writer tells the readers of its blob. Used from any thread.

    Args:
        fd: the file that is written; duplicated here.
    """

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        self.changed = threading.Condition()
        self.size = 0
        self.stored: bool | None = None

    def advance(self, size: int) -> None:
        """Note that the first *size* bytes are written."""
        with self.changed:
            self.size = size
            self.changed.notify_all()

    def end(self, *, stored: bool) -> None:
        """Note that the blob is stored, or will never be. What was noted first counts."""
        with self.changed:
            if self.stored is None:
                self.stored = stored
                os.close(self._fd)
                self.changed.notify_all()

    def open(self) -> BinaryIO | None:
        """Open it for reading; None if nothing more will be written. The caller closes it."""
        with self.changed:
            if self.stored is not None:
                return None
            # A RawIOBase has every method of BinaryIO that a reader may call; typeshed does not relate the two.
            return cast("BinaryIO", _GrowingReader(self, os.dup(self._fd)))


class _GrowingReader(RawReader):
    """Reads a growing blob from its start; waits where nothing is written yet.

    Reading raises BlobAbandonedError if it will never be stored, also where bytes of it are left.
    """

    def __init__(self, blob: GrowingBlob, fd: int) -> None:
        super().__init__()
        self._blob = blob
        self._fd = fd
        self._position = 0

    def _read(self, size: int) -> bytes:
        blob = self._blob
        with blob.changed:
            blob.changed.wait_for(lambda: blob.size > self._position or blob.stored is not None)
            if blob.stored is False:
                raise BlobAbandonedError
            available = blob.size - self._position
        data = os.pread(self._fd, min(size, available), self._position)
        self._position += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        super().close()
