"""Readers without a buffer: what the streams of blobs and layers have in common.

Bytes are passed on as they come: copies would cost as much as hashing.
"""

from __future__ import annotations

import io
from typing import Final

_PIECE: Final = 1 << 20


class RawReader(io.RawIOBase):
    """A reader over `_read`. It gives fewer bytes than asked for where fewer are there, and b"" only at the end."""

    def readable(self) -> bool:
        """Return true."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to *size* bytes, all that is left if negative."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        return self._read(size) if size else b""

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed wants any buffer
        """Fill the beginning of *buffer*; return how much was there."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        """Return up to *size* bytes, which is more than 0."""
        raise NotImplementedError


class BlockReader(RawReader):
    """A reader over `_next`, whose blocks may be longer than what is asked for."""

    _ready = memoryview(b"")

    def _read(self, size: int) -> bytes:
        if not self._ready:
            block = self._next(size)
            if len(block) <= size:
                return block
            self._ready = memoryview(block)
        data = bytes(self._ready[:size])
        self._ready = self._ready[size:]
        return data

    def _next(self, size: int) -> bytes:
        """Return the next block, b"" only at the end, for a reader that wants up to *size* bytes."""
        raise NotImplementedError
