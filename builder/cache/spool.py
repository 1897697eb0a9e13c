"""Pieces of bytes on their way into the state database: in memory while they are few, then in a file without a name."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_IN_MEMORY: Final = 4 << 20
_LENGTH: Final = 8


class Spool:
    """Takes pieces, and gives them again in their order.

    Args:
        folder: where the file is made, which nobody else sees.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pieces: list[bytes] = []
        self._held = 0
        self._fd = -1
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Take a piece.

        Raises:
            OSError: it cannot be written.
        """
        self._pieces.append(piece)
        self._held += len(piece)
        self.size += len(piece)
        if self._held >= _IN_MEMORY:
            self._write()

    def __iter__(self) -> Iterator[bytes]:
        """Give the pieces; none may be added meanwhile."""
        if self._fd >= 0:
            with os.fdopen(os.dup(self._fd), "rb") as file:
                file.seek(0)
                while length := file.read(_LENGTH):
                    yield file.read(int.from_bytes(length, "big"))
        yield from self._pieces

    def _write(self) -> None:
        if self._fd < 0:
            self._fd = _open_unnamed(self._folder)
        data = memoryview(b"".join(len(piece).to_bytes(_LENGTH, "big") + piece for piece in self._pieces))
        os.lseek(self._fd, 0, os.SEEK_END)
        while data:
            data = data[os.write(self._fd, data) :]
        self._pieces, self._held = [], 0

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_unnamed(folder: Path) -> int:
    path = folder / f"spool-{os.urandom(8).hex()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):
        path.unlink()
    return fd
