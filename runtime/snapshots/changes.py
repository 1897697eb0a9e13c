"""Find out what was changed in a tree: a survey before, a survey after, and their difference as an upper directory.

A *survey* is what one stat walk of a tree finds: for each name the inode and the time of its last change (ctime), for
each directory also when it was born, since a new one may get the inode of one that was removed. No content is read.
The kernel sets ctime whenever anything of an object is changed and gives nobody a way to set it, so what has the same
inode and ctime is the same. What differs is only a *candidate*: runtime.layers.diff leaves out what says the same as
the layers below.

What overlay would show in its upper directory and a tree cannot tell:

- which name of a file with several names was written to. Overlay parts the name that was written to from the others,
  though a program expects them to stay one file; in a tree they stay one. All old names are put into the upper
  directory, each as a file of its own, as `chown -R` and the like leave them in an overlay; new names are linked to the
  first old one if the file has more names than before, as after `ln`.
- a character device 0:0: in an upper directory it means a deletion, so here it counts as not there.

Source: inode(7), section "Timestamps"; statx(2), stx_btime.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runtime import syscalls
from runtime.errors import KernelError, LayerError
from runtime.layers.whiteouts import make_whiteout, mark_opaque, mark_xattr_whiteouts
from runtime.snapshots.copying import DEEPEST, Copier, copy_metadata, open_directory, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_KIND: Final = 0o170000

_NO_ATTRIBUTES: Final = (
    "the file system of the store keeps no extended attributes: choose another folder with --root or $PYBUILD_ROOT"
)

_Seen = tuple[int, int, int, "Folder | None"]
"""Of one name: inode, ctime in nanoseconds, number of names, and what a directory holds (None for other objects)."""


@dataclass(slots=True)
class Folder:
    """What a survey found in a directory.

    Attributes:
        born: when the directory was made, in nanoseconds; 0 where the file system does not tell.
        children: by name.
    """

    born: int
    children: dict[str, _Seen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one stat walk of a tree found.

    Attributes:
        top: the root directory.
        changed: ctime of the root directory, in nanoseconds.
        newest: the latest ctime in the tree, in nanoseconds.
    """

    top: Folder
    changed: int
    newest: int


def survey_tree(tree: Path) -> Survey:
    """Walk a tree at rest.

    Raises:
        KernelError: something could not be read.
        LayerError: the directories are nested too deep.
    """
    walk = _Walk()
    root = -1
    try:
        root = os.open(tree, _DIRECTORY)
        changed = os.fstat(root).st_ctime_ns
        top = walk.folder(root, 0)
        return Survey(top=top, changed=changed, newest=max(walk.newest, changed))
    except KernelError:
        raise
    except OSError as error:
        raise KernelError("read", error.errno or 0, subject=str(tree)) from error
    finally:
        if root >= 0:
            os.close(root)


class _Walk:
    def __init__(self) -> None:
        self.newest = 0

    def folder(self, fd: int, depth: int) -> Folder:
        if depth > DEEPEST:
            raise LayerError(f"directories are nested more than {DEEPEST} levels deep")
        children: dict[str, _Seen] = {}
        inner: list[str] = []
        newest = self.newest
        # Spelled out, as this is done for each object of an image after each step.
        with os.scandir(fd) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                changed = status.st_ctime_ns
                if changed > newest:  # noqa: PLR1730 - a call costs more
                    newest = changed
                kind = status.st_mode & _KIND
                if kind == stat.S_IFDIR:
                    inner.append(entry.name)
                elif kind == stat.S_IFCHR and not status.st_rdev:
                    continue
                children[entry.name] = (status.st_ino, changed, status.st_nlink, None)
        self.newest = newest
        for name in inner:
            child = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                inode, changed, links, _ = children[name]
                children[name] = (inode, changed, links, self.folder(child, depth + 1))
            finally:
                os.close(child)
        return Folder(syscalls.birth_time_ns(fd), children)


def extract_changes(tree: Path, before: Survey, after: Survey, upper: Path) -> None:
    """Write what was changed in a tree between two surveys into an empty upper directory, in overlay form.

    Args:
        tree: at rest since the second survey.
        before: the first survey.
        after: the second one.
        upper: on any file system; its metadata become those of the tree.

    Raises:
        KernelError: something could not be read or written.
    """
    source = target = -1
    try:
        source = os.open(tree, _DIRECTORY)
        target = os.open(upper, _DIRECTORY)
        _Extraction(before.top, target).visit(_Level(None, b"", source, target, 0), before.top, after.top)
        copy_metadata(source, target)
    except KernelError:
        raise
    except OSError as error:
        found = error.filename
        name = found.decode(errors="backslashreplace") if isinstance(found, bytes) else str(found or tree)
        hint = _NO_ATTRIBUTES if error.errno == errno.EOPNOTSUPP else None
        raise KernelError("copy", error.errno or 0, subject=name, hint=hint) from error
    finally:
        for fd in (source, target):
            if fd >= 0:
                os.close(fd)


