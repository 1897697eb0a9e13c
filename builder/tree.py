"""The tree of a file system, as values: what a COPY asks of the image it writes onto.

A *tree* answers what lies at a path without anything being mounted or unpacked. Paths are bytes as in
`runtime.layers.entry`: relative to the root, no leading or trailing slash, b"" is the root itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from builder.errors import CopyError
from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAXIMUM_LINKS = 40
"""Symbolic links followed in one path before it counts as a loop. Source: path_resolution(7)."""

ROOT = Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime=0)
"""The root of a tree of which nothing else is known."""


class Names(Protocol):
    """What paths can be looked up in."""

    def find(self, path: bytes) -> Entry | None:
        """Find the entry at exactly *path*, following no symbolic link; the root is always there, as a directory."""
        ...


class Tree(Names, Protocol):
    """A file system that can be asked."""

    def children(self, path: bytes) -> Iterable[Entry]:
        """Give the entries directly in the directory *path*; nothing if it is no directory."""
        ...

    def read(self, path: bytes) -> bytes | None:
        """Give the content of a small file such as `etc/passwd`, or None if there is no file at exactly *path*."""
        ...


def resolve(tree: Names, path: bytes, *, follow_last: bool) -> bytes:
    """Follow the symbolic links in *path* inside *tree*.

    What does not exist is kept as it is written, so the result may name something that is still to be made. `..` at
    the root stays at the root; absolute links start at the root of the tree.

    Args:
        tree: where the links lie.
        path: absolute or relative to the root, in any spelling.
        follow_last: follow a link that is the last part, too.

    Returns:
        The path without links, in the form of `Entry.path`.

    Raises:
        CopyError: more than 40 links, which is a loop.

    Source: path_resolution(7), with the root as chroot(2) sets it.
    """
    todo = path.split(b"/")
    todo.reverse()
    done: list[bytes] = []
    links = 0
    while todo:
        part = todo.pop()
        if part in {b"", b"."}:
            continue
        if part == b"..":
            del done[-1:]
            continue
        done.append(part)
        if not follow_last and not any(todo):
            continue
        entry = tree.find(b"/".join(done))
        if entry is None or entry.kind is not EntryKind.SYMLINK:
            continue
        links += 1
        if links > MAXIMUM_LINKS:
            shown = path.decode("utf-8", "surrogateescape").lstrip("/")
            raise CopyError(
                f"too many levels of symbolic links: `/{shown}`",
                hint="copy to another path, or remove the links in an earlier RUN",
            )
        done = [] if entry.linkname.startswith(b"/") else done[:-1]
        todo.extend(reversed(entry.linkname.split(b"/")))
    return b"/".join(done)


class OverlayTree:
    """A tree with entries put on top of it, as a layer does to the image below.

    A directory put over a directory keeps what lies in it; anything else hides what was at its path and below it.

    Args:
        below: the tree that is covered; it is never changed.
    """

    def __init__(self, below: Tree) -> None:
        self._below = below
        self.added: dict[bytes, Entry] = {}
        self._hidden: set[bytes] = set()

    def add(self, entry: Entry) -> None:
        """Put *entry* on top; its parents must be there."""
        path = entry.path
        if entry.kind is EntryKind.DIRECTORY:
            covered = self.find(path)
            if covered is None or covered.kind is not EntryKind.DIRECTORY:
                self._hidden.add(path)
        else:
            self._hidden.add(path)
        self.added[path] = entry

    def find(self, path: bytes) -> Entry | None:
        """Find the entry at exactly *path*, the added ones first."""
        entry = self.added.get(path)
        if entry is not None:
            return entry if not self._replaced(path) else None
        return None if self._hides(path) else self._below.find(path)

    def children(self, path: bytes) -> Iterator[Entry]:
        """Give the entries directly in a directory. Looks through all added entries."""
        prefix = path + b"/" if path else b""
        start = len(prefix)
        added = self.added
        if not (path in self._hidden or self._hides(path)):
            yield from (entry for entry in self._below.children(path) if entry.path not in added)
        for name, entry in added.items():
            if name and name.startswith(prefix) and b"/" not in name[start:] and not self._replaced(name):
                yield entry

    def children_below(self, path: bytes) -> Iterable[Entry]:
        """Give what the covered tree shows in a directory, without the added entries."""
        return () if path in self._hidden or self._hides(path) else self._below.children(path)

    def read(self, path: bytes) -> bytes | None:
        """Give the content of a small file of the covered tree; None for added files, whose content is elsewhere."""
        return None if path in self.added or self._hides(path) else self._below.read(path)

    def _hides(self, path: bytes) -> bool:
        """Tell whether something added hides what the covered tree has at *path*, by a folder above it."""
        if not self._hidden:
            return False
        hidden = self._hidden
        at = path.rfind(b"/")
        while at > 0:
            if path[:at] in hidden:
                return True
            at = path.rfind(b"/", 0, at)
        return False

    def _replaced(self, path: bytes) -> bool:
        """Tell whether an added entry lies below one that was later replaced by something that is no directory."""
        at = path.rfind(b"/")
        while at > 0:
            above = self.added.get(path[:at])
            if above is not None and above.kind is not EntryKind.DIRECTORY:
                return True
            at = path.rfind(b"/", 0, at)
        return False


class Below:
    """What *tree* has below the directory *base*, with that as the root."""

    def __init__(self, tree: Names, base: bytes) -> None:
        self._tree = tree
        self._base = base

    def find(self, path: bytes) -> Entry | None:
        """Find the entry at exactly *path* below the directory."""
        return self._tree.find(b"/".join(filter(None, (self._base, path))))


class EmptyTree:
    """The tree of `scratch`, and of the layer of a `COPY --link`: a root directory and nothing in it."""

    def find(self, path: bytes) -> Entry | None:
        """Find the root; nothing else is there."""
        return None if path else ROOT

    def children(self, path: bytes) -> Iterable[Entry]:  # noqa: ARG002 - nothing anywhere
        """Give nothing."""
        return ()

    def read(self, path: bytes) -> bytes | None:  # noqa: ARG002 - nothing anywhere
        """Give nothing."""
        return None
