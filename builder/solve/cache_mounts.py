"""Directories that outlive builds: `RUN --mount=type=cache`.

A *cache* is found by its key: id, namespace, seed and owner. It has one tree, or more when several steps want one for
themselves at the same time.

    ROOT/mounts/KEY/tree-N/     what a step sees; N is 0 but for private caches that were in use
    ROOT/mounts/KEY/lock-N      held shared by the users of tree-N, exclusively by one that wants it alone
    ROOT/mounts/KEY/create      held while a tree is made, and while the cache is removed
    ROOT/mounts/KEY/id          the id, for people

Locks are those of flock(2), so they hold between processes and go with them. The time stamp of lock-N says when tree-N
was last used. A cache is removed by who holds all its locks; who waits for one meanwhile finds it gone, and begins anew.

Source: Dockerfile reference, RUN --mount=type=cache; BuildKit, solver/llbsolver/mounts/mount.go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from builder.cache.key import derive_key
from builder.dockerfile.mounts import CacheMount
from builder.errors import BuildError
from builder.holds import locked
from builder.solve.filesystem import snapshot_name
from builder.store import remove_folder
from registry.value import frozen
from runtime.ownership import Owners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from builder.cache.key import Ingredient
    from builder.dockerfile.mounts import Sharing
    from builder.plan.graph import RunCommand
    from builder.solve.filesystem import FileSystem

FOLDER = "mounts"
"""Name of the folder of caches in the store."""

_RETRY_SECONDS = 0.05


class PlannedCache(NamedTuple):
    """A cache mount with what makes its cache another one: namespace and seed, None for an empty beginning."""

    mount: CacheMount
    namespace: str
    seed: FileSystem | None

    @property
    def id(self) -> str:
        """What people call it."""
        return self.mount.id or self.mount.target

    @property
    def has_own_mode(self) -> bool:
        """Whether mode or owner are given and count, which they do not for a part of a seed."""
        given = (self.mount.mode, self.mount.uid, self.mount.gid) != (None, None, None)
        return given and not self.mount.source.strip("/")

    @property
    def key(self) -> str:
        """The key of its cache in the store, as seen from this namespace."""
        # What was made under another map of ids has owners that do not exist here.
        form = (("owners", "recorded"),) if Owners.here().recorded else ()
        return derive_key((*self._ingredients(), *form))

    @property
    def moved_key(self) -> str:
        """The key of its content in an exported cache, which has true owners."""
        return derive_key((("moved", "cache mount"), *self._ingredients()))

    def _ingredients(self) -> tuple[Ingredient, ...]:
        seed = "" if self.seed is None else f"{snapshot_name(self.seed) if self.seed else ''}:{self.mount.source}"
        owner = f"{self.mount.mode}:{self.mount.uid}:{self.mount.gid}" if self.has_own_mode else ""
        return ("namespace", self.namespace), ("id", self.id), ("seed", seed), ("owner", owner)


def planned_caches(op: RunCommand, sources: Sequence[FileSystem]) -> Iterator[PlannedCache]:
    """Give the cache mounts of a command, in their order; *sources* are the file systems its mounts read from."""
    for planned in op.mounts:
        if isinstance(planned.mount, CacheMount):
            seed = None if planned.source is None else sources[planned.source]
            yield PlannedCache(planned.mount, planned.namespace, seed)


class CacheMounts:
    """The caches of one store. Used from many threads and processes.

    Args:
        root: the folder of the store.
        temporary: on the same file system, for what is unfinished.
        is_canceled: asked while waiting.
    """

    def __init__(self, root: Path, temporary: Path, is_canceled: Callable[[], bool]) -> None:
        self._folder = root / FOLDER
        self._temporary = temporary
        self._is_canceled = is_canceled

    @contextlib.contextmanager
    def hold(
        self, key: str, name: str, sharing: Sharing, *, fill: Callable[[Path], None], renew: bool = False
    ) -> Iterator[Path]:
        """Give the tree of a cache for the time of the block.

        Args:
            key: of the cache, fit for a file name.
            name: its id, for people.
            sharing: `shared` with other shared users, `locked` waits to be alone, `private` takes another tree.
            fill: gives a new tree its owner, mode and content.
            renew: replace the tree by a new one; whoever uses it keeps the old one.

        Raises:
            BuildError: the build was canceled while waiting.
            OSError: the store cannot be written.
        """
        folder = self._folder / key
        is_there = False
        while not is_there:
            lock, number = self._lock(folder, sharing)
            try:
                tree = folder / f"tree-{number}"
                with _making(folder, lock, number) as is_there:
                    if is_there and renew:
                        self._discard(tree)
                    if is_there and not tree.exists():
                        (folder / "id").write_text(name, encoding="utf-8", errors="surrogateescape")
                        self._make(tree, fill)
                if is_there:
                    yield tree
            finally:
                os.close(lock)

    @contextlib.contextmanager
    def read(self, key: str) -> Iterator[Path | None]:
        """Give the first tree of a cache for reading, None if there is none. Those who share it may change it meanwhile.

        Raises:
            BuildError: somebody has it alone now.
            OSError: it cannot be opened.
        """
        folder = self._folder / key
        try:
            lock = os.open(folder / "lock-0", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BuildError("another build has it for itself") from None
            tree = folder / "tree-0"
            yield tree if tree.exists() else None
        finally:
            os.close(lock)

    def _lock(self, folder: Path, sharing: Sharing) -> tuple[int, int]:
        """Lock a tree; return the descriptor that holds the lock, and the number of the tree."""
        number = 0
        kind = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
        while True:
            try:
                lock = _try_lock(folder / f"lock-{number}", kind)
            except FileNotFoundError:
                folder.mkdir(parents=True, exist_ok=True)
                continue
            if lock is not None:
                os.utime(lock)
                return lock, number
            if sharing == "private":
                number += 1
                continue
            if self._is_canceled():
                raise BuildError("canceled while waiting for a cache mount") from None
            time.sleep(_RETRY_SECONDS)

    def _make(self, tree: Path, fill: Callable[[Path], None]) -> None:
        unfinished = self._temporary / f"cache-{secrets.token_hex(8)}"
        unfinished.mkdir(mode=0o755)
        try:
            fill(unfinished)
            unfinished.rename(tree)
        except BaseException:
            remove_folder(unfinished)
            raise

    def _discard(self, tree: Path) -> None:
        doomed = self._temporary / f"removed-{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            tree.rename(doomed)
            remove_folder(doomed)


@frozen
class StoredCache:
    """A cache as it lies on disk: its *key*, its *id* for people, and when it was last *used*, in nanoseconds."""

    key: str
    id: str
    used: int


def list_caches(root: Path) -> tuple[StoredCache, ...]:
    """List the caches of a store, sorted by key."""
    try:
        keys = sorted(os.listdir(root / FOLDER))
    except FileNotFoundError:
        return ()
    return tuple(_describe(root / FOLDER / key) for key in keys)


def lay_cache_aside(root: Path, key: str, target: Path) -> bool:
    """Move a cache to where it is then removed; return False, and leave it, while a step uses it."""
    folder = root / FOLDER / key
    with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
        # Trees are listed with `create` locked: who has a lock by then is seen, who has not finds the cache gone.
        for pattern in ("create", "lock-*"):
            (folder / "create").touch(0o600)
            for path in folder.glob(pattern):
                lock = _try_lock(path, fcntl.LOCK_EX)
                if lock is None:
                    return False
                stack.callback(os.close, lock)
        folder.rename(target)
    return True


@contextlib.contextmanager
def _making(folder: Path, lock: int, number: int) -> Iterator[bool]:
    """Make trees alone; gives False if the cache was removed before the lock of the tree was there to keep it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "create", fcntl.LOCK_EX))
            is_there = os.path.samestat(os.fstat(lock), os.stat(folder / f"lock-{number}"))
        except FileNotFoundError:
            is_there = False
        yield is_there


def _try_lock(path: Path, kind: int) -> int | None:
    """Lock a file, made if missing; return the descriptor that holds the lock, or None while another holds it.

    Raises:
        FileNotFoundError: its folder is gone.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path)):
            return lock
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)  # the cache was removed, and made again by another
    return _try_lock(path, kind)


def _describe(folder: Path) -> StoredCache:
    name, used = "", 0
    with contextlib.suppress(OSError):  # it is being made, or removed
        used = max((path.lstat().st_mtime_ns for path in folder.glob("lock-*")), default=0)
        name = (folder / "id").read_text(encoding="utf-8", errors="surrogateescape")
    return StoredCache(key=folder.name, id=name, used=used)
