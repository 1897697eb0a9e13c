"""A stream whose first bytes were read to find out what it is, and are put back."""

from __future__ import annotations

import io
from typing import BinaryIO, Final

_HEAD: Final = 512
_READ_SIZE: Final = 128 * 1024


def peek(stream: BinaryIO) -> tuple[bytes, ReplayedStream]:
    """Return the first 512 bytes, or fewer if there are no more, and the stream as if they had not been read."""
    head = b""
    while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
        head += more
    return head, ReplayedStream(head, stream)


class ReplayedStream(io.RawIOBase):
    """Gives bytes that were read already, then the rest of the stream they came from.

    Args:
        head: the bytes that were read.
        stream: the rest; only `read(n)` is used. Closed with this one.
    """

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes, all that is left if that is negative."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_READ_SIZE), b""))
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)

    def unread(self, data: bytes) -> None:
        """Put *data* back, to be read next."""
        self._head = data + self._head

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed wants any buffer
        """Fill the beginning of *buffer*; return how much was there."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream too."""
        if not self.closed:
            self._stream.close()
        super().close()
