"""Directories that outlive builds: `RUN --mount=type=cache`.

A *cache* is found by its key: id, namespace, seed and owner. It has one tree, or more when several steps want one for
themselves at the same time.

    ROOT/mounts/KEY/tree-N/     what a step sees; N is 0 but for private caches that were in use
    ROOT/mounts/KEY/lock-N      held shared by the users of tree-N, exclusively by one that wants it alone
    ROOT/mounts/KEY/create      held while a tree is made
    ROOT/mounts/KEY/id          the id, for people

Locks are those of flock(2), so they hold between processes and go with them.

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
from builder.solve.filesystem import snapshot_name
from builder.store import remove_folder
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
        folder.mkdir(parents=True, exist_ok=True)
        lock, number = self._lock(folder, sharing)
        try:
            tree = folder / f"tree-{number}"
            with _locked(folder / "create"):
                if renew:
                    self._discard(tree)
                if not tree.exists():
                    (folder / "id").write_text(name, encoding="utf-8", errors="surrogateescape")
                    self._make(tree, fill)
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
            lock = os.open(folder / f"lock-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                if sharing == "private":
                    number += 1
                    continue
                if self._is_canceled():
                    raise BuildError("canceled while waiting for a cache mount") from None
                time.sleep(_RETRY_SECONDS)
                continue
            return lock, number

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


def cache_mounts(root: Path) -> tuple[Path, ...]:
    """List the folders of the caches of a store."""
    with contextlib.suppress(FileNotFoundError):
        return tuple(sorted((root / FOLDER).iterdir()))
    return ()


def remove_cache_mounts(root: Path) -> int:
    """Remove the caches of a store, which nobody may use meanwhile; return how many there were."""
    caches = cache_mounts(root)
    for cache in caches:
        remove_folder(cache)
    return len(caches)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
