"""Snapshots: the trees of layers on disk, in overlay form, and the mounts that show chains of them.

A committed snapshot is the tree of one layer, as overlay wants it in a `lowerdir`: deletions are character devices 0:0,
emptied directories carry `user.overlay.opaque`. Chains are lists of names, base first. An active snapshot is an upper
directory that something is still written to.

    ROOT/NAME/               a committed snapshot; NAME is the hex of the chain_id
    TEMPORARY/snapshot-*/    an active one: upper/ and work/
    TEMPORARY/removed-*/     one that is being removed

Overlay is always mounted with `userxattr`, also by real root: a tree that was written under one name of the attributes
reads wrongly under the other.

Source: linux/Documentation/filesystems/overlayfs.rst; mount(2), fsconfig in linux/fs/fsopen.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.errors import KernelError
from runtime.mounts import attach, clone_mount, create_mount, open_path
from runtime.paths import remove_tree
from runtime.syscalls import AT_FDCWD, MNT_DETACH, MOUNT_ATTR_RDONLY, MS_RDONLY, mount, umount2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_BLOCK: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """A snapshot that is being written.

    Attributes:
        upper: what becomes the committed tree; `upperdir` of the overlay.
        work: for overlay alone; `workdir`.
    """

    upper: Path
    work: Path


class Snapshots:
    """The committed and active snapshots of one store. Many processes may share it.

    Args:
        root: holds the committed ones; made if missing.
        temporary: on the same file system, for what is unfinished; made if missing.
    """

    def __init__(self, root: Path, temporary: Path) -> None:
        self._root = root
        self._temporary = temporary

    def has(self, name: str) -> bool:
        """Tell whether a snapshot is committed."""
        return self.path(name).is_dir()

    def path(self, name: str) -> Path:
        """Return where a committed snapshot lies, or would lie."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"not the name of a snapshot: {name!r}")
        return self._root / name

    def names(self) -> tuple[str, ...]:
        """Return the names of all committed snapshots, sorted."""
        with contextlib.suppress(FileNotFoundError):
            return tuple(sorted(name for name in os.listdir(self._root) if not name.startswith(".")))
        return ()

    def lowers(self, names: Iterable[str]) -> tuple[Path, ...]:
        """Return where the snapshots of a chain lie, base first as the names."""
        return tuple(self.path(name) for name in names)

    def prepare(self, lowers: Sequence[Path] = ()) -> Active:
        """Begin a snapshot on a chain.

        The root directory of an overlay shows the metadata of the upper one, so that of the topmost lower is copied.

        Args:
            lowers: the chain, base first; empty for a first layer, whose root is 0755.

        Raises:
            KernelError: the store cannot be written.
        """
        with _naming("mkdir", self._temporary):
            directory = self._make_temporary("snapshot")
            active = Active(upper=directory / "upper", work=directory / "work")
            os.mkdir(active.upper, 0o700)
            os.mkdir(active.work, 0o700)
            if lowers:
                _copy_root_metadata(lowers[-1], active.upper)
            else:
                os.chmod(active.upper, 0o755)  # noqa: S103 - the root directory of an image is for everybody
        return active

    def commit(self, active: Active, name: str) -> None:
        """Make an active snapshot visible under its name; *active* is gone afterwards.

        Others see nothing or the whole tree. If the name is taken, by this or another process, the tree there stays and
        the active one is discarded: equal names mean equal content. Nothing is synced to disk: a tree that a power
        failure tore can be made again from its layers.

        Raises:
            KernelError: the store cannot be written.
        """
        target = self.path(name)
        with _naming("rename", target):
            if not self.has(name):
                os.makedirs(self._root, exist_ok=True)
                try:
                    os.rename(active.upper, target)
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
        self.discard(active)

    def discard(self, active: Active) -> None:
        """Remove an active snapshot. Idempotent.

        Raises:
            KernelError: something could not be removed.
        """
        _remove(active.upper.parent)

    def remove(self, name: str) -> None:
        """Remove a committed snapshot, which no mount may use any more. Idempotent; others never see half of it.

        Raises:
            KernelError: something could not be removed.
        """
        with _naming("rename", self.path(name)):
            doomed = self._make_temporary("removed")
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path(name), doomed / "tree")
        _remove(doomed)

    def size(self, name: str) -> int:
        """Return the bytes that a committed snapshot takes on disk, hard links once.

        Raises:
            KernelError: the snapshot is missing or cannot be read.
        """
        with _naming("read", self.path(name)):
            return _disk_size(os.fsencode(self.path(name)))

    @contextmanager
    def mount_view(self, names: Sequence[str], target: Path) -> Iterator[Path]:
        """Mount a committed chain read-only on *target*, in this mount namespace, until the block ends.

        Args:
            names: the chain, base first; at least one.
            target: an existing directory.

        Raises:
            KernelError: the kernel refused the mount.
        """
        lowers = self.lowers(names)
        if len(lowers) == 1:  # overlay wants two, and a first layer holds no marks that need reading
            _bind(lowers[0], target, read_only=True)
        else:
            _mount_overlay(lowers, None, target)
        with _mounted(target):
            yield target

    @contextmanager
    def mount_active(self, lowers: Sequence[Path], active: Active, target: Path) -> Iterator[Path]:
        """Mount an active snapshot over a chain on *target*, in this mount namespace, until the block ends.

        For applying layers and other changes from outside a sandbox. An active snapshot can be mounted once: `volatile`
        spares the sync of the whole file system at the end, and the kernel refuses the work directory afterwards.

        Args:
            lowers: the chain, base first; if empty the upper directory itself appears.
            active: takes the changes.
            target: an existing directory.

        Raises:
            KernelError: the kernel refused the mount.
        """
        if lowers:
            _mount_overlay(lowers, active, target)
        else:
            _bind(active.upper, target, read_only=False)
        with _mounted(target):
            yield target

    def _make_temporary(self, prefix: str) -> Path:
        os.makedirs(self._temporary, exist_ok=True)
        directory = self._temporary / f"{prefix}-{os.urandom(8).hex()}"
        os.mkdir(directory, 0o700)
        return directory