class _Level:
    """A directory that is compared; opened, and made in the upper directory, when something in it is needed."""

    __slots__ = ("_source", "_target", "depth", "name", "parent")

    def __init__(self, parent: _Level | None, name: bytes, source: int, target: int, depth: int) -> None:
        self.parent = parent
        self.name = name
        self._source = source
        self._target = target
        self.depth = depth

    def source(self) -> int:
        if self._source < 0 and self.parent is not None:
            self._source = os.open(self.name, _DIRECTORY, dir_fd=self.parent.source())
        return self._source

    def target(self) -> int:
        if self._target < 0 and self.parent is not None:
            above = self.parent.target()
            os.mkdir(self.name, 0o700, dir_fd=above)
            self._target = os.open(self.name, _DIRECTORY, dir_fd=above)
        return self._target

    def finish(self) -> None:
        """Set the metadata of the directory that was made, and close what was opened."""
        try:
            if self._target >= 0:
                copy_metadata(self.source(), self._target)
        finally:
            for fd in (self._source, self._target):
                if fd >= 0:
                    os.close(fd)


class _Extraction:
    """The state while changes are written.

    Args:
        before: the root directory of the first survey.
        upper_fd: the root of the upper directory.
    """

    def __init__(self, before: Folder, upper_fd: int) -> None:
        self._copier = Copier()
        self._upper_fd = upper_fd
        self._known: dict[int, int] | None = None
        self._before = before
        # (device, inode) of files with several names -> the name in the upper directory that new ones are linked to.
        self._written: dict[tuple[int, int], bytes] = {}
        # Those of them that an old name belongs to.
        self._joined: set[tuple[int, int]] = set()

    def visit(self, level: _Level, before: Folder, after: Folder) -> None:
        """Compare a directory that was there before."""
        old = before.children
        new = after.children
        if len(old) > len(new) or old.keys() != new.keys():
            for gone in sorted(old.keys() - new.keys()):
                self._delete(level.target(), os.fsencode(gone))
        changed = [
            (os.fsencode(name), old.get(name), seen)
            for name, seen in new.items()
            if seen[3] is not None or (was := old.get(name)) is None or was[1] != seen[1] or was[0] != seen[0]
        ]
        changed.sort(key=lambda item: item[0])
        for name, was, seen in changed:
            if was is not None and _is_same_object(was, seen):
                if seen[3] is None:
                    self._add(level, name, is_old=True)
                else:
                    self._compare(level, name, was, seen)
            elif seen[3] is not None:
                self._add_directory(level, name, hides=was is not None and was[3] is not None)
            else:
                self._add(level, name, is_old=False)

    def _compare(self, level: _Level, name: bytes, was: _Seen, seen: _Seen) -> None:
        inner = _Level(level, name, -1, -1, level.depth + 1)
        try:
            if was[1] != seen[1]:
                inner.target()
            if was[3] is not None and seen[3] is not None:
                self.visit(inner, was[3], seen[3])
        finally:
            inner.finish()

    def _add(self, level: _Level, name: bytes, *, is_old: bool) -> None:
        source = level.source()
        target = level.target()
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if status.st_nlink > 1 and self._link(target, name, status, is_old=is_old):
            return
        self._copier.copy_object(source, name, status, target)

    def _add_directory(self, level: _Level, name: bytes, *, hides: bool) -> None:
        target = level.target()
        os.mkdir(name, 0o700, dir_fd=target)
        with open_directory(level.source(), name) as inner, open_directory(target, name) as made:
            if hides:
                mark_opaque(made)
            self._copier.copy_tree(inner, made, self._written, depth=level.depth + 1)

    def _link(self, target: int, name: bytes, status: os.stat_result, *, is_old: bool) -> bool:
        """Link a name to the file in the upper directory, or note that it is the first; True if it was linked."""
        key = (status.st_dev, status.st_ino)
        if is_old:
            if key in self._joined or status.st_nlink <= self._names_before(status.st_ino):
                return False
            self._joined.add(key)
        first = self._written.setdefault(key, path_of(target) + b"/" + name)
        if first == path_of(target) + b"/" + name:
            return False
        os.link(first, name, dst_dir_fd=target, follow_symlinks=False)
        return True

    def _delete(self, directory_fd: int, name: bytes) -> None:
        if make_whiteout(directory_fd, name):
            mark_xattr_whiteouts(self._upper_fd)

    def _names_before(self, inode: int) -> int:
        """Return how many names a file had at the first survey, 0 if it was not there."""
        if self._known is None:
            self._known = dict(_linked(self._before))
        return self._known.get(inode, 1)


def _linked(folder: Folder) -> Iterator[tuple[int, int]]:
    for inode, _, links, inner in folder.children.values():
        if inner is not None:
            yield from _linked(inner)
        elif links > 1:
            yield inode, links


def _is_same_object(was: _Seen, seen: _Seen) -> bool:
    if was[0] != seen[0]:
        return False
    if was[3] is None or seen[3] is None:
        return was[3] is seen[3]
    return was[3].born == seen[3].born
