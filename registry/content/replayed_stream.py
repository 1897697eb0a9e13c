"""A stream whose first bytes were read to find out what it is, and are put back."""

from __future__ import annotations

from typing import BinaryIO, Final

from registry.content.raw_reader import RawReader

_HEAD: Final = 512


def peek(stream: BinaryIO) -> tuple[bytes, ReplayedStream]:
    """Return the first 512 bytes, or fewer if there are no more, and the stream as if they had not been read."""
    head = b""
    while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
        head += more
    return head, ReplayedStream(head, stream)


class ReplayedStream(RawReader):
    """Gives bytes that were read already, then the rest of the stream they came from.

    Args:
        head: the bytes that were read.
        stream: the rest; only `read(n)` is used. Closed with this one.
    """

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._stream = stream

    def _read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)

    def unread(self, data: bytes) -> None:
        """Put *data* back, to be read next."""
        self._head = data + self._head

    def close(self) -> None:
        """Close the stream too."""
        if not self.closed:
            self._stream.close()
        super().close()
