"""Snapshots by overlay: an active one is an upper directory, a chain is shown by a mount.

Overlay is always mounted with `userxattr`, also by real root: a tree that was written under one name of the attributes
reads wrongly under the other.

Source: linux/Documentation/filesystems/overlayfs.rst; mount(2), fsconfig in linux/fs/fsopen.c.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from runtime.errors import KernelError
from runtime.layers.whiteouts import mark_opaque
from runtime.mounts import attach, check_depth, clone_mount, create_mount, open_path
from runtime.snapshots.committed import CommittedSnapshots, copy_root_metadata, naming, remove_directory
from runtime.snapshots.snapshotter import Active
from runtime.stubs import make_skeleton
from runtime.syscalls import AT_FDCWD, MNT_DETACH, MOUNT_ATTR_RDONLY, MS_RDONLY, mount, umount2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runtime.snapshots.committed import Hold


_LEFT_BY_OVERLAY: Final = ("/work/work/incompat/volatile", "/work/work/incompat", "/work/work", "/work")
"""What there is beside the upper directory after a mount, in the order in which it can be removed."""


class Snapshots(CommittedSnapshots):
    """The committed and active snapshots of one store. Works only inside a mount namespace."""

    def __init__(self, root: Path, temporary: Path, *, hold: Hold | None = None) -> None:
        super().__init__(root, temporary, hold=hold)
        self._guard = threading.Lock()
        self._skeleton: Path | None = None

    def prepare(self, lowers: Sequence[Path] = ()) -> Active:
        """Begin a snapshot on a chain.

        The root directory of an overlay shows the metadata of the upper one, so that of the topmost lower is copied.

        Args:
            lowers: the chain, base first; empty for a first layer, whose root is 0755.

        Raises:
            KernelError: the store cannot be written.
        """
        with naming("mkdir", self.temporary):
            directory = self.make_temporary("snapshot")
            skeleton = self._find_skeleton() if lowers else None
            active = Active(upper=directory / "upper", work=directory / "work", skeleton=skeleton)
            os.mkdir(active.upper, 0o700)
            os.mkdir(active.work, 0o700)
            if lowers:
                copy_root_metadata(lowers[-1], active.upper)
            else:
                os.chmod(active.upper, 0o755)  # noqa: S103 - the root directory of an image is for everybody
        return active

    def _find_skeleton(self) -> Path:
        """Give the one that all steps share."""
        with self._guard:
            if self._skeleton is None:
                self._skeleton = make_skeleton(self.make_temporary("skeleton") / "root")
            return self._skeleton

    @contextmanager
    def writable(self, lowers: Sequence[Path], active: Active) -> Iterator[Path]:
        """Show an active snapshot over its chain for writing; see `Snapshotter`.

        Raises:
            KernelError: the kernel refused the mount.
        """
        if not lowers:
            yield active.upper
            return
        with self._mount_point() as target, self.mount_active(lowers, active, target):
            yield target

    def settle(self, active: Active) -> None:
        """Do nothing: an overlay keeps changes where they belong."""

    @contextmanager
    def reopened(self, lowers: Sequence[Path], active: Active) -> Iterator[tuple[tuple[Path, ...], Active]]:
        """Give chain and snapshot for one more step; see `Snapshotter`.

        What was an upper directory can be mounted as a lower one, though never again as an upper.

        Raises:
            KernelError: the store cannot be written.
        """
        chain = (*lowers, active.upper)
        above = self.prepare(chain)
        try:
            yield chain, above
        finally:
            self.discard(above)

    def commit(self, active: Active, name: str) -> None:
        """Make an active snapshot visible under its name; *active* is gone afterwards. See `adopt`.

        Raises:
            KernelError: the store cannot be written.
        """
        self.adopt(active.upper, name)
        self.discard(active)

    def discard(self, active: Active) -> None:
        """Remove an active snapshot. Idempotent.

        Raises:
            KernelError: something could not be removed.
        """
        directory = os.fspath(active.upper.parent)
        for left in _LEFT_BY_OVERLAY:
            with suppress(OSError):
                os.rmdir(directory + left)
        try:
            os.rmdir(directory)
        except OSError:  # there is more in it, or nothing
            remove_directory(active.upper.parent)

    @contextmanager
    def view(self, names: Sequence[str]) -> Iterator[Path]:
        """Show a committed chain for reading; see `Snapshotter`.

        Raises:
            KernelError: the kernel refused the mount.
        """
        with self._mount_point() as target:
            if not names:
                yield target
                return
            with self.mount_view(names, target):
                yield target

    @contextmanager
    def _mount_point(self) -> Iterator[Path]:
        target = self.make_temporary("mount")
        try:
            yield target
        finally:
            target.rmdir()

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


@contextmanager
def _mounted(target: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # A descriptor that a caller forgot would make a plain umount fail; the mount then goes with the descriptor.
        umount2(os.fsencode(target), MNT_DETACH)


def _mount_overlay(lowers: Sequence[Path], active: Active | None, target: Path) -> None:
    """Mount an overlay of *lowers*, base first; read-only if there is no *active*."""
    check_depth(lowers)
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


def takes_upper(folder: Path) -> bool:
    """Tell whether overlay takes directories of *folder* as upper and work, and can do in them all that it has to.

    The directories of an overlay it does not take. Where files have no attributes, as on a tmpfs before Linux 6.6, it
    takes them, but making a directory where another one was is then an input/output error. Works only inside a mount
    namespace.

    Raises:
        OSError: *folder* cannot be written.
    """
    snapshots = Snapshots(folder, folder)
    lower, active = snapshots.prepare(), snapshots.prepare()
    try:
        if not _takes_attributes(lower.upper):
            return False
        with snapshots.writable((lower.upper,), active):
            return True
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    finally:
        snapshots.discard(lower)
        snapshots.discard(active)


def _takes_attributes(directory: Path) -> bool:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mark_opaque(fd)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    finally:
        os.close(fd)
    return True


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
