"""Committed snapshots: the trees of layers on disk, in overlay form.

A committed snapshot is the tree of one layer, as overlay wants it in a `lowerdir`: deletions are whiteouts, emptied
directories are marked as opaque (runtime.layers.whiteouts). Chains are lists of names, base first.

    ROOT/NAME/               a committed snapshot; NAME is the hex of the chain_id
    ROOT/NAME.recorded/      the same made where only one user id exists: owners are recorded (runtime.ownership)
    ROOT/.sizes/NAME         its bytes on disk, empty until somebody measured them; the time stamp is that of its last use
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
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime.disk_usage import disk_usage
from runtime.errors import KernelError
from runtime.ownership import Owners, is_recorded
from runtime.paths import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MARK: Final = "user.pybuild.committed"
"""Attribute of the root of a committed snapshot: its mtime, in nanoseconds."""

_RECORDED: Final = ".recorded"
_SIZES: Final = ".sizes"

Hold = Callable[[str], AbstractContextManager[None]]
"""Keeps what has this name from being removed, for as long as this process lives; nothing is removed during the block."""


class StoredSnapshot(NamedTuple):
    """A committed snapshot as it lies on disk.

    Attributes:
        name: hex of its chain_id.
        directory: what its directory is called; also the name under which it is held.
        size: its bytes on disk, None if nobody has measured them.
        used: when it was last used, in nanoseconds.
    """

    name: str
    directory: str
    size: int | None
    used: int


class CommittedSnapshots:
    """The committed snapshots of one store; what every snapshotter has. Many processes may share it.

    Args:
        root: holds the committed ones; made if missing.
        temporary: on the same file system, for what is unfinished; made if missing.
        hold: keeps those that are asked for or made from being removed; without it nobody collects here.
    """

    def __init__(self, root: Path, temporary: Path, *, hold: Hold | None = None) -> None:
        self._root = root
        self.temporary = temporary
        self._hold = hold

    def has(self, name: str) -> bool:
        """Tell whether a snapshot is committed, and its root is as it was then.

        Who asks is taken to want it: if it is there, it is held and counts as used.

        Raises:
            KernelError: it cannot be looked at.
        """
        path = self.path(name)
        if self._hold is None:
            return _is_committed(path)
        with self._hold(path.name):
            found = _is_committed(path)
            if found:
                self._note_use(path.name)
            return found

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

    def adopt(self, tree: Path, name: str) -> Path:
        """Make a finished tree visible under its name.

        Others see nothing or the whole tree. If the name is taken, by this or another process, the tree there stays, and
        *tree* too: equal names mean equal content. One there that is not what was committed makes room. Nothing is
        synced to disk: a tree that a power failure tore can be made again from its layers.

        Returns:
            Where *tree* lies now.

        Raises:
            KernelError: the store cannot be written.
        """
        target = self.path(name)
        with naming("rename", target):
            if self.has(name):
                return tree
            os.makedirs(self._root, exist_ok=True)
            _set_mark(tree)
            moved = _rename_unless_taken(tree, target)
            if not moved and not self.has(name):
                self.remove(name)
                moved = _rename_unless_taken(tree, target)
            self._note_use(target.name)
        return target if moved else tree

    def stored(self) -> tuple[StoredSnapshot, ...]:
        """List the committed snapshots that can be removed here, in both forms, sorted."""
        forms = _forms()
        try:
            found = sorted(name for name in os.listdir(self._root) if not name.startswith("."))
        except FileNotFoundError:
            return ()
        described = (self._describe(name) for name in found if _form(name) in forms)
        return tuple(snapshot for snapshot in described if snapshot is not None)

    def measure(self, directory: str) -> int:
        """Find out the bytes that a committed snapshot takes on disk, hard links once; they are remembered.

        Raises:
            KernelError: the snapshot is missing or cannot be read.
        """
        with naming("read", self._root / directory):
            size = disk_usage(self._root / directory)
        note = self._root / _SIZES / directory
        known = self._describe(directory)
        with contextlib.suppress(OSError):  # it is then measured again
            note.parent.mkdir(exist_ok=True)
            note.write_text(str(size), encoding="ascii")
            if known is not None:
                os.utime(note, ns=(known.used, known.used))
        return size

    def lay_aside(self, directory: str, target: Path) -> None:
        """Move a committed snapshot, which no mount may use any more, to where it is then removed. Idempotent.

        Others never see half of it.

        Raises:
            KernelError: it could not be moved.
        """
        with naming("rename", self._root / directory), contextlib.suppress(FileNotFoundError):
            os.rename(self._root / directory, target)
        with contextlib.suppress(OSError):
            (self._root / _SIZES / directory).unlink()

    def remove(self, name: str) -> None:
        """Remove a committed snapshot, in both forms, which no mount may use any more. Idempotent.

        Raises:
            KernelError: something could not be removed.
        """
        with naming("mkdir", self.temporary):
            doomed = self.make_temporary("removed")
        for form in _forms():
            self.lay_aside(name + form, doomed / f"tree{form}")
        remove_directory(doomed)

    def _describe(self, directory: str) -> StoredSnapshot | None:
        """Read what is known of a snapshot; None if it is gone."""
        note = self._root / _SIZES / directory
        try:
            text, used = note.read_text(encoding="ascii"), note.stat().st_mtime_ns
        except FileNotFoundError:
            try:
                text, used = "", os.lstat(self._root / directory).st_ctime_ns
            except FileNotFoundError:
                return None
        size = int(text) if text.isdecimal() else None
        return StoredSnapshot(name=_plain(directory), directory=directory, size=size, used=used)

    def _note_use(self, directory: str) -> None:
        note = self._root / _SIZES / directory
        with contextlib.suppress(OSError):  # a full or read-only disk: the last use is then not known
            try:
                os.utime(note)
            except FileNotFoundError:
                note.parent.mkdir(exist_ok=True)
                note.touch()

    def make_temporary(self, prefix: str) -> Path:
        """Make a directory for something unfinished, for this user alone.

        Raises:
            OSError: the store cannot be written.
        """
        directory = self.temporary / f"{prefix}-{os.urandom(8).hex()}"
        try:
            os.mkdir(directory, 0o700)
        except FileNotFoundError:
            os.makedirs(self.temporary, exist_ok=True)
            os.mkdir(directory, 0o700)
        return directory


def _is_committed(path: Path) -> bool:
    try:
        return os.getxattr(path, MARK, follow_symlinks=False) == _mark_of(path)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return path.is_dir()
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENODATA, errno.EPERM}:
            return False
        raise KernelError("read", error.errno or 0, subject=str(path)) from error


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
