"""What running processes keep from being removed: names of blobs and snapshots.

    ROOT/lock               held shared while something is looked for and held, exclusively while things are moved away
    ROOT/tmp/PROCESS/.held  names, one a line, only ever appended to; they count as long as the process lives

A name is written before what it names is relied on, and nothing is let go before the end: what a build has looked at
once, it may come back to. So whoever removes things needs no build to be over, and no clock tells it what is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from registry.content.paths import NO_SPACE
from registry.errors import StoreFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = ".lock"
"""In the folder of a process, and locked by it for as long as it lives."""

_HELD_NAME = ".held"


class Holds:
    """What one process holds. Used from many threads, and by the children of the process.

    Args:
        lock: the lock of the store.
        folder: of the process.
    """

    def __init__(self, lock: Path, folder: Path) -> None:
        self._lock = lock
        self._known: set[str] = set()
        self._file = os.open(folder / _HELD_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def hold(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Keep what has this name until the process ends; nothing is removed during the block.

        Raises:
            StoreFullError: there is no room to write it down.
        """
        return contextlib.nullcontext() if name in self._known else self._hold(name)

    def close(self) -> None:
        """Close the list. The process counts as alive until its own lock is gone."""
        os.close(self._file)

    @contextlib.contextmanager
    def _hold(self, name: str) -> Iterator[None]:
        with locked(self._lock, fcntl.LOCK_SH):
            self._note(name.encode() + b"\n")
            yield
        self._known.add(name)

    def _note(self, line: bytes) -> None:
        try:
            os.write(self._file, line)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise StoreFullError(str(self._lock.parent), os.strerror(error.errno)) from error


@contextlib.contextmanager
def locked(path: Path, kind: int) -> Iterator[None]:
    """Hold a lock of flock(2) for the time of the block."""
    # A descriptor each, since threads that share one share its lock.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


def list_held(folder: Path) -> set[str]:
    """List what the living processes with a folder in *folder* hold."""
    held: set[str] = set()
    for name in os.listdir(folder):
        if is_alive(folder / name):
            held |= list_held_by(folder / name)
    return held


def list_held_by(process: Path) -> set[str]:
    """List what the process with this folder holds, or held before it died."""
    try:
        return set((process / _HELD_NAME).read_text(encoding="utf-8").splitlines())
    except OSError:  # it is gone, or another user's
        return set()


def is_alive(process: Path) -> bool:
    """Tell whether the process with this folder lives. One of another user counts as living."""
    try:
        lock = os.open(process / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
