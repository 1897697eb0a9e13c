"""Doing once what several builds want at the same time.

A *turn* is the right to make what a name stands for: the layer of a cache key, or of an operation whose key is not
known before, the snapshot of a chain_id. Who wants it while another thread or process has it waits, and then looks for
what was made; if the other failed, or was killed, it makes it itself. Locks are those of flock(2), so a turn ends with
its process, and needs no clock to tell that it did.

    ROOT/turns/NAME     locked by who has the turn; removed by the same, or by the next sweep

Nobody waits in a circle, within a process or between several. Whatever a thread waits for while it holds something has
a higher rank than all that it holds:

    1. the turn of a vertex, taken when all its inputs are solved; a thread has one at a time, and gives that of an
       operation back before it takes that of a key
    2. cache mounts, taken by a step in the order of their keys, and the making of their trees
    3. the turn of a snapshot, one at a time and given back before the next
    4. the turn of fetching a base image

Who has the turn of fetching waits for the network alone; who has that of a snapshot reads blobs, and waits for who
fetches; who has cache mounts waits for who unpacks; who has the turn of a vertex waits for steps, which hold mounts and
end by themselves. What a vertex needs of others is solved before its turn is asked for, so no holder depends on somebody
who waits, and one thread that can go on is always there. A step that began before its key was known
(`builder.solve.schedule`) gets its turn from who makes the layer below it, while that one still has the turn of that
layer, and only if nobody has it: so two turns are held, and neither was waited for meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading

from builder.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Final

FOLDER: Final = "turns"
"""Name of the folder in the store."""

_RETRY_SECONDS: Final = 0.05


class Turns:
    """The turns of one store. Used from many threads and processes.

    Args:
        root: the folder of the store.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._canceled = threading.Event()

    def cancel(self) -> None:
        """Let nobody of this object wait any more, now or later."""
        self._canceled.set()

    @contextlib.contextmanager
    def taken(self, name: str, *, tell: Callable[[], None] | None = None) -> Iterator[None]:
        """Have the turn of a name for the time of the block.

        Where the store cannot hold the lock, because the disk is full for example, the block runs without: the worst
        that comes of it is that something is made twice.

        Args:
            name: fit for a file name.
            tell: called once if somebody else has it.

        Raises:
            BuildError: the build was canceled while waiting.
        """
        path = self._folder / name
        lock = self._take(path, tell)
        try:
            yield
        finally:
            _give_back(path, lock)

    def take_if_free(self, name: str) -> contextlib.ExitStack:
        """Take the turn of a name unless somebody has it, without waiting; what is returned gives it back when closed."""
        held = contextlib.ExitStack()
        path = self._folder / name
        with contextlib.suppress(OSError):  # somebody has it, or the store cannot hold it
            path.parent.mkdir(exist_ok=True)
            held.callback(_give_back, path, _try_lock(path))
        return held

    def _take(self, path: Path, tell: Callable[[], None] | None) -> int | None:
        while True:
            try:
                lock = _try_lock(path)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    path.parent.mkdir()
                continue
            except BlockingIOError:
                if tell is not None:
                    tell()
                    tell = None
                if self._canceled.wait(_RETRY_SECONDS):
                    raise BuildError("canceled while waiting for another build") from None
                continue
            except OSError:
                return None
            if lock is not None:
                return lock


def _give_back(path: Path, lock: int | None) -> None:
    if lock is not None:
        # Removed first: who opened it before gets a lock on a file without a name, and looks again.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(lock)


def _try_lock(path: Path) -> int | None:
    """Lock a file; None if it lost its name to who had it before.

    Raises:
        BlockingIOError: somebody has it.
        OSError: it cannot be made.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _has_name(lock, path):
            return lock
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _has_name(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def sweep_turns(root: Path) -> None:
    """Remove the files of turns whose processes were killed."""
    with contextlib.suppress(OSError):
        for path in (root / FOLDER).iterdir():
            with contextlib.suppress(OSError):
                lock = _try_lock(path)
                if lock is not None:
                    path.unlink()
                    os.close(lock)
