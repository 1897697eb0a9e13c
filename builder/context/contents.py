"""What is copied of a directory, a few thousand files at a time, however many there are.

A *sight* is the digest of all that lstat(2) says of it; see `builder.context.fingerprint` and `builder.context.sight`.
"""

from __future__ import annotations

import hashlib
import marshal
import os
from itertools import islice
from typing import TYPE_CHECKING

from builder.context.walk import CHUNK, Found, active_filters, changed_error, row_of, walk_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from builder.context.batch import Batch
    from builder.context.root import SourceRoot
    from builder.context.sight import Look
    from builder.context.walk import Filter


class Contents:
    """What is copied of a directory: each directory before what is in it, names in byte order.

    It is looked for when somebody asks. What was found is remembered if there is room in the source root; if not, it is
    looked for each time, and has to be the same each time. Used from many threads.

    Args:
        root: where to read.
        path: an existing directory, free of symbolic links.
        filters: what to leave out, besides the ignore rules of the root.
    """

    __slots__ = ("_active", "_kept", "_look", "_marks", "_path", "_root", "_sight")

    def __init__(self, root: SourceRoot, path: bytes, *, filters: Sequence[Filter] = ()) -> None:
        self._root = root
        self._path = path
        self._active = active_filters(root, filters)
        self._look: Look | None = None
        self._kept: list[list[Found]] | None = None
        self._marks: list[int] | None = None
        self._sight: int | None = None

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
            yield from self._walk() if self._look is None else self._from_look(self._look)

    def is_empty(self) -> bool:
        """Tell whether nothing is copied."""
        return next(walk_batches(self._read, self._path), None) is None

    def sight(self) -> bytes:
        """Digest all that lstat says, but times of access: the same again is the same content."""
        if self._sight is None:
            from builder.context.sight import look_below  # noqa: PLC0415  only where a directory is copied

            look = look_below(self._root, self._path, self._active, room=self._root.room.left)
            self._sight = look.mark
            if look.is_kept:
                self._root.room.left -= look.count
                self._look = look
        return hashlib.sha256(b"%x" % self._sight).digest()

    def _read(self, folder: bytes) -> Iterable[Batch]:
        from builder.context.batch import read_batches  # noqa: PLC0415  only where a directory is copied

        return read_batches(self._root, folder, self._active)

    def _from_look(self, look: Look) -> Iterator[list[Found]]:
        """Give what was seen already; there is room for it."""
        kept: list[list[Found]] = []
        for chunk in _in_chunks(walk_batches(look.batches, self._path)):
            kept.append(chunk)
            yield chunk
        self._kept, self._look = kept, None

    def _walk(self) -> Iterator[list[Found]]:
        from builder.context.batch import mark_facts  # noqa: PLC0415  only where a directory is copied

        mark = 0

        def read(folder: bytes) -> Iterator[Batch]:
            nonlocal mark
            for batch in self._read(folder):
                mark += mark_facts(batch.facts())
                yield batch

        before, marks = self._marks, list[int]()
        room, kept = self._root.room, list[list[Found]]()
        is_kept, taken = True, 0
        try:
            for chunk in _in_chunks(walk_batches(read, self._path)):
                marks.append(mark)
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
            if self._sight is not None and self._sight != mark:
                raise changed_error(self._root, self._path)
            self._marks, self._sight = marks, mark
            if is_kept and self._kept is None:
                self._kept = kept
                taken = 0
        finally:
            room.left += taken


def _in_chunks(found: Iterator[Found]) -> Iterator[list[Found]]:
    while chunk := list(islice(found, CHUNK)):
        yield chunk


def _folder_of(chunk: Sequence[Found]) -> bytes:
    """Give the directory in which all of a chunk lies."""
    return os.path.commonpath([found.path.rpartition(b"/")[0] for found in (chunk[0], chunk[-1])])


def digest_found(found: Found) -> bytes:
    """Digest what lstat says of one thing, as `Contents.sight` does of many."""
    return hashlib.sha256(marshal.dumps((found.path, row_of(found.stat), found.linkname), 2)).digest()
