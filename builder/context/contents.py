"""What is copied of a directory, a few thousand files at a time, however many there are.

A *sight* is the digest of all that lstat(2) says of it; see `builder.context.fingerprint`.
"""

from __future__ import annotations

import hashlib
import marshal
import os
from itertools import islice
from typing import TYPE_CHECKING

from builder.context.walk import CHUNK, Found, changed_error, walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from builder.context.walk import Filter, SourceRoot


class Contents:
    """What is copied of a directory: each directory before what is in it, names in byte order.

    It is looked for when somebody asks. What was found is remembered if there is room in the source root; if not, it is
    looked for each time, and has to be the same each time. Used from many threads.

    Args:
        root: where to read.
        path: an existing directory, free of symbolic links.
        filters: what to leave out, besides the ignore rules of the root.
    """

    __slots__ = ("_filters", "_kept", "_marks", "_path", "_root")

    def __init__(self, root: SourceRoot, path: bytes, *, filters: Sequence[Filter] = ()) -> None:
        self._root = root
        self._path = path
        self._filters = filters
        self._kept: list[list[Found]] | None = None
        self._marks: list[bytes] | None = None

    def __iter__(self) -> Iterator[Found]:
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[list[Found]]:
        """Give everything in lists of up to `CHUNK`.

        Raises:
            ContextError: something cannot be read, or something is not as it was the last time.
        """
        if self._kept is not None:
            yield from self._kept
        else:
            yield from self._look()

    def is_empty(self) -> bool:
        """Tell whether nothing is copied."""
        return next(walk(self._root, self._path, filters=self._filters), None) is None

    def sight(self) -> bytes:
        """Digest all that lstat says, but times of access: the same again is the same content."""
        if self._marks is None:
            for _ in self.chunks():
                pass
        return hashlib.sha256(b"".join(self._marks or ())).digest()

    def _look(self) -> Iterator[list[Found]]:
        before, marks = self._marks, list[bytes]()
        room, kept = self._root.room, list[list[Found]]()
        is_kept, taken = True, 0
        try:
            for chunk in _in_chunks(walk(self._root, self._path, filters=self._filters)):
                marks.append(_mark(chunk))
                if before is not None and before[len(marks) - 1 : len(marks)] != marks[-1:]:
                    raise changed_error(self._root, _folder_of(chunk))
                is_kept = is_kept and room.left >= len(chunk)
                if is_kept:
                    room.left -= len(chunk)
                    taken += len(chunk)
                    kept.append(chunk)
                else:
                    kept.clear()
                yield chunk
            if before is not None and len(before) != len(marks):
                raise changed_error(self._root, self._path)
            self._marks = marks
            if is_kept and self._kept is None:
                self._kept = kept
                taken = 0
        finally:
            room.left += taken


def _in_chunks(found: Iterator[Found]) -> Iterator[list[Found]]:
    while chunk := list(islice(found, CHUNK)):
        yield chunk


def _mark(chunk: Iterable[Found]) -> bytes:
    """Digest what lstat says; marshal is the quickest encoder that tells any two values apart.

    Its version 2 has no references, so equal values have equal bytes.
    """
    rows = [
        (path, status[:7], status.st_mtime_ns, status.st_ctime_ns, status.st_rdev, linkname)
        for path, status, linkname in chunk
    ]
    return hashlib.sha256(marshal.dumps(rows, 2)).digest()


def _folder_of(chunk: Sequence[Found]) -> bytes:
    """Give the directory in which all of a chunk lies."""
    return os.path.commonpath([found.path.rpartition(b"/")[0] for found in (chunk[0], chunk[-1])])


def digest_found(found: Found) -> bytes:
    """Digest what lstat says of one thing, as `Contents.sight` does of many."""
    return hashlib.sha256(_mark([found])).digest()
