"""The trees of layers, indexed: what a COPY needs to know of the file system below it without unpacking it.

Each layer's tar entries go into the state database once, when the layer is made or first asked about: one row a folder,
which holds what the layer says of the names in it as JSON, `{name: row}`. A row an entry takes twice as long to
write. Here names are text of which each character is a byte (latin-1). A chain of layers is then a tree (`IndexTree`): a path is looked up layer by layer from the top,
with the whiteouts and opaque directories of image-spec, layer.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runtime.layers.entry import Entry, EntryKind
from runtime.layers.whiteouts import OPAQUE_NAME, WHITEOUT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from builder.cache.state import State
    from registry.oci.digest import Digest

_KINDS = tuple(EntryKind)
_KIND_CODES = {kind: code for code, kind in enumerate(_KINDS)}
_BYTES = "latin-1"
_WHITEOUT_PREFIX, _OPAQUE_NAME = WHITEOUT_PREFIX.decode(), OPAQUE_NAME.decode()
_DIRECTORY = _KIND_CODES[EntryKind.DIRECTORY]
_WHITEOUT, _OPAQUE, _IMPLICIT = 100, 101, 102
"""Codes of rows that are no entry: a deletion, an emptied directory (name ""), a parent that has no entry of its own."""

_Row = tuple[int, int, int, int, int, int, str]
"""kind code, mode, uid, gid, mtime, size, linkname"""

_Folder = dict[str, _Row]
"""What one layer says of the names in a folder."""

_ROOT = Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime=0)
_OPAQUE_ROW: _Row = (_OPAQUE, 0, 0, 0, 0, 0, "")
_WHITEOUT_ROW: _Row = (_WHITEOUT, 0, 0, 0, 0, 0, "")
_IMPLICIT_ROW: _Row = (_IMPLICIT, 0o755, 0, 0, 0, 0, "")


class LayerIndex:
    """The indexed layers of a state database."""

    def __init__(self, state: State) -> None:
        self._state = state

    def has(self, diff_id: Digest) -> bool:
        """Tell whether the tree of a layer is known."""
        return self._find_id(diff_id) is not None

    def put(self, diff_id: Digest, entries: Iterable[Entry]) -> None:
        """Keep the tree of a layer. Idempotent; other processes see all of it or nothing."""
        self._put(diff_id, ((path.encode(_BYTES), _to_json(folder)) for path, folder in _folders(entries).items()))

    def put_rows(self, diff_id: Digest, rows: TreeRows) -> None:
        """Keep the tree of a layer that was taken in before; otherwise as `put`."""
        self._put(diff_id, rows.finish())

    def _put(self, diff_id: Digest, folders: Iterable[tuple[bytes, str]]) -> None:
        with self._state.writing() as connection:
            known = connection.execute("SELECT 1 FROM layer WHERE diff_id = ?", (diff_id,)).fetchone()
            if known:
                return
            layer = connection.execute("INSERT INTO layer(diff_id) VALUES(?)", (diff_id,)).lastrowid
            connection.executemany(f"INSERT INTO tree VALUES({layer}, ?, ?)", folders)

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


class TreeRows:
    """The tree of a layer on its way into the index, which takes little memory.

    For entries in the order of a tar that is sorted, without deletions: each directory before its contents, and what is
    in one directory together.

    Args:
        folder: where it lies while it is large.
    """

    def __init__(self, folder: Path) -> None:
        from builder.cache.spool import Spool  # noqa: PLC0415  a build that is cached makes no layer

        self._spool = Spool(folder)
        self._open: list[tuple[bytes, _Folder]] = [(b"", {})]

    def add(self, entry: Entry) -> None:
        """Take the next entry."""
        path, kind, mode, uid, gid, mtime, size, linkname, _, _ = entry
        if not path:
            return
        at = path.rfind(b"/")
        parent = path[:at] if at > 0 else b""
        opened = self._open
        while opened[-1][0] != parent:
            self._close()
        name = path[at + 1 :].decode(_BYTES)
        opened[-1][1][name] = (_KIND_CODES[kind], mode, uid, gid, mtime, size, linkname.decode(_BYTES))
        if kind is EntryKind.DIRECTORY:
            opened.append((path, {}))

    def finish(self) -> Iterator[tuple[bytes, str]]:
        """Give the rows of all folders; nothing can be added any more."""
        while self._open:
            self._close()
        rows = iter(self._spool)
        for folder in rows:
            yield folder, next(rows).decode()

    def _close(self) -> None:
        path, folder = self._open.pop()
        self._spool.add(path)
        self._spool.add(_to_json(folder).encode())


def _to_json(folder: _Folder) -> str:
    return json.dumps(folder, separators=(",", ":"))


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
        self._folders: dict[tuple[int, bytes], _Folder] = {}

    def find(self, path: bytes) -> Entry | None:
        """Find the entry at exactly *path*, following no symbolic link; b"" is the root."""
        if path not in self._found:
            self._found[path] = self._look_up(path)
        return self._found[path]

    def children(self, path: bytes) -> Iterator[Entry]:
        """Give the entries directly in a directory, sorted by name."""
        found: _Folder = {}
        hidden: set[str] = set()
        for layer in self._layers:
            for name, row in self._folder(layer, path).items():
                if row[0] == _OPAQUE:
                    continue
                if row[0] == _WHITEOUT:
                    hidden.add(name)
                elif name not in hidden and found.get(name, _IMPLICIT_ROW)[0] == _IMPLICIT:
                    found[name] = row
            if self._hides(layer, path_of(path, b"?")):
                break
        prefix = path + b"/" if path else b""
        for name in sorted(found):
            yield _entry(prefix + name.encode(_BYTES), found[name])

    def read(self, path: bytes) -> bytes | None:
        """Give the content of a small file, or None if there is no such file."""
        entry = self.find(path)
        if entry is None or entry.kind not in (EntryKind.FILE, EntryKind.HARDLINK):
            return None
        return self._read_file(path)

    def _look_up(self, path: bytes) -> Entry | None:
        parent, _, name = path.rpartition(b"/")
        implicit = False
        for layer in self._layers:
            row = self._folder(layer, parent).get(name.decode(_BYTES))
            if row is not None and row[0] == _WHITEOUT:
                break
            if row is not None and row[0] != _IMPLICIT:
                return _entry(path, row)
            implicit = implicit or row is not None
            if self._hides(layer, path):
                break
        return _entry(path, _IMPLICIT_ROW) if implicit else None

    def _hides(self, layer: int, path: bytes) -> bool:
        """Tell whether a layer hides what lower layers have at *path*, by what it says of the folders above it."""
        parent, at = b"", 0
        while True:
            folder = self._folder(layer, parent)
            if "" in folder:
                return True
            end = path.find(b"/", at)
            if end < 0:
                return False
            row = folder.get(path[at:end].decode(_BYTES))
            if row is not None and row[0] not in (_DIRECTORY, _IMPLICIT):
                return True
            parent, at = path[:end], end + 1

    def _folder(self, layer: int, path: bytes) -> _Folder:
        key = (layer, path)
        if key not in self._folders:
            with self._state.reading() as connection:
                row = connection.execute("SELECT names FROM tree WHERE layer = ? AND folder = ?", key).fetchone()
            self._folders[key] = json.loads(row[0]) if row else {}
        return self._folders[key]


def _folders(entries: Iterable[Entry]) -> dict[str, _Folder]:
    folders: dict[str, _Folder] = {"": {}}
    directory = EntryKind.DIRECTORY
    for entry in entries:
        path, kind, mode, uid, gid, mtime, size, linkname = entry[:8]
        if not path:
            continue
        text = path.decode(_BYTES)
        parent, _, name = text.rpartition("/")
        folder = folders.get(parent)
        if folder is None:
            folder = _add_implicit(folders, parent)
        if not name.startswith(_WHITEOUT_PREFIX):
            if folder.get(name, _IMPLICIT_ROW)[0] == _WHITEOUT:
                folders.setdefault(text, {})[""] = _OPAQUE_ROW
            folder[name] = (_KIND_CODES[kind], mode, uid, gid, mtime, size, linkname.decode(_BYTES))
            if kind is directory:
                folders.setdefault(text, {})
        elif name == _OPAQUE_NAME:
            folder[""] = _OPAQUE_ROW
        else:
            hidden = name[len(_WHITEOUT_PREFIX) :]
            if hidden in folder:
                folders.setdefault(f"{parent}/{hidden}" if parent else hidden, {})[""] = _OPAQUE_ROW
            else:
                folder[hidden] = _WHITEOUT_ROW
    return folders


def _add_implicit(folders: dict[str, _Folder], path: str) -> _Folder:
    """Make a folder that has no entry, with those above it."""
    made: _Folder = {}
    folders[path] = made
    while path:
        parent, _, name = path.rpartition("/")
        is_new = parent not in folders
        folders.setdefault(parent, {}).setdefault(name, _IMPLICIT_ROW)
        if not is_new:
            break
        path = parent
    return made


def path_of(parent: bytes, name: bytes) -> bytes:
    """Join a folder of a tree and a name in it."""
    return parent + b"/" + name if parent else name


def _entry(path: bytes, row: _Row) -> Entry:
    code, mode, uid, gid, mtime, size, linkname = row
    kind = EntryKind.DIRECTORY if code == _IMPLICIT else _KINDS[code]
    return Entry(
        path=path, kind=kind, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, linkname=linkname.encode(_BYTES)
    )
