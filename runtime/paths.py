"""Open paths inside a directory as a process would whose root it is.

Symbolic links are followed inside the root: absolute ones begin at it, and `..` stops at it. Nothing that another
process does to the tree at the same time leads outside.

The kernel does this with openat2 and RESOLVE_IN_ROOT (Linux 5.6). Where that is missing or refused by a seccomp
profile, the components are walked one by one with descriptors: `..` then goes back to the descriptor it came from and
never asks the kernel for a parent, which a rename could have moved outside.

Source: openat2(2), section "RESOLVE_IN_ROOT"; path_resolution(7).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from typing import TYPE_CHECKING, Final, Self

from runtime.errors import KernelError
from runtime.syscalls import AT_FDCWD, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

if TYPE_CHECKING:
    from collections.abc import Iterator

SYMLINK_LIMIT: Final = 40
"""Symbolic links followed in one path, as in the kernel (MAXSYMLINKS)."""

_DIRECTORY_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_DEPTH: Final = 256
"""Levels of directories that removing a tree keeps open at once."""

_Owner = tuple[int, int]
"""uid and gid"""


def open_in_root(root_fd: int, path: bytes | str, flags: int, mode: int = 0) -> int:
    """Open *path* with the directory *root_fd* as root; a leading slash makes no difference.

    The last component is followed unless *flags* has O_NOFOLLOW. The descriptor has close-on-exec set and belongs to
    the caller.

    Args:
        root_fd: a directory, O_PATH is enough.
        path: may be longer than PATH_MAX.
        flags: O_* as for os.open.
        mode: of a file that O_CREAT makes, under the umask.

    Raises:
        KernelError: with the errno that open(2) would have given inside that root.
    """
    name = path.encode(errors="surrogateescape") if isinstance(path, str) else path
    if _has_openat2():
        try:
            return openat2(root_fd, name or b".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except KernelError as error:
            if error.errno not in {errno.ENAMETOOLONG, errno.EPERM, errno.EAGAIN}:
                raise
    with _Walk(root_fd, name) as walk:
        return walk.open(flags, mode)


def open_directory_in_root(root_fd: int, path: bytes) -> tuple[int, bytes]:
    """Open a directory and tell where it really is.

    Returns:
        An O_PATH descriptor of the caller's, and the path with every symbolic link resolved, relative to the root in
        the form of `Entry.path`.

    Raises:
        KernelError: as of `open_in_root`.
    """
    if _has_openat2():
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
        with contextlib.suppress(KernelError):
            fd = openat2(root_fd, path or b".", os.O_PATH | os.O_DIRECTORY, 0, resolve)
            if b"." not in path and b"//" not in path:
                return fd, path.strip(b"/")
            os.close(fd)
    with _Walk(root_fd, path) as walk:
        fd = walk.open(os.O_PATH | os.O_DIRECTORY)
        return fd, walk.location()


def mkdirs_in_root(root_fd: int, path: bytes | str, mode: int = 0o755, *, owner: _Owner | None = None) -> int:
    """Make a directory and its missing parents, and open it. What exists stays as it is.

    Symbolic links on the way are followed inside the root, also those whose target does not exist yet.

    Args:
        root_fd: a directory.
        path: of the directory.
        mode: of the directories made, whatever the umask.
        owner: uid and gid of the directories made; None leaves them to the kernel.

    Returns:
        An O_PATH descriptor of the caller's.

    Raises:
        KernelError: ENOTDIR if something on the way is no directory.
    """
    name = path.encode(errors="surrogateescape") if isinstance(path, str) else path
    try:
        return open_in_root(root_fd, name, os.O_PATH | os.O_DIRECTORY)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    with _Walk(root_fd, name, make=mode, owner=owner) as walk:
        return walk.open(os.O_PATH | os.O_DIRECTORY)


def remove_tree(directory_fd: int, name: bytes) -> None:
    """Remove *name* and everything below it; nothing happens if it is missing. Symbolic links are not followed.

    Directories without permissions are opened up first, so trees of any mode go away as far as the owner may.

    Args:
        directory_fd: the directory that holds it, O_PATH is enough.
        name: one component.

    Raises:
        OSError: something could not be removed.
    """
    try:
        os.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # A directory gives EISDIR; what is not ours to remove gives the same errno again below.
        pending = [name]
        while pending:
            top = pending.pop()
            _empty(directory_fd, top, (directory_fd, pending), 0)
            os.rmdir(top, dir_fd=directory_fd)


def _open_for_removal(directory_fd: int, name: bytes) -> int:
    """Open a directory for listing and removing what it holds, changing its mode if that is in the way."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = -1
    try:
        fd = os.open(name, flags, dir_fd=directory_fd)
        if os.fstat(fd).st_mode & stat.S_IRWXU == stat.S_IRWXU:
            return fd
        # Fails without harm where it is not ours and capabilities let us in.
        with contextlib.suppress(PermissionError):
            os.fchmod(fd, stat.S_IRWXU)
    except PermissionError:
        os.chmod(name, stat.S_IRWXU, dir_fd=directory_fd)
        return os.open(name, flags, dir_fd=directory_fd)
    return fd


