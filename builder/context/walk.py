"""Reading a source root: the part of it that a COPY names, and nothing else.

A *source root* is a directory that a step may copy from: the build context, or a read-only view of a stage or image.
Everything is reached from its descriptor, so that no symbolic link leads out of it. Paths are bytes relative to the
root, without leading or trailing slash; b"" is the root itself.
"""

from __future__ import annotations

import errno
import os
import stat
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, Self

from builder.errors import ContextError
from runtime.layers.entry import Entry, EntryKind
from runtime.paths import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from builder.context.batch import Batch
    from builder.context.ignore import IgnoreRules
    from builder.context.root import SourceRoot

_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHARACTER,
    stat.S_IFBLK: EntryKind.BLOCK,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFSOCK: EntryKind.FILE,
}
"""What each type of file becomes in a layer; a socket becomes an empty file, as BuildKit makes of it."""


CHUNK = 4096
"""How many things are looked at, and handed on, together."""


class Found(NamedTuple):
    """One thing below a source root. A NamedTuple because a context has tens of thousands of them.

    Attributes:
        path: relative to the source root.
        stat: as lstat(2) gave it.
        linkname: text of a symbolic link.
    """

    path: bytes
    stat: os.stat_result
    linkname: bytes = b""


row_of = attrgetter(
    *("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size"),
    *("st_mtime_ns", "st_ctime_ns", "st_rdev"),
)
"""Give all that lstat(2) says of a thing, but times of access: the same again is the same content."""


class Filter(NamedTuple):
    """Ignore rules that hold for a part of a source root.

    Attributes:
        rules: what is left out.
        skip: how many bytes of a path to drop before asking the rules.
    """

    rules: IgnoreRules
    skip: int = 0


def walk(root: SourceRoot, path: bytes, *, filters: Sequence[Filter] = ()) -> Iterator[Found]:
    """Find everything below the directory *path*, without the directory itself.

    Each directory stands before what is in it, names in byte order. A directory that a filter leaves out is given
    nevertheless if something below it is kept by a later rule, and not entered if nothing can be.

    Args:
        root: where to read.
        path: an existing directory, free of symbolic links.
        filters: what to leave out, besides the ignore rules of the root.

    Raises:
        ContextError: something that is selected cannot be read, or went away meanwhile.
    """
    from builder.context.batch import read_batches  # noqa: PLC0415  a build that copies no directory needs none

    active = active_filters(root, filters)
    return walk_batches(lambda folder: read_batches(root, folder, active), path)


def walk_batches(read: Callable[[bytes], Iterable[Batch]], path: bytes) -> Iterator[Found]:
    """Find everything below a directory as `walk` does, in batches that come from elsewhere.

    Args:
        read: gives the batches of a directory in their order; asked for each directory once, in the order of the walk.
        path: the directory.
    """
    hidden: set[bytes] = set()
    waiting: dict[bytes, Found] = {}

    def enter(folder: bytes) -> Iterator[Found]:
        for batch in read(folder):
            if batch.hidden:
                hidden.update([folder + b"/" + name if folder else name for name in batch.hidden])
            yield from batch.found()

    is_directory = stat.S_ISDIR
    open_ = [enter(path)]
    while open_:
        for item in open_[-1]:
            name = item[0]
            if hidden and name in hidden:
                hidden.remove(name)
                waiting[name] = item
            else:
                if waiting:
                    yield from _waited(waiting, name)
                yield item
            if is_directory(item[1].st_mode):
                open_.append(enter(name))
                break
        else:
            del open_[-1]


class SourceTree:
    """A source root as a `builder.tree.Tree`: what ignore rules hide is not there.

    Meant for single look-ups, such as the arguments of a COPY; `walk` lists directories.

    Args:
        root: where to look.
    """

    def __init__(self, root: SourceRoot) -> None:
        self._root = root

    def find(self, path: bytes) -> Entry | None:
        """Find the entry at exactly *path*."""
        found = self.stat(path)
        return None if found is None else _entry(found)

    def stat(self, path: bytes) -> Found | None:
        """Find what is at exactly *path*, with all that lstat says.

        Raises:
            ContextError: a directory on the way cannot be searched.
        """
        found = find(self._root, path)
        ignore = self._root.ignore
        if found is None or not path or ignore is None or not ignore.matches(path):
            return found
        if stat.S_ISDIR(found.stat.st_mode) and ignore.may_reopen(path) and any(True for _ in walk(self._root, path)):
            return found
        return None

    def children(self, path: bytes) -> Iterator[Entry]:
        """Give the entries directly in a directory, sorted by name."""
        for found in self.list(path):
            yield _entry(found)

    def list(self, path: bytes) -> Iterator[Found]:
        """Give what lies directly in a directory, sorted by name; nothing if it is no directory."""
        from builder.context.batch import read_batches  # noqa: PLC0415  only for wildcards

        try:
            scanned = [found for batch in read_batches(self._root, path, ()) for found in batch.found()]
        except ContextError:
            return
        ignore = self._root.ignore
        for found in scanned:
            if ignore is None or not ignore.matches(found.path) or self.stat(found.path) is not None:
                yield found

    def read(self, path: bytes) -> bytes | None:
        """Give the content of a small file."""
        found = self.stat(path)
        if found is None or not stat.S_ISREG(found.stat.st_mode):
            return None
        with Opener(self._root) as opener:
            fd = opener.open(found)
            with os.fdopen(fd, "rb") as stream:
                return stream.read()


