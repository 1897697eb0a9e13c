"""A stream that is read by a thread of its own, a bounded number of blocks ahead of who takes them.

Reading a layer is reading its blob, hashing it, decompressing it and hashing what comes out: nearly all of it in C and
without the interpreter's lock. So it costs no time beside a reader that unpacks or indexes, where there are two cores.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import BinaryIO, Final

from registry.content.raw_reader import BlockReader

BLOCK_SIZE: Final = 1 << 17
"""Bytes asked of the stream at once."""

BLOCKS_AHEAD: Final = 16
"""Blocks that wait to be taken at most."""


class ReadAhead(BlockReader):
    """Gives the bytes of another stream in order, and its error, whatever it is, where it failed. Used from one thread.

    A stream of less than one block is read where it is asked for, without a thread. Closing ends the thread, which ends
    the read that it is in first, and closes *stream*.

    Args:
        stream: `read(n)` is used, from one thread at a time; it may give fewer bytes than asked for.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._blocks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._ended = False  # the thread puts nothing more, or nobody takes anything more
        self._given = 0

    def close(self) -> None:
        """End the thread and close the stream. Idempotent."""
        if not self.closed:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join()
            self._blocks.clear()
            self._stream.close()
        super().close()

    def _next(self, size: int) -> bytes:  # noqa: ARG002  (a block is what there is at once)
        if self._thread is None:
            if self._ended:
                return b""
            if self._given < BLOCK_SIZE:
                return self._read_here()
            # A daemon, so that a reader somebody forgot cannot keep the interpreter from ending.
            self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._ended)
            if self._blocks:
                block = self._blocks.popleft()
                self._changed.notify_all()
                return block
        if self._failure is not None:
            raise self._failure
        return b""

    def _read_here(self) -> bytes:
        block = self._stream.read(BLOCK_SIZE)
        self._given += len(block)
        self._ended = not block
        return block

    def _run(self) -> None:
        try:
            while block := self._stream.read(BLOCK_SIZE):
                with self._changed:
                    self._changed.wait_for(lambda: len(self._blocks) < BLOCKS_AHEAD or self._ended)
                    if self._ended:
                        return
                    self._blocks.append(block)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  (whatever it is, who reads raises it)
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()