def _copy_root_metadata(source: Path, target: Path) -> None:
    status = os.stat(source)
    own = os.stat(target)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove(directory: Path) -> None:
    with _naming("unlink", directory):
        fd = os.open(directory.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, os.fsencode(directory.name))
        finally:
            os.close(fd)


def _disk_size(top: bytes) -> int:
    total = os.lstat(top).st_blocks
    seen: set[int] = set()
    pending = [top]
    while pending:
        with os.scandir(pending.pop()) as children:
            for child in children:
                status = child.stat(follow_symlinks=False)
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                total += status.st_blocks
                if stat.S_ISDIR(status.st_mode):
                    pending.append(child.path)
    return total * _BLOCK


@contextmanager
def _naming(call: str, subject: Path) -> Iterator[None]:
    try:
        yield
    except KernelError:
        raise
    except OSError as error:
        found = error.filename
        name = found.decode(errors="backslashreplace") if isinstance(found, bytes) else str(found or subject)
        raise KernelError(call, error.errno or 0, subject=name) from error


@contextmanager
def _mounted(target: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # A descriptor that a caller forgot would make a plain umount fail; the mount then goes with the descriptor.
        umount2(os.fsencode(target), MNT_DETACH)


def _mount_overlay(lowers: Sequence[Path], active: Active | None, target: Path) -> None:
    """Mount an overlay of *lowers*, base first; read-only if there is no *active*."""
    with ExitStack() as stack:
        # By descriptor: option values are short, and colons and commas in paths mean something.
        layers = [_descriptor_path(lower, stack) for lower in reversed(lowers)]
        rest = ["userxattr"]
        if active is not None:
            rest += [
                f"upperdir={_descriptor_path(active.upper, stack)}",
                f"workdir={_descriptor_path(active.work, stack)}",
                "volatile",
            ]
        try:
            options = (*(f"lowerdir+={layer}" for layer in layers), *rest)
            tree = create_mount("overlay", options, attributes=0 if active is not None else MOUNT_ATTR_RDONLY)
            stack.callback(os.close, tree)
            _attach(tree, target)
        except KernelError as error:
            # Kernels before 6.8 lack lowerdir+, before 5.2 fsopen; seccomp profiles refuse either.
            if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EPERM}:
                raise
            text = ",".join((f"lowerdir={':'.join(layers)}", *rest))
            try:
                mount("overlay", os.fsencode(target), "overlay", 0 if active is not None else MS_RDONLY, text)
            except KernelError as second:
                raise second from error


def _descriptor_path(path: Path, stack: ExitStack) -> str:
    fd = open_path(path, os.O_DIRECTORY)
    stack.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"


def _attach(tree: int, target: Path) -> None:
    fd = open_path(target, os.O_DIRECTORY)
    try:
        attach(tree, fd)
    finally:
        os.close(fd)


def _bind(source: Path, target: Path, *, read_only: bool) -> None:
    tree = clone_mount(AT_FDCWD, os.fspath(source), attributes=MOUNT_ATTR_RDONLY if read_only else 0)
    try:
        _attach(tree, target)
    finally:
        os.close(tree)
