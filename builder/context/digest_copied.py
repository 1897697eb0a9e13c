"""Content digests of a selection that is copied anyway: each file is read once, for the layer and for the key.

The digests are those of `builder.context.digest`, taken from the bytes that go into the layer; so the record that is
kept cannot lie, whatever happens to the files meanwhile. A file that is not copied after all, because another one comes
to its place, or because it is empty, is read when everything else was.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from builder.context.digest import FileDigests, add_capability
from builder.context.local import digest_files
from builder.context.walk import changed_error

if TYPE_CHECKING:
    from builder.context.digest import ListedSource
    from builder.context.fingerprint import Fingerprints
    from builder.context.select import Selection
    from builder.context.walk import Found, Opener, SourceRoot
    from builder.source import Span


class CopiedSelection:
    """A selection on its way into a layer.

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
        listed: list[ListedSource],
        span: Span | None,
    ) -> None:
        self.files: FileDigests = {}
        self.digest = ""
        self._selection = selection
        self._fingerprints = fingerprints
        self._now_ns = now_ns
        self._listed = listed
        self._span = span

    def finish(self) -> None:
        """Digest the selection; to be called when everything was copied and before the layer is stored.

        Raises:
            ContextError: a file cannot be read, or was written to while it was copied.
        """
        self.digest = digest_files(
            self._selection,
            self._fingerprints,
            span=self._span,
            listed=self._listed,
            now_ns=self._now_ns,
            copied=self.files,
        )


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


def read_copied(
    root: SourceRoot, opener: Opener, found: Found, fd: int, capability: bytes | None
) -> tuple[bytes, bytes]:
    """Read a small file at once; gives its bytes and its digest.

    Raises:
        ContextError: the file is not what was found.
    """
    size = found[1].st_size
    data = os.read(fd, size + 1)
    if len(data) != size:
        raise changed_error(root, found[0])
    opener.check(found, fd)
    digest = hashlib.sha256(data).digest()
    return data, digest if capability is None else add_capability(digest, capability)
