"""Content digests of a selection that is copied anyway: each file is read once, for the layer and for the key.

The digests are those of `builder.context.digest`, taken from the bytes that go into the layer; so the record that is
kept cannot lie, whatever happens to the files meanwhile. A file that is not copied after all, because another one comes
to its place, or because it is empty, is read when everything else was.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from builder.context.digest import FileDigests, SourceDigests, add_capability, join_digests, with_inline
from builder.context.select import Selected
from builder.context.walk import changed_error
from builder.errors import ContextError
from registry.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.context.digest import Listed
    from builder.context.fingerprint import Fingerprints
    from builder.context.root import SourceRoot
    from builder.context.select import Chunks, Selection
    from builder.context.walk import Found, Opener
    from builder.source import Span


class CopiedSelection:
    """A selection on its way into a layer.

    Where it is one directory, what is copied of it is digested in pieces, and forgotten.

    Args:
        selection: what is copied.
        fingerprints: take the digests of the files.
        now_ns: the time, before any file is read.
        listed: takes what the digest of each source was made of.
        span: the instruction, for errors.

    Attributes:
        files: digests of the files that were copied; filled by who copies them.
        digest: that of the selection, once `finish` was called.
    """

    def __init__(
        self,
        selection: Selection,
        fingerprints: Fingerprints,
        *,
        now_ns: int,
        listed: Listed,
        span: Span | None,
    ) -> None:
        self.files: FileDigests = {}
        self.digest = ""
        self._selection = selection
        self._span = span
        self._sources = [source for source in selection.sources if isinstance(source, Selected)]
        self._digests = SourceDigests(selection.root, self._sources, fingerprints, now_ns, listed, copied=self.files)
        self._is_watched = False

    def watched(self, source: Selected) -> Selected:
        """Give the only source in a form that has everything digested a little later than it is asked for.

        To be used if each file is copied before the next one is asked for.
        """
        if isinstance(source.below, tuple):
            return source
        self._is_watched = True
        return replace(source, below=_Watched(source.below, self._take))

    def finish(self) -> None:
        """Digest the selection; to be called when everything was copied and before the layer is stored.

        Raises:
            ContextError: a file cannot be read, or was written to while it was copied.
        """
        try:
            if not self._is_watched:
                for number, source in enumerate(self._sources):
                    for chunk in source.chunks():
                        self._digests.take(number, chunk)
            digests = self._digests.finish(keep_sights=True)
        except ContextError as error:
            error.span = error.span or self._span
            raise
        self.digest = join_digests(with_inline(self._selection, digests))

    def _take(self, chunk: list[Found]) -> None:
        self._digests.take(0, chunk)
        self._digests.flush()
        self.files.clear()


class _Watched:
    """What is copied of a directory, told piece by piece when it was copied."""

    def __init__(self, below: Chunks, take: Callable[[list[Found]], None]) -> None:
        self._below = below
        self._take = take

    def __iter__(self) -> Iterator[Found]:
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[list[Found]]:
        """Give everything in lists of bounded length."""
        for chunk in self._below.chunks():
            yield chunk
            self._take(chunk)

    def sight(self) -> bytes:
        """Digest all that lstat says of it."""
        return self._below.sight()


class CopiedFile:
    """An open file that is digested while it is read.

    It reads like a binary stream as far as writers of layers ask for it.

    Args:
        root: where it was found.
        opener: has opened it.
        found: the file.
        fd: the file, at its beginning; the caller closes it.
    """

    __slots__ = ("_fd", "_found", "_left", "_opener", "_root", "_state")

    def __init__(self, root: SourceRoot, opener: Opener, found: Found, fd: int) -> None:
        self._root = root
        self._opener = opener
        self._found = found
        self._fd = fd
        self._left = found.stat.st_size
        self._state = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Give the next bytes, none at the end."""
        data = os.read(self._fd, size)
        self._state.update(data)
        self._left -= len(data)
        return data

    def digest(self, capability: bytes | None) -> bytes:
        """Give the digest once everything was read.

        Args:
            capability: of the file (`read_capability`).

        Raises:
            ContextError: the file is not what was found until now.
        """
        if self._left:
            raise changed_error(self._root, self._found.path)
        self._opener.check(self._found, self._fd)
        return add_capability(self._state.digest(), capability)
