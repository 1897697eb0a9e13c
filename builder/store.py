"""The store: everything pybuild keeps, under one root.

    ROOT/images/        an OCI image layout
    ROOT/snapshots/     one folder a layer tree, named by the hex of its chain_id
    ROOT/mounts/        directories of RUN --mount=type=cache (builder.solve.cache_mounts)
    ROOT/state.db       cache records, layer trees, fingerprints
    ROOT/tmp/           one folder a process for everything unfinished; swept when its owner is gone
    ROOT/turns/         locks of what is being made (builder.cache.turns)
    ROOT/reserve        bytes that are given back before things are deleted from a store on a full disk
    ROOT/lock           held shared by every process that uses the store, exclusively while things are deleted

Many processes use one root at the same time. A process's folder in `tmp/` holds a lock file that it keeps locked, so
that others can tell whether it still lives.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from builder.cache.state import State
from builder.cache.turns import sweep_turns
from builder.errors import StoreError
from builder.image.layer_index import LayerIndex
from registry.content.layout import ImageLayout
from registry.content.local import LocalBlobStore
from registry.content.paths import NO_SPACE
from registry.errors import StoreFullError
from runtime.errors import KernelError
from runtime.paths import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime.snapshots.snapshotter import Snapshotter

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Names the present boot. Source: proc(5)."""

LOCK_NAME = ".lock"
RESERVE_NAME = "reserve"
RESERVE_SIZE = 1 << 20
"""Bytes kept back: on a disk without any, neither the database nor the list of images can be changed, so nothing could
be deleted either."""

_CALLS_ON_DISK = frozenset({"copy", "link", "mkdir", "mknodat", "open", "read", "rename", "unlink", "unpack", "write"})
"""Calls that find a disk full; ENOSPC of others means a limit on mounts or namespaces."""

_UNLOCKED_GRACE = 3600.0
"""Seconds after which a folder whose owner died before it could lock it is swept."""


class Store:
    """An open store; close it when done.

    Args:
        root: its folder, made if missing.
        warn: told about damage that was mended.
        deletes: it is opened to delete things, so it gives up its reserve.

    Raises:
        StoreError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, *, warn: Callable[[str], None] | None = None, deletes: bool = False) -> None:
        self.root = root
        try:
            for name in ("images", "snapshots", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True)
            self._use = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._use, fcntl.LOCK_SH)
            self.temporary, self._lock = self._enter()
        except OSError as error:
            raise StoreError(
                f"store cannot be used, {os.strerror(error.errno or errno.EIO)}: `{error.filename or root}`",
                hint="choose another folder with --root or PYBUILD_ROOT"
                if error.errno not in NO_SPACE
                else f"make room below {root}, or choose another folder with --root or PYBUILD_ROOT",
            ) from error
        if deletes:
            give_up_reserve(root)
        else:
            _make_reserve(root / RESERVE_NAME)
        self.state = State(root / "state.db", on_reset=warn)
        self.index = LayerIndex(self.state)
        self.layout = ImageLayout(root / "images")
        self.blobs = LocalBlobStore(root / "images", temporary=self.temporary, removes_damaged=True)

    def _enter(self) -> tuple[Path, int]:
        """Make a locked folder for this process, of the reserve if need be."""
        try:
            return _make_own_folder(self.root / "tmp")
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            give_up_reserve(self.root)
            return _make_own_folder(self.root / "tmp")

    @cached_property
    def snapshots(self) -> Snapshotter:
        """The unpacked layers."""
        from runtime.snapshots.overlay import Snapshots  # noqa: PLC0415  a build that is cached has no use for them

        return Snapshots(self.root / "snapshots", self.temporary)

    @cached_property
    def passing_blobs(self) -> LocalBlobStore:
        """Blobs that are gone when this process is: on their way to or from somewhere else."""
        return LocalBlobStore(self.temporary / "passing", temporary=self.temporary)

    def copy_snapshots(self) -> None:
        """Show the unpacked layers by copies from now on, for places where overlay cannot be mounted."""
        from runtime.snapshots.copies import CopiedSnapshots  # noqa: PLC0415  as above

        self.snapshots = CopiedSnapshots(self.root / "snapshots", self.temporary)

    @contextlib.contextmanager
    def telling_when_full(self) -> Iterator[None]:
        """Say that the store is full where a block fails for want of space in it.

        Raises:
            StoreFullError: no space or quota is left.
        """
        try:
            yield
        except OSError as error:
            is_elsewhere = isinstance(error, KernelError) and error.call not in _CALLS_ON_DISK
            if error.errno not in NO_SPACE or is_elsewhere:
                raise
            raise StoreFullError(str(self.root), os.strerror(error.errno)) from error

    def before_fork(self) -> None:
        """Let go of what must not be carried into another process."""
        self.state.close()

    def close(self) -> None:
        """Close the database and remove this process's unfinished work. Idempotent."""
        self.state.close()
        if self._lock >= 0:
            remove_folder(self.temporary)
            os.close(self._lock)
            os.close(self._use)
            self._lock = -1

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Keep other processes out for the time of the block; gives False, and does not, while some are in."""
        try:
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._use, fcntl.LOCK_SH)  # a failed conversion may have lost the shared lock
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._use, fcntl.LOCK_SH)

    def sweep(self) -> None:
        """Remove the unfinished work of processes that are gone, and snapshots that a crash may have torn.

        Some of it belongs to sub-ids, so this works fully only inside the namespace; what cannot be removed stays
        for the next one who can.
        """
        self._drop_snapshots_of_other_boots()
        sweep_turns(self.root)
        folder = self.root / "tmp"
        for name in os.listdir(folder):
            path = folder / name
            if path != self.temporary and _is_abandoned(path):
                remove_folder(path)

    def _drop_snapshots_of_other_boots(self) -> None:
        """Remove snapshots unless this boot made them: they are not synced, and can be made again from blobs."""
        try:
            boot = BOOT_ID.read_bytes()
        except OSError:
            return
        with open(self.root / "snapshots" / ".boot", "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if file.read() == boot:
                return
            for name in self.snapshots.names():
                self.snapshots.remove(name)
            file.truncate(0)
            file.write(boot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def give_up_reserve(root: Path) -> None:
    """Make some room for the writes that deleting needs; the next process that has room keeps it anew."""
    with contextlib.suppress(OSError):
        (root / RESERVE_NAME).unlink(missing_ok=True)


def _make_reserve(path: Path) -> None:
    """Keep bytes back, unless they are already or there is no room."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.posix_fallocate(fd, 0, RESERVE_SIZE)
    except OSError:
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _make_own_folder(parent: Path) -> tuple[Path, int]:
    """Make a locked folder; it gets its final name only once it is locked."""
    name = f"{os.getpid()}-{os.urandom(4).hex()}"
    unlocked = parent / f".new-{name}"
    unlocked.mkdir(mode=0o711)
    lock = os.open(unlocked / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return unlocked.rename(parent / name), lock


def _is_abandoned(path: Path) -> bool:
    if path.name.startswith(".new-"):
        try:
            return time.time() - path.stat().st_mtime > _UNLOCKED_GRACE
        except FileNotFoundError:
            return False
    try:
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def remove_folder(path: Path) -> None:
    """Remove a folder and all below it, as far as this process may; what is missing already is no error."""
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            remove_tree(parent, os.fsencode(path.name))
    finally:
        os.close(parent)
