"""The store: everything pybuild keeps, under one root.

    ROOT/images/        an OCI image layout
    ROOT/snapshots/     one folder a layer tree, named by the hex of its chain_id
    ROOT/mounts/        directories of RUN --mount=type=cache (builder.solve.cache_mounts)
    ROOT/state.db       cache records, layer trees, fingerprints
    ROOT/tmp/           one folder a process for everything unfinished; swept when its owner is gone
    ROOT/turns/         locks of what is being made (builder.cache.turns)
    ROOT/reserve        bytes that are given back before things are deleted from a store on a full disk
    ROOT/lock           taken while things are held and while they are removed (builder.holds)

Many processes use one root at the same time. A process's folder in `tmp/` holds a lock file that it keeps locked, so
that others can tell whether it still lives, and the list of what it holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from functools import cached_property
from pathlib import Path

from builder.cache.state import State
from builder.cache.turns import sweep_turns
from builder.errors import StoreError, UsageError
from builder.holds import LOCK_NAME, Holds, is_alive, list_held, list_held_by, locked
from registry.content.layout import ImageLayout
from registry.content.local import LocalBlobStore
from registry.content.paths import NO_SPACE
from registry.errors import StoreFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from builder.image.layer_index import LayerIndex
    from runtime.snapshots.snapshotter import Snapshotter

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Names the present boot. Source: proc(5)."""

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
            self.temporary, self._lock, self._holds = self._enter()
        except OSError as error:
            raise StoreError(
                f"store cannot be used, {os.strerror(error.errno or errno.EIO)}: `{error.filename or root}`",
                hint="choose another folder with --root or PYBUILD_ROOT"
                if error.errno not in NO_SPACE
                else f"make room below {root}, or choose another folder with --root or PYBUILD_ROOT",
            ) from error
        self._deletes = deletes
        if deletes:
            give_up_reserve(root)
        else:
            _make_reserve(root / RESERVE_NAME)
        self.state = State(root / "state.db", on_reset=warn)
        self.layout = ImageLayout(root / "images")
        self.blobs = LocalBlobStore(
            root / "images", temporary=self.temporary, hold=self._holds.hold, removes_damaged=True
        )

    def _enter(self) -> tuple[Path, int, Holds]:
        """Make a locked folder for this process and the list of what it holds, of the reserve if need be."""
        try:
            return self._make_own()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            give_up_reserve(self.root)
            return self._make_own()

    def _make_own(self) -> tuple[Path, int, Holds]:
        folder, lock = _make_own_folder(self.root / "tmp")
        try:
            return folder, lock, Holds(self.root / "lock", folder)
        except BaseException:
            remove_folder(folder)
            os.close(lock)
            raise

    @cached_property
    def index(self) -> LayerIndex:
        """The trees of layers."""
        from builder.image.layer_index import LayerIndex  # noqa: PLC0415  a build that is cached asks for no tree

        return LayerIndex(self.state)

    @cached_property
    def snapshots(self) -> Snapshotter:
        """The unpacked layers."""
        from runtime.snapshots.overlay import Snapshots  # noqa: PLC0415  as above

        return Snapshots(self.root / "snapshots", self.temporary, hold=self._holds.hold)

    @cached_property
    def passing_blobs(self) -> LocalBlobStore:
        """Blobs that are gone when this process is: on their way to or from somewhere else."""
        return LocalBlobStore(self.temporary / "passing", temporary=self.temporary)

    def copy_snapshots(self) -> None:
        """Show the unpacked layers by copies from now on, for places where overlay cannot be mounted."""
        from runtime.snapshots.copies import CopiedSnapshots  # noqa: PLC0415  as above

        self.snapshots = CopiedSnapshots(self.root / "snapshots", self.temporary, hold=self._holds.hold)

    @contextlib.contextmanager
    def telling_when_full(self) -> Iterator[None]:
        """Say that the store is full where a block fails for want of space in it.

        Raises:
            StoreFullError: no space or quota is left.
        """
        try:
            yield
        except OSError as error:
            from runtime.errors import KernelError  # noqa: PLC0415  most builds have room

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
            self._holds.close()
            os.close(self._lock)
            self._lock = -1
            if self._deletes:
                _make_reserve(self.root / RESERVE_NAME)

    def held(self) -> set[str]:
        """List what running processes hold, this one included."""
        return list_held(self.root / "tmp")

    @contextlib.contextmanager
    def removing(self) -> Iterator[set[str]]:
        """Give what running processes hold, for removing other things; nobody can hold more until the block ends."""
        with locked(self.root / "lock", fcntl.LOCK_EX):
            yield self.held()

    def sweep(self) -> set[str]:
        """Remove the unfinished work of processes that are gone, and snapshots that a crash may have torn.

        Some of it belongs to sub-ids, so this works fully only inside the namespace.

        Returns:
            What the processes that are gone held: it may have been finished and never been used.
        """
        self._drop_snapshots_of_other_boots()
        return self.sweep_unfinished()

    def sweep_unfinished(self) -> set[str]:
        """Remove the unfinished work of processes that are gone, as far as this process may; see `sweep`.

        What cannot be removed stays for the next one who can.
        """
        sweep_turns(self.root)
        left: set[str] = set()
        folder = self.root / "tmp"
        for name in os.listdir(folder):
            path = folder / name
            if path != self.temporary and _is_abandoned(path):
                left |= list_held_by(path)
                remove_folder(path)
        return left

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
    """Make some room for the writes that deleting needs; who has room keeps it anew."""
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


def check_root(root: Path) -> Path:
    """Return the root of a store that exists, for who would not make one.

    Raises:
        UsageError: there is none.
        StoreError: it may not be looked into.
    """
    try:
        found = set(os.listdir(root))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"store does not exist: `{root}`", hint="name it with --root or PYBUILD_ROOT") from error
    except OSError as error:
        raise StoreError(
            f"store cannot be used, {os.strerror(error.errno or errno.EIO)}: `{root}`",
            hint="name your own with --root or PYBUILD_ROOT",
        ) from error
    if found and not {"images", "snapshots", "tmp"} <= found:
        raise UsageError(f"folder is no store of pybuild: `{root}`", hint="name one with --root or PYBUILD_ROOT")
    return root


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
    return not is_alive(path)


def remove_folder(path: Path) -> None:
    """Remove a folder and all below it, as far as this process may; what is missing already is no error."""
    with contextlib.suppress(OSError):
        _remove_flat(path)
        return
    from runtime.paths import remove_tree  # noqa: PLC0415  a build that is cached leaves no folder in its own

    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            remove_tree(parent, os.fsencode(path.name))
    finally:
        os.close(parent)


def _remove_flat(path: Path) -> None:
    """Remove a folder that has no folder in it."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(folder):
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)
    path.rmdir()
