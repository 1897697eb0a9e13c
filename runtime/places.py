"""Put files and directories into a tree for the time of a step, and take them out again: mounts for where none can be.

What stood in a place is laid aside and put back afterwards, whatever the step did to what was there instead; so neither
reaches a layer. Places are resolved inside the tree, and then only touched by the descriptor of the directory they are
in. The time stamps of that directory are put back when a place is taken, so a later change is the step's.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime import stubs, syscalls
from runtime.errors import HostUnsupportedError, StepSetupError
from runtime.paths import remove_tree
from runtime.snapshots.copying import Copier, open_directory, path_of
from runtime.syscalls import AT_FDCWD, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A place that is taken.

    Attributes:
        parent: descriptor of the directory it is in.
        name: its name there.
        aside: name of what stood there, among what is laid aside.
        source: of something moved, where it goes back to; else None.
        moved: what it was when it was moved.
    """

    parent: int
    name: bytes
    aside: bytes
    source: Path | None = None
    moved: os.stat_result | None = None


class Places:
    """The places taken in one tree.

    Args:
        tree: the root of the step; nobody else changes it while places are taken or given back.
        aside: an empty directory on the same file system.
    """

    def __init__(self, tree: Path, aside: Path) -> None:
        self._tree = tree
        self.root = syscalls.openat2(AT_FDCWD, os.fspath(tree), _DIRECTORY)
        self.finder = stubs.TargetFinder(self.root, tree)
        self._aside = syscalls.openat2(AT_FDCWD, os.fspath(aside), _DIRECTORY)
        self._taken: list[_Place] = []
        self._copier = Copier()

    def put_directory(self, target: str, mode: int) -> int:
        """Put a new directory somewhere, and return its descriptor.

        Raises:
            StepSetupError: something of another kind is there, or links go in a circle.
            KernelError: the kernel refused.
        """
        with self._taking(target, directory=True) as place:
            os.mkdir(place.name, 0o700, dir_fd=place.parent)
            made = syscalls.openat2(place.parent, place.name, _DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            os.fchmod(made, mode)
            return made

    def put_file(self, target: str, content: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Put a new file somewhere. Raises as `put_directory`."""
        with self._taking(target, directory=False) as place:
            write_file(place.parent, place.name, content, mode=mode, uid=uid, gid=gid)

    def put_copy(self, sources: Sequence[int], target: str) -> None:
        """Put a copy of a file, or of directories laid over one another, somewhere. Raises as `put_directory`.

        Args:
            sources: descriptors of any kind; directories in overlay form, base first, or one file.
            target: where.
        """
        if stat.S_ISDIR(os.fstat(sources[-1]).st_mode):
            made = self.put_directory(target, 0o700)
            for source in sources:
                with open_directory(source, b".") as layer:
                    self._copier.lay_over(layer, made)
            os.close(made)
            return
        with (
            self._taking(target, directory=False) as place,
            open(os.open(path_of(sources[-1]), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file,
        ):
            found = os.fstat(file.fileno())
            mode = stat.S_IMODE(found.st_mode)
            write_file(place.parent, place.name, file.read(), mode=mode, uid=found.st_uid, gid=found.st_gid)
            times = (found.st_atime_ns, found.st_mtime_ns)
            os.utime(place.name, ns=times, dir_fd=place.parent, follow_symlinks=False)

    def put_moved(self, source: Path, target: str) -> None:
        """Move a file or directory somewhere; it is moved back later, if it is still there.

        Raises:
            HostUnsupportedError: it cannot be moved, being elsewhere or there already.
            StepSetupError, KernelError: as `put_directory`.
        """
        try:
            found = os.lstat(source)
        except FileNotFoundError as error:
            raise HostUnsupportedError(
                "one thing in two places of a step without mounts",
                f"the second is `{target}`",
                hint="mount it once, and use a symbolic link",
            ) from error
        with self._taking(target, directory=stat.S_ISDIR(found.st_mode), source=source, moved=found) as place:
            try:
                os.rename(source, place.name, dst_dir_fd=place.parent)
            except OSError as error:
                raise HostUnsupportedError(
                    "mounts", f"`{target}` cannot be moved into place either, {os.strerror(error.errno or 0)}"
                ) from error

    def restore(self) -> None:
        """Give all places back, the last one first, and remove what was made to reach them. Idempotent.

        Raises:
            OSError: something could not be moved back or removed.
        """
        while self._taken:
            self._give_back(self._taken.pop())
        stubs.remove_stubs(self._tree, self.finder.stubs)

    @contextlib.contextmanager
    def _taking(
        self, target: str, *, directory: bool, source: Path | None = None, moved: os.stat_result | None = None
    ) -> Iterator[_Place]:
        found = self.finder.find(target, directory=directory)
        relative = path_of(found)[len(path_of(self.root)) :].lstrip(b"/")
        above, _, name = relative.rpartition(b"/")
        if not name:
            raise StepSetupError("mount", f"cannot mount on `{target}`: it is the root directory")
        parent = syscalls.openat2(self.root, above or b".", _DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
        os.close(found)
        times = os.fstat(parent)
        place = _Place(parent=parent, name=name, aside=b"%d" % len(self._taken), source=source, moved=moved)
        os.rename(name, place.aside, src_dir_fd=parent, dst_dir_fd=self._aside)
        self._taken.append(place)
        try:
            yield place
        finally:
            os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _give_back(self, place: _Place) -> None:
        times = os.fstat(place.parent)
        found = _find_status(place.parent, place.name)
        if found is not None and place.moved and place.source and os.path.samestat(found, place.moved):
            os.rename(place.name, place.source, src_dir_fd=place.parent)
        elif found is not None:
            remove_tree(place.parent, place.name)
        with contextlib.suppress(FileNotFoundError):  # the step removed the directory
            os.rename(place.aside, place.name, src_dir_fd=self._aside, dst_dir_fd=place.parent)
        os.utime(place.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.close(place.parent)


def write_file(parent: int, name: bytes, content: bytes, *, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Write a new file into an open directory.

    Raises:
        OSError: the kernel refused.
    """
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _find_status(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
