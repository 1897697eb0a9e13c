"""File fingerprints in the state database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.context.fingerprint import NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from builder.cache.state import State
    from builder.context.fingerprint import FileKey, FileState, FingerprintRow

_SIGHTS_KEPT = 1000
"""Each edit of a context leaves one that never comes back."""
_GAP = 64
"""Inodes that are no further apart are asked for together, with those between them."""


class StoredFingerprints:
    """Fingerprints that outlive the build; implements `builder.context.fingerprint.Fingerprints`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def load(self, keys: Collection[FileKey]) -> Mapping[FileState, bytes]:
        """Give what is known of *keys*, and perhaps of their neighbours."""
        known: dict[FileState, bytes] = {}
        with self._state.reading() as connection:
            for device, first, last in _ranges(keys):
                known.update(
                    connection.execute(
                        "SELECT state, digest FROM file WHERE name BETWEEN ? AND ?",
                        (NAME.pack(device, first), NAME.pack(device, last)),
                    )
                )
        return known

    def store(self, rows: Iterable[FingerprintRow]) -> None:
        """Remember rows; what was known of the same file is replaced."""
        with self._state.writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO file VALUES(?, ?, ?)",
                ((state[: NAME.size], state, digest) for state, digest in rows),
            )

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


def _ranges(keys: Collection[FileKey]) -> Iterator[tuple[int, int, int]]:
    """Give device, first and last inode of ranges in which all of *keys* lie."""
    ordered = sorted(keys)
    if not ordered:
        return
    device, first = ordered[0]
    last = first
    for key in ordered:
        if key[0] != device or key[1] - last > _GAP:
            yield device, first, last
            device, first = key
        last = key[1]
    yield device, first, last
