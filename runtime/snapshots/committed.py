"""Committed snapshots: the trees of layers on disk, in overlay form.

A committed snapshot is the tree of one layer, as overlay wants it in a `lowerdir`: deletions are whiteouts, emptied
directories are marked as opaque (runtime.layers.whiteouts). Chains are lists of names, base first.

    ROOT/NAME/               a committed snapshot; NAME is the hex of the chain_id
    ROOT/NAME.recorded/      the same made where only one user id exists: owners are recorded (runtime.ownership)
    TEMPORARY/snapshot-*/    an active one: upper/, work/, and tree/ where there is no overlay
    TEMPORARY/removed-*/     one that is being removed

The root of a committed snapshot is marked with its own time. A directory that has no mark, or another time, is not what
was committed: something was put into it or taken out, as by a removal that was not allowed to finish. It counts as
missing, and is replaced by who makes it again. What is changed further down, or in a file, is not looked for: that
would be a walk for each use, and who can write to a snapshot can write to the database as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runtime.errors import KernelError
from runtime.ownership import Owners, is_recorded
from runtime.paths import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MARK: Final = "user.pybuild.committed"
"""Attribute of the root of a committed snapshot: its mtime, in nanoseconds."""

_BLOCK: Final = 512
_RECORDED: Final = ".recorded"


class CommittedSnapshots:
    """The committed snapshots of one store; what every snapshotter has. Many processes may share it.

    Args:
        root: holds the committed ones; made if missing.
        temporary: on the same file system, for what is unfinished; made if missing.
    """

    def __init__(self, root: Path, temporary: Path) -> None:
        self._root = root
        self.temporary = temporary

    def has(self, name: str) -> bool:
        """Tell whether a snapshot is committed, and its root is as it was then."""
        path = self.path(name)
        try:
            return os.getxattr(path, MARK, follow_symlinks=False) == _mark_of(path)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return path.is_dir()
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENODATA, errno.EPERM}:
                return False
            raise KernelError("read", error.errno or 0, subject=str(path)) from error

    def path(self, name: str) -> Path:
        """Return where a committed snapshot lies, or would lie."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"not the name of a snapshot: {name!r}")
        return self._root / (name + _forms()[0])

    def names(self) -> tuple[str, ...]:
        """Return the names of all committed snapshots that can be removed here, sorted."""
        forms = _forms()
        with contextlib.suppress(FileNotFoundError):
            found = [name for name in os.listdir(self._root) if not name.startswith(".")]
            return tuple(sorted({_plain(name) for name in found if _form(name) in forms}))
        return ()

    def lowers(self, names: Iterable[str]) -> tuple[Path, ...]:
        """Return where the snapshots of a chain lie, base first as the names."""
        return tuple(self.path(name) for name in names)

    def adopt(self, tree: Path, name: str) -> None:
        """Make a finished tree visible under its name.

        Others see nothing or the whole tree. If the name is taken, by this or another process, the tree there stays, and
        *tree* too: equal names mean equal content. One there that is not what was committed makes room. Nothing is
        synced to disk: a tree that a power failure tore can be made again from its layers.

        Raises:
            KernelError: the store cannot be written.
        """
        target = self.path(name)
        with naming("rename", target):
            if not self.has(name):
                os.makedirs(self._root, exist_ok=True)
                _set_mark(tree)
                if not _rename_unless_taken(tree, target) and not self.has(name):
                    self.remove(name)
                    _rename_unless_taken(tree, target)

    def remove(self, name: str) -> None:
        """Remove a committed snapshot, which no mount may use any more. Idempotent; others never see half of it.

        Raises:
            KernelError: something could not be removed.
        """
        path = self.path(name)
        with naming("rename", path):
            doomed = self.make_temporary("removed")
            for form in _forms():
                with contextlib.suppress(FileNotFoundError):
                    os.rename(path.with_name(name + form), doomed / f"tree{form}")
        remove_directory(doomed)

    def size(self, name: str) -> int:
        """Return the bytes that a committed snapshot takes on disk, hard links once.

        Raises:
            KernelError: the snapshot is missing or cannot be read.
        """
        with naming("read", self.path(name)):
            return _disk_size(os.fsencode(self.path(name)))

    def make_temporary(self, prefix: str) -> Path:
        """Make a directory for something unfinished, for this user alone.

        Raises:
            OSError: the store cannot be written.
        """
        os.makedirs(self.temporary, exist_ok=True)
        directory = self.temporary / f"{prefix}-{os.urandom(8).hex()}"
        os.mkdir(directory, 0o700)
        return directory


def _mark_of(path: Path) -> bytes:
    return b"%d" % os.lstat(path).st_mtime_ns


def _set_mark(tree: Path) -> None:
    try:
        os.setxattr(tree, MARK, _mark_of(tree), follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise


def _rename_unless_taken(tree: Path, target: Path) -> bool:
    """Rename a directory, and tell whether there was none of the name; an empty one is replaced."""
    try:
        os.rename(tree, target)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        return False
    return True


def _forms() -> tuple[str, ...]:
    """Return the endings of the snapshots that this process may remove, first that of those it uses.

    Where several ids exist, files of recorded owners are the user's own; the other way round they belong to sub-ids.
    """
    return (_RECORDED,) if is_recorded() else ("", _RECORDED)


def _form(name: str) -> str:
    return _RECORDED if name.endswith(_RECORDED) else ""


def _plain(name: str) -> str:
    return name.removesuffix(_RECORDED)


def copy_root_metadata(source: Path, target: Path) -> None:
    """Give a directory owner, mode and times of another."""
    status = os.stat(source)
    own = os.stat(target)
    owners = Owners.here()
    status = owners.true_status(status, os.fspath(source))
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        owners.give(os.fspath(target), status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove_directory(directory: Path) -> None:
    """Remove a directory and all below it; nothing happens if it is missing.

    Raises:
        KernelError: something could not be removed.
    """
    with naming("unlink", directory):
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
def naming(call: str, subject: Path) -> Iterator[None]:
    """Turn an OSError of the block into a KernelError that names a path."""
    try:
        yield
    except KernelError:
        raise
    except OSError as error:
        found = error.filename
        name = found.decode(errors="backslashreplace") if isinstance(found, bytes) else str(found or subject)
        raise KernelError(call, error.errno or 0, subject=name) from error
