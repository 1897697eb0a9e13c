"""What can be kept of a damaged state database.

Only rows that say nothing which their use does not prove: cache records, whose keys are digests of what they answer and
whose layers are looked for by theirs; forms of layers and their origins, whose blobs are verified when they are read.
Fingerprints and trees are not among them, as a wrong one would be believed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Row = tuple[str, ...]

_COLUMNS: Final = {
    "record": "key, op, diff_id, created, name, ingredients, used",
    "blob": "diff_id, digest, size, media_type",
    "origin": "digest, repository",
}
"""Tables of which rows are kept, with their columns in order; rows are found by the first."""


def salvage(damaged: Path, new: sqlite3.Connection, check: Callable[[str, Row], object]) -> int:
    """Copy what can be read of a damaged database into a new one.

    Args:
        damaged: the file.
        new: a database with the same tables.
        check: raises ValueError for a row of a table that makes no sense.

    Returns:
        How many cache records were kept.
    """
    with contextlib.suppress(sqlite3.Error):
        uri = f"file:{quote(str(damaged))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as old:
            for table in _COLUMNS:
                # From both ends, as a scan stops at the first page that is damaged.
                for direction in ("ASC", "DESC"):
                    _copy_rows(old, new, table, direction, check)
    count: int = new.execute("SELECT count(*) FROM record").fetchone()[0]
    return count


def _copy_rows(
    old: sqlite3.Connection,
    new: sqlite3.Connection,
    table: str,
    direction: str,
    check: Callable[[str, Row], object],
) -> None:
    columns = _COLUMNS[table]
    marks = ", ".join("?" for _ in columns.split(","))
    new.execute("BEGIN IMMEDIATE")
    with contextlib.suppress(sqlite3.Error):
        for row in old.execute(f"SELECT {columns} FROM {table} ORDER BY {columns.partition(',')[0]} {direction}"):  # noqa: S608  our own names
            with contextlib.suppress(ValueError, TypeError):
                check(table, row)
                new.execute(f"INSERT OR IGNORE INTO {table} VALUES({marks})", row)
    new.execute("COMMIT")
