"""Make the files and directories that a step's mounts need, and take them away again.

A *stub* is an empty file or directory that exists in the upper directory only as a place to mount on. Making one copies
the directories above it up; those are remembered too, because an upper directory that says the same as the one below
is no change of the step.

Most stubs are not made at all: a *skeleton*, a tree that lies below the layers of an overlay and is none of them, has
the places that every step needs. What a layer has there hides it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from runtime import syscalls
from runtime.errors import KernelError, StepSetupError
from runtime.ownership import Owners
from runtime.syscalls import (
    AT_FDCWD,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SKELETON_DIRECTORIES: Final = ("dev", "etc", "proc", "sys")
_SKELETON_FILES: Final = ("etc/hosts", "etc/resolv.conf")
_SKELETON_TIME_NS: Final = 946_684_800_271_828_182
"""Time of what is in a skeleton, by which it is known."""

StubKind = Literal["file", "directory", "copied"]

_MOST_LINKS: Final = 40  # MAXSYMLINKS of the kernel
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_OVERLAY_XATTRS: Final = "user.overlay."
_OPAQUE: Final = "user.overlay.opaque"


class Stub(NamedTuple):
    """One thing in the upper directory that set-up put there.

    Args:
        path: relative to the root, without symbolic links in it.
        kind: "copied" for a directory of the layers below that was copied up because a stub was made in it.
        mode, uid, gid: as it was made or found; a later difference is the step's doing.
        mtime_ns: of a copied directory before the stub was made; 0 for others.
    """

    path: bytes
    kind: StubKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int


def make_skeleton(folder: Path) -> Path:
    """Make the tree of what every step mounts something on, as *folder*, and return it.

    Raises:
        OSError: it cannot be written.
    """
    for path in (folder, *(folder / name for name in _SKELETON_DIRECTORIES)):
        path.mkdir()
        path.chmod(0o755)
    for name in _SKELETON_FILES:
        (folder / name).touch()
        (folder / name).chmod(0o644)
    for name in (*_SKELETON_FILES, *_SKELETON_DIRECTORIES):
        os.utime(folder / name, ns=(_SKELETON_TIME_NS, _SKELETON_TIME_NS))
    return folder


class TargetFinder:
    """Resolves mount targets inside a root, and makes what is missing.

    Args:
        root: descriptor of the root directory.
        upper: the upper directory behind it, or None if changes are thrown away.
    """

    def __init__(self, root: int, upper: Path | None) -> None:
        self._root = root
        self._root_device = os.fstat(root).st_dev
        self._upper = None if upper is None else syscalls.openat2(AT_FDCWD, os.fspath(upper), os.O_PATH)
        self.stubs: list[Stub] = []

    def find(self, path: str, *, directory: bool) -> int:
        """Return an O_PATH descriptor of *path*; what is missing of it is made as stubs.

        Raises:
            StepSetupError: something of another kind is in the way, or links go in a circle.
            KernelError: the kernel refused.
        """
        found = self._open_or_make(path, directory=directory, owner=None)
        if stat.S_ISDIR(os.fstat(found).st_mode) != directory:
            raise StepSetupError("mount", f"cannot mount on `{path}`: {_KIND[not directory]} is there")
        return found

    def note_skeleton(self) -> None:
        """Count /etc as a stub if it is that of a skeleton: nothing is mounted over it, so the step can have it copied up."""
        found = os.stat("etc", dir_fd=self._root, follow_symlinks=False)
        if found.st_mtime_ns == _SKELETON_TIME_NS:
            self._note(b"etc", "directory", found, mtime_ns=0)

    def make_directory(self, path: str, *, uid: int, gid: int) -> int:
        """Return an O_PATH descriptor of the directory *path*; what is missing is made for good, 0755 and owned so.

        Raises:
            StepSetupError: something else is in the way, or links go in a circle.
            KernelError: the kernel refused.
        """
        found = self._open_or_make(path, directory=True, owner=(uid, gid))
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            raise StepSetupError("cwd", f"cannot use `{path}` as working directory: a file is there")
        return found

    def _open_or_make(self, path: str, *, directory: bool, owner: tuple[int, int] | None) -> int:
        name = path.encode(errors="surrogateescape")
        try:
            return syscalls.openat2(self._root, name or b".", os.O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise StepSetupError(
                    "mount" if owner is None else "cwd", f"cannot use `{path}`: {os.strerror(error.errno or 0)}"
                ) from error
        real = self._walk(name, directory=directory, owner=owner)
        return syscalls.openat2(self._root, real or b".", os.O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)

    def _walk(self, path: bytes, *, directory: bool, owner: tuple[int, int] | None) -> bytes:
        """Make what is missing of *path*, following links inside the root; return it without links."""
        pending = path.split(b"/")[::-1]
        real: list[bytes] = []
        links = 0
        while pending:
            name = pending.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                del real[-1:]
                continue
            parent = syscalls.openat2(
                self._root, b"/".join(real) or b".", _DIRECTORY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
            )
            try:
                try:
                    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    mode = 0
                if stat.S_ISLNK(mode):
                    links += 1
                    if links > _MOST_LINKS:
                        raise StepSetupError(
                            "mount", f"cannot use `{path.decode(errors='replace')}`: links in a circle"
                        )
                    target = os.readlink(name, dir_fd=parent)
                    if target.startswith(b"/"):
                        real.clear()
                    pending.extend(target.split(b"/")[::-1])
                    continue
                if not mode:
                    last = not any(part not in {b"", b"."} for part in pending)
                    self._make(parent, real, name, directory=directory or not last, owner=owner)
                real.append(name)
            finally:
                os.close(parent)
        return b"/".join(real)

    def _make(
        self, parent: int, above: Sequence[bytes], name: bytes, *, directory: bool, owner: tuple[int, int] | None
    ) -> None:
        before = os.fstat(parent)
        is_stub = owner is None and self._upper is not None and before.st_dev == self._root_device
        if is_stub:
            self._note_copied(above)
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
        if owner is not None:
            Owners.here().give(name, *owner, dir_fd=parent)
            return
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        if is_stub:
            made = os.stat(name, dir_fd=parent, follow_symlinks=False)
            kind: StubKind = "directory" if directory else "file"
            self._note(b"/".join((*above, name)), kind, made, mtime_ns=0)

    def _note_copied(self, directories: Sequence[bytes]) -> None:
        """Remember which of the nested *directories* are about to be copied up, the outermost first."""
        for depth in range(1, len(directories) + 1):
            path = b"/".join(directories[:depth])
            try:
                os.stat(path, dir_fd=self._upper, follow_symlinks=False)
            except FileNotFoundError:
                found = os.stat(path, dir_fd=self._root, follow_symlinks=False)
                self._note(path, "copied", found, mtime_ns=found.st_mtime_ns)

    def _note(self, path: bytes, kind: StubKind, found: os.stat_result, *, mtime_ns: int) -> None:
        mode = stat.S_IMODE(found.st_mode)
        self.stubs.append(Stub(path=path, kind=kind, mode=mode, uid=found.st_uid, gid=found.st_gid, mtime_ns=mtime_ns))


_KIND: Final = {True: "a directory", False: "a file"}


def remove_stubs(upper: Path, stubs: Sequence[Stub]) -> None:
    """Take the *stubs* of a finished step out of its *upper* directory.

    Only what is still as it was made goes: empty, with the same mode and owner. Copied-up directories go if nothing is
    left in them and they still say what the layers below say. The time stamps of directories above stay. No symbolic
    link is followed. Idempotent.

    Args:
        upper: the upper directory; nobody else changes it meanwhile.
        stubs: as the step reported them.

    Raises:
        KernelError: *upper* cannot be opened.
    """
    root = syscalls.openat2(AT_FDCWD, os.fspath(upper), _DIRECTORY)
    try:
        for stub in reversed(stubs):
            directory, _, name = stub.path.rpartition(b"/")
            parent = -1
            try:
                parent = syscalls.openat2(root, directory or b".", _DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            except KernelError:  # the step removed or replaced what is above it
                continue
            try:
                _remove(parent, name, stub)
            finally:
                os.close(parent)
    finally:
        os.close(root)


def _remove(parent: int, name: bytes, stub: Stub) -> None:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) != (stub.mode, stub.uid, stub.gid):
        return
    before = os.fstat(parent)
    with contextlib.suppress(OSError):  # a directory with something in it stays
        match stub.kind:
            case "file":
                if not stat.S_ISREG(found.st_mode) or found.st_size or found.st_nlink != 1:
                    return
                os.unlink(name, dir_fd=parent)
            case "directory":
                os.rmdir(name, dir_fd=parent)
            case "copied":
                if found.st_mtime_ns != stub.mtime_ns or _has_own_xattrs(parent, name):
                    return
                os.rmdir(name, dir_fd=parent)
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))


def _has_own_xattrs(parent: int, name: bytes) -> bool:
    """Return whether the directory is opaque, or has attributes that may differ from those of the layers below."""
    fd = syscalls.openat2(parent, name, _DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    try:
        return any(x == _OPAQUE or not x.startswith(_OVERLAY_XATTRS) for x in os.listxattr(fd))
    finally:
        os.close(fd)
