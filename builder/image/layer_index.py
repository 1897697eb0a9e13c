"""The trees of layers, indexed: what a COPY needs to know of the file system below it without unpacking it.

Each layer's tar entries become rows of the state database once, when the layer is made or first asked about. A chain
of layers is then a tree (`IndexTree`): a path is looked up layer by layer from the top, with the whiteouts and opaque
directories of image-spec, layer.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.layers.entry import Entry, EntryKind
from runtime.layers.whiteouts import OPAQUE_NAME, WHITEOUT_PREFIX

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from builder.cache.state import State
    from registry.oci.digest import Digest

_KINDS = tuple(EntryKind)
_KIND_CODES = {kind: code for code, kind in enumerate(_KINDS)}
_WHITEOUT, _OPAQUE, _IMPLICIT = 100, 101, 102
"""Codes of rows that are no entry: a deletion, an emptied directory (name b""), a parent that has no entry of its own."""

_Row = tuple[int, int, int, int, int, int, bytes]
"""kind code, mode, uid, gid, mtime, size, linkname"""

_ROOT = Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime=0)
_UNKNOWN: _Row = (_IMPLICIT, 0, 0, 0, 0, 0, b"")
_IMPLICIT_ROW: _Row = (_KIND_CODES[EntryKind.DIRECTORY], 0o755, 0, 0, 0, 0, b"")


class LayerIndex:
    """The indexed layers of a state database."""

    def __init__(self, state: State) -> None:
        self._state = state

    def has(self, diff_id: Digest) -> bool:
        """Tell whether the tree of a layer is known."""
        return self._find_id(diff_id) is not None

    def put(self, diff_id: Digest, entries: Iterable[Entry]) -> None:
        """Keep the tree of a layer. Idempotent; other processes see all of it or nothing."""
        rows = _rows(entries)
        with self._state.writing() as connection:
            known = connection.execute("SELECT 1 FROM layer WHERE diff_id = ?", (diff_id,)).fetchone()
            if known:
                return
            layer = connection.execute("INSERT INTO layer(diff_id) VALUES(?)", (diff_id,)).lastrowid
            connection.executemany(
                f"INSERT INTO tree VALUES({layer}, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((parent, name, *row) for (parent, name), row in rows.items()),
            )

    def tree(self, diff_ids: Sequence[Digest], read_file: Callable[[bytes], bytes | None]) -> IndexTree:
        """Give the tree of a chain of layers, base first; all must be known.

        Args:
            diff_ids: the layers.
            read_file: gives the content of a small file of that tree by its path.
        """
        identifiers = [self._find_id(diff_id) for diff_id in diff_ids]
        return IndexTree(self._state, [found for found in reversed(identifiers) if found is not None], read_file)

    def _find_id(self, diff_id: Digest) -> int | None:
        with self._state.reading() as connection:
            row = connection.execute("SELECT id FROM layer WHERE diff_id = ?", (diff_id,)).fetchone()
        return row[0] if row else None


class IndexTree:
    """The tree that a chain of layers makes, read from the index.

    Args:
        state: the database.
        layers: row ids, top first.
        read_file: gives the content of a small file.
    """

    def __init__(self, state: State, layers: Sequence[int], read_file: Callable[[bytes], bytes | None]) -> None:
        self._state = state
        self._layers = layers
        self._read_file = read_file
        self._found: dict[bytes, Entry | None] = {b"": _ROOT}

    def find(self, path: bytes) -> Entry | None:
        """Find the entry at exactly *path*, following no symbolic link; b"" is the root."""
        if path not in self._found:
            self._found[path] = self._look_up(path)
        return self._found[path]

    def children(self, path: bytes) -> Iterator[Entry]:
        """Give the entries directly in a directory, sorted by name."""
        found: dict[bytes, _Row] = {}
        hidden: set[bytes] = set()
        with self._state.reading() as connection:
            for layer in self._layers:
                rows = connection.execute(
                    "SELECT name, kind, mode, uid, gid, mtime, size, linkname FROM tree WHERE layer = ? AND parent = ?",
                    (layer, path),
                )
                for name, *values in rows:
                    if values[0] == _OPAQUE:
                        continue
                    if values[0] == _WHITEOUT:
                        hidden.add(name)
                    elif name not in hidden and found.get(name, _UNKNOWN)[0] == _IMPLICIT:
                        found[name] = tuple(values)
                if self._hides(connection, layer, path_of(path, b"?")):
                    break
        prefix = path + b"/" if path else b""
        for name in sorted(found):
            yield _entry(prefix + name, found[name])

    def read(self, path: bytes) -> bytes | None:
        """Give the content of a small file, or None if there is no such file."""
        entry = self.find(path)
        if entry is None or entry.kind not in (EntryKind.FILE, EntryKind.HARDLINK):
            return None
        return self._read_file(path)

    def _look_up(self, path: bytes) -> Entry | None:
        implicit = False
        with self._state.reading() as connection:
            for layer in self._layers:
                parent, _, name = path.rpartition(b"/")
                row = connection.execute(
                    "SELECT kind, mode, uid, gid, mtime, size, linkname FROM tree "
                    "WHERE layer = ? AND parent = ? AND name = ?",
                    (layer, parent, name),
                ).fetchone()
                if row is not None and row[0] == _WHITEOUT:
                    break
                if row is not None and row[0] != _IMPLICIT:
                    return _entry(path, row)
                implicit = implicit or row is not None
                if self._hides(connection, layer, path):
                    break
        return _entry(path, _IMPLICIT_ROW) if implicit else None

    @staticmethod
    def _hides(connection: sqlite3.Connection, layer: int, path: bytes) -> bool:
        """Tell whether a layer hides what lower layers have at *path*, by what it says of the folders above it."""
        at = path.find(b"/")
        ancestors = [b""]
        while at >= 0:
            ancestors.append(path[:at])
            at = path.find(b"/", at + 1)
        for ancestor in ancestors:
            opaque = connection.execute(
                "SELECT 1 FROM tree WHERE layer = ? AND parent = ? AND name = x''", (layer, ancestor)
            ).fetchone()
            if opaque:
                return True
            if not ancestor:
                continue
            parent, _, name = ancestor.rpartition(b"/")
            row = connection.execute(
                "SELECT kind FROM tree WHERE layer = ? AND parent = ? AND name = ?", (layer, parent, name)
            ).fetchone()
            if row is not None and row[0] not in (_KIND_CODES[EntryKind.DIRECTORY], _IMPLICIT):
                return True
        return False


def _rows(entries: Iterable[Entry]) -> dict[tuple[bytes, bytes], _Row]:
    rows: dict[tuple[bytes, bytes], _Row] = {}
    folders: set[bytes] = {b""}
    for entry in entries:
        path = entry.path
        if not path:
            continue
        parent, _, name = path.rpartition(b"/")
        if parent not in folders:
            _add_implicit(rows, folders, parent)
        if name == OPAQUE_NAME:
            rows[parent, b""] = (_OPAQUE, 0, 0, 0, 0, 0, b"")
        elif name.startswith(WHITEOUT_PREFIX):
            hidden = name[len(WHITEOUT_PREFIX) :]
            if (parent, hidden) in rows:
                rows[path_of(parent, hidden), b""] = (_OPAQUE, 0, 0, 0, 0, 0, b"")
            else:
                rows[parent, hidden] = (_WHITEOUT, 0, 0, 0, 0, 0, b"")
        else:
            if rows.get((parent, name), _IMPLICIT_ROW)[0] == _WHITEOUT:
                rows[path, b""] = (_OPAQUE, 0, 0, 0, 0, 0, b"")
            rows[parent, name] = (
                _KIND_CODES[entry.kind],
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime,
                entry.size,
                entry.linkname,
            )
            if entry.kind is EntryKind.DIRECTORY:
                folders.add(path)
    return rows


def _add_implicit(rows: dict[tuple[bytes, bytes], _Row], folders: set[bytes], path: bytes) -> None:
    while path not in folders:
        folders.add(path)
        parent, _, name = path.rpartition(b"/")
        rows.setdefault((parent, name), (_IMPLICIT, *_IMPLICIT_ROW[1:]))
        path = parent


def path_of(parent: bytes, name: bytes) -> bytes:
    """Join a folder of a tree and a name in it."""
    return parent + b"/" + name if parent else name


def _entry(path: bytes, row: _Row) -> Entry:
    code, mode, uid, gid, mtime, size, linkname = row
    kind = EntryKind.DIRECTORY if code == _IMPLICIT else _KINDS[code]
    return Entry(path=path, kind=kind, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, linkname=bytes(linkname))
