"""File fingerprints in the state database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from builder.cache.state import State
    from builder.context.fingerprint import FileKey, Fingerprint, FingerprintRow

_SIGHTS_KEPT = 1000
"""Each edit of a context leaves one that never comes back."""
_FEW = 200
"""Up to this many files are asked for one by one, more in one sweep over their range of inodes."""


class StoredFingerprints:
    """Fingerprints that outlive the build; implements `builder.context.fingerprint.Fingerprints`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def load(self, keys: Collection[FileKey]) -> Mapping[FileKey, Fingerprint]:
        """Give what is known of *keys*, and perhaps of their neighbours."""
        if not keys:
            return {}
        with self._state.reading() as connection:
            if len(keys) <= _FEW:
                rows = []
                for key in keys:
                    rows += connection.execute(
                        "SELECT device, inode, size, mtime_ns, ctime_ns, digest FROM file "
                        "WHERE device = ? AND inode = ?",
                        key,
                    ).fetchall()
            else:
                rows = connection.execute(
                    "SELECT device, inode, size, mtime_ns, ctime_ns, digest FROM file "
                    "WHERE (device, inode) BETWEEN (?, ?) AND (?, ?)",
                    (*min(keys), *max(keys)),
                ).fetchall()
        return {(row[0], row[1]): (row[2], row[3], row[4], row[5]) for row in rows}

    def store(self, rows: Iterable[FingerprintRow]) -> None:
        """Remember rows; what was known of the same file is replaced."""
        with self._state.writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO file VALUES(?, ?, ?, ?, ?, ?)", rows)

    def find_sight(self, sight: bytes) -> str | None:
        """Give the content digest of what had this sight."""
        with self._state.reading() as connection:
            row = connection.execute("SELECT digest FROM sight WHERE sight = ?", (sight,)).fetchone()
        return None if row is None else str(row[0])

    def store_sight(self, sight: bytes, digest: str) -> None:
        """Remember the content digest of a sight; the oldest are forgotten."""
        with self._state.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO sight(sight, digest) VALUES(?, ?)", (sight, digest))
            connection.execute("DELETE FROM sight WHERE id <= (SELECT max(id) FROM sight) - ?", (_SIGHTS_KEPT,))
