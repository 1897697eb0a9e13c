"""What lies directly in a directory of a source root, read in batches.

A *batch* is up to `CHUNK` things of one directory, names in byte order; most directories are one. Its *facts* are the
bytes of all that lstat(2) says of them, but times of access: the same again is the same content. Its *mark* is a number
for them.

Most of what a build of many files costs that is cached is spent here, so what is done for each thing is done by loops
in C. Filling struct statx for a whole directory through ctypes was tried instead of `DirEntry.stat`, and takes as long.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import sys
from itertools import chain, islice, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from builder.context.walk import CHUNK, Found, read_error, row_of
from runtime.paths import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from builder.context.root import SourceRoot
    from builder.context.walk import Filter
    from builder.errors import ContextError

_LARGE_DIRECTORY: Final = 1 << 13
"""Of what lies directly in a larger directory, only the names are in memory at a time."""

_ENCODING: Final = sys.getfilesystemencoding()
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_name_of = attrgetter("name")
_mode_of = attrgetter("st_mode")


class Batch(NamedTuple):
    """Things that lie directly in one directory.

    Attributes:
        folder: the directory, relative to the source root.
        names: in byte order.
        statuses: of each name, as lstat(2) gave it.
        links: text of each symbolic link, by its name.
        hidden: directories among them that a filter leaves out, though something below them may be kept.
    """

    folder: bytes
    names: list[bytes]
    statuses: list[os.stat_result]
    links: dict[bytes, bytes]
    hidden: frozenset[bytes] = frozenset()

    def found(self) -> list[Found]:
        """Give the things one by one."""
        prefix, links = _prefix(self.folder), self.links
        paths = [prefix + name for name in self.names]
        texts: Iterable[bytes] = [links.get(name, b"") for name in self.names] if links else repeat(b"")
        # Found(...) runs a function of the interpreter and costs three times as much as the tuple behind it.
        return list(map(tuple.__new__, repeat(Found), zip(paths, self.statuses, texts, strict=False)))

    def folders(self) -> list[bytes]:
        """Give the directories among them, in byte order."""
        prefix, names = _prefix(self.folder), self.names
        return [prefix + names[at] for at, mode in _others(self.statuses) if stat.S_ISDIR(mode)]

    def facts(self) -> bytes:
        """Give all that lstat says; `from_facts` gives the batch again.

        marshal is the quickest encoder that tells any two values apart. Its version 2 has no references, so equal values
        have equal bytes.
        """
        rows = list(map(row_of, self.statuses))
        return marshal.dumps((self.folder, self.names, rows, self.links, sorted(self.hidden)), 2)


def from_facts(facts: bytes) -> Batch:
    """Give the batch of these facts; times of access and numbers of blocks are 0."""
    folder, names, rows, links, hidden = marshal.loads(facts)  # noqa: S302  made by this program
    # Where the times with fractions are None, those in seconds stand for them, which nobody has told mypy.
    make: Callable[[tuple[int | None, ...]], os.stat_result] = os.stat_result  # type: ignore[assignment]  # as above
    second = 1_000_000_000
    statuses = [
        make(
            (mode, ino, dev, nlink, uid, gid, size, 0, m // second, c // second, None, None, None, 0, m, c, 0, 0, rdev)
        )
        for mode, ino, dev, nlink, uid, gid, size, m, c, rdev in rows
    ]
    return Batch(folder, names, statuses, links, frozenset(hidden))


def mark_facts(facts: bytes) -> int:
    """Give a mark; the sum of the marks of many batches is one for all of them, in whatever order they were read.

    Sums of digests can be forged by who chooses freely what is digested. Nobody does: numbers of inodes and times of
    change, which are among the facts, are the kernel's.
    """
    return int.from_bytes(hashlib.sha256(facts).digest(), "big")


def read_batches(root: SourceRoot, folder: bytes, active: Sequence[Filter]) -> Iterable[Batch]:
    """Read what lies directly in a directory, as far as filters leave it.

    Args:
        root: where to read.
        folder: an existing directory, free of symbolic links.
        active: what is left out.

    Raises:
        ContextError: something that is selected cannot be read, or went away meanwhile.
    """
    try:
        fd = open_in_root(root.fd, folder or b".", _OPEN_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                first = list(islice(entries, _LARGE_DIRECTORY))
                if len(first) < _LARGE_DIRECTORY:
                    by_name = dict(zip(_encode(first), first, strict=True))
                    names, hidden = _filter(folder, sorted(by_name), active)
                    statuses = [by_name[name].stat(follow_symlinks=False) for name in names]
                    return (_make_batch(root, folder, names, statuses, hidden, fd),)
                names = sorted(_encode(chain(first, entries)))
        finally:
            os.close(fd)
    except OSError as error:
        raise _named_error(root, folder, error) from error
    return _read_large(root, folder, names, active)


def _read_large(root: SourceRoot, folder: bytes, names: list[bytes], active: Sequence[Filter]) -> Iterator[Batch]:
    for start in range(0, len(names), CHUNK):
        kept, hidden = _filter(folder, names[start : start + CHUNK], active)
        try:
            # Not left open: a directory of them may lie in another one, and so on.
            fd = open_in_root(root.fd, folder or b".", _OPEN_DIRECTORY)
            try:
                statuses = [os.stat(name, dir_fd=fd, follow_symlinks=False) for name in kept]
                batch = _make_batch(root, folder, kept, statuses, hidden, fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _named_error(root, folder, error) from error
        yield batch


def _encode(entries: Iterable[os.DirEntry[str]]) -> list[bytes]:
    # No name holds a NUL, so all are encoded at once.
    text = "\0".join(map(_name_of, entries))
    return text.encode(_ENCODING, "surrogateescape").split(b"\0") if text else []


def _filter(folder: bytes, names: list[bytes], active: Sequence[Filter]) -> tuple[list[bytes], set[bytes]]:
    """Give the names that are not left out, and those among them that are but for what may lie below them."""
    if not active:
        return names, set()
    prefix, kept, hidden = _prefix(folder), list[bytes](), set[bytes]()
    for name in names:
        path = prefix + name
        hiding = [one for one in active if one.rules.matches(path[one.skip :])]
        if hiding:
            if not all(one.rules.may_reopen(path[one.skip :]) for one in hiding):
                continue
            hidden.add(name)
        kept.append(name)
    return kept, hidden


def _make_batch(
    root: SourceRoot, folder: bytes, names: list[bytes], statuses: list[os.stat_result], hidden: set[bytes], fd: int
) -> Batch:
    if hidden:  # only directories have anything below them
        kept = [at for at, name in enumerate(names) if name not in hidden or stat.S_ISDIR(statuses[at].st_mode)]
        names, statuses = [names[at] for at in kept], [statuses[at] for at in kept]
        hidden.intersection_update(names)
    links = {names[at]: os.readlink(names[at], dir_fd=fd) for at, mode in _others(statuses) if stat.S_ISLNK(mode)}
    owners = root.owners
    if owners is not None and owners.recorded:
        statuses = [owners.true_status(status, name, dir_fd=fd) for name, status in zip(names, statuses, strict=True)]
    return Batch(folder, names, statuses, links, frozenset(hidden))


def _others(statuses: Sequence[os.stat_result]) -> list[tuple[int, int]]:
    """Give place and mode of what is no regular file."""
    modes = list(map(_mode_of, statuses))
    others = {mode for mode in set(modes) if not stat.S_ISREG(mode)}
    return [(at, mode) for at, mode in enumerate(modes) if mode in others] if others else []


def _prefix(folder: bytes) -> bytes:
    return folder + b"/" if folder else b""


def _named_error(root: SourceRoot, folder: bytes, error: OSError) -> ContextError:
    """Make the error for what cannot be read: the name that was looked at, or the directory."""
    name = error.filename
    return read_error(root, _prefix(folder) + os.fsencode(name) if isinstance(name, str | bytes) else folder, error)
