"""A tree held in a dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class DictTree:
    """A `builder.tree.Tree` of entries given by hand; parents that are not given are directories 0755 0:0."""

    def __init__(self, *entries: Entry, contents: Mapping[bytes, bytes] | None = None) -> None:
        self.entries: dict[bytes, Entry] = {b"": directory(b"")}
        self.contents = dict(contents or {})
        for path in self.contents:
            self._put(file(path, size=len(self.contents[path])))
        for entry in entries:
            self._put(entry)

    def find(self, path: bytes) -> Entry | None:
        return self.entries.get(path)

    def children(self, path: bytes) -> Iterator[Entry]:
        for name in sorted(self.entries):
            if name and name.rpartition(b"/")[0] == path:
                yield self.entries[name]

    def read(self, path: bytes) -> bytes | None:
        return self.contents.get(path)

    def _put(self, entry: Entry) -> None:
        parent = entry.path.rpartition(b"/")[0]
        if parent not in self.entries:
            self._put(directory(parent))
        self.entries[entry.path] = entry


def directory(path: bytes, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int = 7) -> Entry:
    """Make the entry of a directory."""
    return Entry(path, EntryKind.DIRECTORY, mode, uid, gid, mtime)


def file(path: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 7, size: int = 0) -> Entry:
    """Make the entry of a file."""
    return Entry(path, EntryKind.FILE, mode, uid, gid, mtime, size)


def symlink(path: bytes, target: bytes) -> Entry:
    """Make the entry of a symbolic link."""
    return Entry(path, EntryKind.SYMLINK, 0o777, 0, 0, 7, 0, target)