class Opener:
    """Opens files of a source root, fast when many lie in the same directory.

    A context manager: it keeps the directory of the last file open.

    Args:
        root: the source root the files were found in; None if no file will be opened.
    """

    __slots__ = ("_fd", "_folder", "_is_live", "_root")

    def __init__(self, root: SourceRoot | None) -> None:
        self._root = root
        self._is_live = root is not None and root.young is not None
        self._folder: bytes | None = None
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._folder = None

    def open(self, found: Found) -> int:
        """Open a regular file for reading; the caller closes the descriptor.

        Raises:
            ContextError: it cannot be read, or is not the file that was found, or was written since.
        """
        path, seen, _ = found
        root = self._needed_root(path)
        try:
            fd = self._open(root, path)
        except OSError as error:
            raise read_error(root, path, error) from error
        if self._is_changed(os.fstat(fd), seen):
            os.close(fd)
            raise changed_error(root, path)
        return fd

    def read(self, found: Found) -> bytes:
        """Read a small regular file at once; its stamps are compared when it was read.

        Raises:
            ContextError: it cannot be read, or is not the file that was found, or was written since.
        """
        path, seen, _ = found
        root = self._needed_root(path)
        try:
            fd = self._open(root, path)
            try:
                # One byte more is asked for, which shows a file that has grown.
                data = os.read(fd, seen.st_size + 1)
                now = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise read_error(root, path, error) from error
        if len(data) != seen.st_size or self._is_changed(now, seen):
            raise changed_error(root, path)
        return data

    def check(self, found: Found, fd: int) -> None:
        """Make sure, once an open file was read, that it was the one that was found until then.

        A file that is young (`SourceRoot.young`) may have been written to all the same.

        Raises:
            ContextError: it was written since.
        """
        root = self._root
        if root is not None and self._is_live and self._is_changed(os.fstat(fd), found.stat):
            raise changed_error(root, found.path)

    def _needed_root(self, path: bytes) -> SourceRoot:
        if self._root is None:
            raise ContextError(f"there is nothing to read from: `{shown(path)}`")
        return self._root

    def _open(self, root: SourceRoot, path: bytes) -> int:
        at = path.rfind(b"/")
        folder = path[:at] if at > 0 else b""
        if folder != self._folder:
            self._change(root, folder)
        return os.open(path[at + 1 :], _OPEN_FILE, dir_fd=self._fd)

    def _is_changed(self, now: os.stat_result, seen: os.stat_result) -> bool:
        return (
            now.st_ino != seen.st_ino
            or now.st_size != seen.st_size
            or now.st_mtime_ns != seen.st_mtime_ns
            or now.st_mode != seen.st_mode
            # The one stamp that nobody can put back; a link made to a file of a snapshot changes it too.
            or (now.st_ctime_ns != seen.st_ctime_ns and self._is_live)
        )

    def _change(self, root: SourceRoot, folder: bytes) -> None:
        fd = open_in_root(root.fd, folder or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._folder = folder


def find(root: SourceRoot, path: bytes) -> Found | None:
    """Find what is at exactly *path*, whether it is ignored or not; follows no link in the last name.

    Raises:
        ContextError: a directory on the way cannot be searched.
    """
    folder, _, name = path.rpartition(b"/")
    try:
        if not path:
            return Found(b"", _true_status(root, os.fstat(root.fd), root.fd))
        fd = open_in_root(root.fd, folder or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            linkname = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
            status = _true_status(root, status, name, dir_fd=fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise read_error(root, path, error) from error
    return Found(path, status, linkname)


def _true_status(
    root: SourceRoot, status: os.stat_result, name: int | bytes, *, dir_fd: int | None = None
) -> os.stat_result:
    return status if root.owners is None else root.owners.true_status(status, name, dir_fd=dir_fd)


def read_error(root: SourceRoot, path: bytes, error: OSError) -> ContextError:
    """Make the error for something selected that cannot be read."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
        return changed_error(root, path)
    return ContextError(
        f"cannot read from the {root.shown}, {os.strerror(error.errno or 0).lower()}: `{shown(path)}`",
        hint="make it readable for the user that runs the build, or leave it out with an ignore rule",
    )


def changed_error(root: SourceRoot, path: bytes) -> ContextError:
    """Make the error for a file that is not what it was when the step looked at it first."""
    return ContextError(
        f"file changed during the build in the {root.shown}: `{shown(path)}`",
        hint="let nothing write there while a build runs, and build again",
    )


def shown(path: bytes) -> str:
    """Give *path* as text for a message: absolute, as a Dockerfile names it; bytes that are no text are escaped."""
    return "/" + path.decode("utf-8", "backslashreplace")


def encode_path(text: str) -> bytes | None:
    """Give the bytes of a path that was decoded with surrogateescape; None if no path can be spelled so."""
    if "\0" in text:
        return None
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None


def active_filters(root: SourceRoot, filters: Sequence[Filter]) -> tuple[Filter, ...]:
    """Give those that leave something out, with the ignore rules of the root."""
    every = (*filters, Filter(root.ignore)) if root.ignore is not None else filters
    return tuple(one for one in every if one.rules)


def _waited(waiting: dict[bytes, Found], path: bytes) -> list[Found]:
    """Take out the left-out directories above *path*, the topmost first."""
    above = []
    while path := path.rpartition(b"/")[0]:
        item = waiting.pop(path, None)
        if item is not None:
            above.append(item)
    above.reverse()
    return above


def _entry(found: Found) -> Entry:
    status = found.stat
    return Entry(
        path=found.path,
        kind=KINDS[stat.S_IFMT(status.st_mode)],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=int(status.st_mtime),
        size=status.st_size,
        linkname=found.linkname,
    )