def _empty(directory_fd: int, name: bytes, aside: tuple[int, list[bytes]], depth: int) -> None:
    """Remove the children of a directory.

    Directories more than `_OWN_DEPTH` levels down are moved into the directory of *aside*, and their new names put
    into its list.
    """
    fd = _open_for_removal(directory_fd, name)
    try:
        for child in os.listdir(fd):
            try:
                os.unlink(child, dir_fd=fd)
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError):
                encoded = os.fsencode(child)
                if depth < _OWN_DEPTH:
                    _empty(fd, encoded, aside, depth + 1)
                    os.rmdir(encoded, dir_fd=fd)
                else:
                    moved = b".removing-" + os.urandom(8).hex().encode()
                    os.rename(encoded, moved, src_dir_fd=fd, dst_dir_fd=aside[0])
                    aside[1].append(moved)
    finally:
        os.close(fd)


@functools.cache
def _has_openat2() -> bool:
    try:
        os.close(openat2(AT_FDCWD, b"/", os.O_PATH | os.O_DIRECTORY))
    except KernelError:
        return False
    return True


class _Walk:
    """Follows a path component by component. A context manager, which owns the descriptors on the way.

    Args:
        root_fd: where absolute links and leading `..` end.
        path: what is followed.
        make: mode of the missing directories that are made on the way, None to make none.
        owner: uid and gid of those.
    """

    def __init__(self, root_fd: int, path: bytes, *, make: int | None = None, owner: _Owner | None = None) -> None:
        self._root_fd = root_fd
        self._path = path
        self._make = make
        self._owner = owner
        self._stack: list[tuple[bytes, int]] = []
        self._links = 0
        # The components still to follow, the next one last.
        self._ahead = self._split(path)
        self._must_be_directory = path.endswith((b"/", b"/."))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._stack:
            os.close(self._stack.pop()[1])

    def location(self) -> bytes:
        """Return the path of the directory that was reached, without symbolic links."""
        return b"/".join(name for name, _ in self._stack)

    def open(self, flags: int, mode: int = 0) -> int:
        """Follow the whole path and open what it ends at."""
        with self._naming():
            if flags & os.O_PATH and flags & os.O_DIRECTORY and not flags & os.O_NOFOLLOW:
                self._follow_to(0)
                return os.open(b".", flags, dir_fd=self._here())
            return self._open_last(flags, mode)

    def _open_last(self, flags: int, mode: int) -> int:
        while True:
            self._follow_to(1)
            if not self._ahead:
                return os.open(b".", flags, mode, dir_fd=self._here())
            name = self._ahead.pop()
            if name == b"..":
                self._up()
                continue
            if flags & os.O_NOFOLLOW and not self._must_be_directory:
                return os.open(name, flags, mode, dir_fd=self._here())
            if self._follow_link(name):
                continue
            extra = os.O_DIRECTORY if self._must_be_directory else 0
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW | extra, mode, dir_fd=self._here())
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                self._ahead.append(name)  # it became a link in between
                continue
            if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):
                os.close(fd)
                self._ahead.append(name)
                continue
            return fd

    def _follow_to(self, remaining: int) -> None:
        """Enter directories until only *remaining* components are ahead."""
        while len(self._ahead) > remaining:
            name = self._ahead.pop()
            if name == b"..":
                self._up()
                continue
            try:
                fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=self._here())
            except FileNotFoundError:
                if self._make is None:
                    raise
                fd = self._make_directory(name)
            except NotADirectoryError:
                if not self._follow_link(name) and not self._is_being_swapped(name):
                    raise
                continue
            self._stack.append((name, fd))

    def _is_being_swapped(self, name: bytes) -> bool:
        """Put *name* ahead again if it is a directory or a link by now: another process swaps the two."""
        mode = os.lstat(name, dir_fd=self._here()).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
            return False
        self._count_link()
        self._ahead.append(name)
        return True

    def _count_link(self) -> None:
        self._links += 1
        if self._links > SYMLINK_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _make_directory(self, name: bytes) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=self._here())
        except FileExistsError:  # another process was faster
            return os.open(name, _DIRECTORY_FLAGS, dir_fd=self._here())
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._here())
        try:
            status = os.fstat(fd)
            if self._owner is not None and (status.st_uid, status.st_gid) != self._owner:
                os.fchown(fd, *self._owner)
            os.fchmod(fd, self._make or 0)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _follow_link(self, name: bytes) -> bool:
        """Put the target of a symbolic link ahead; False if *name* is no link."""
        try:
            target = os.readlink(name, dir_fd=self._here())
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                return False
            raise
        self._count_link()
        if target.startswith(b"/"):
            while self._stack:
                self._up()
        if not self._ahead and target.endswith((b"/", b"/.")):
            self._must_be_directory = True
        self._ahead += self._split(target)
        return True

    def _here(self) -> int:
        return self._stack[-1][1] if self._stack else self._root_fd

    def _up(self) -> None:
        if self._stack:
            os.close(self._stack.pop()[1])

    @staticmethod
    def _split(path: bytes) -> list[bytes]:
        return [part for part in reversed(path.split(b"/")) if part not in {b"", b"."}]

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except KernelError:
            raise
        except OSError as error:
            shown = self._path.decode(errors="backslashreplace")
            raise KernelError("openat", error.errno or 0, subject=shown) from error
