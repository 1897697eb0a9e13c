"""The state database of one root: cache records, known blobs of layers, layer trees, file fingerprints.

On disk: `ROOT/state.db`, SQLite in WAL mode, shared by many processes. Everything in it can be made again from the
blobs and by building. A damaged file is moved aside (`state.db.damaged`) and a new one begun, with those rows of the
old that can be trusted all the same (`builder.cache.salvage`).

    record(key, op, diff_id, created, name, ingredients, used)  what a cache key resolves to
    listing(key, data)                                          the files a key was made of (builder.cache.listing)
    past(place, stage, steps, used)                             steps of the last build of a Dockerfile (builder.cache.past)
    blob(diff_id, digest, size, media_type)                     the stored forms of a layer, which were read and hashed
    layer(id, diff_id)                                          layers whose tree is known
    tree(layer, folder, names)                                  what a layer says of the names in a folder
    file(name, state, digest)                                   fingerprints of context files (builder.cache.fingerprints)
    sight(id, sight, digest)                                    content digests by what lstat said of all the files
    origin(digest, repository)                                  where a blob was pulled from or pushed to
    url(url, etag, modified, digest, checksum)                  the last answer of an address, named by its sha256
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import sqlite3
import threading
import time

from builder.errors import StateDamagedError, StoreError
from registry.errors import RegistryError, StoreFullError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import Digest, parse_digest
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.cache.key import Ingredient
    from builder.cache.past import PastStep
    from builder.cache.spool import Spool
    from builder.context.remote import UrlRow

SCHEMA_VERSION = 6

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record(
    key TEXT PRIMARY KEY, op TEXT NOT NULL, diff_id TEXT NOT NULL, created TEXT NOT NULL, name TEXT NOT NULL,
    ingredients TEXT NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_op ON record(op);
CREATE INDEX IF NOT EXISTS record_diff_id ON record(diff_id);
CREATE INDEX IF NOT EXISTS record_name ON record(name, used);
CREATE TABLE IF NOT EXISTS listing(key TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS past(
    place TEXT NOT NULL, stage TEXT NOT NULL, steps TEXT NOT NULL, used REAL NOT NULL, PRIMARY KEY(place, stage));
CREATE INDEX IF NOT EXISTS past_used ON past(used);
CREATE TABLE IF NOT EXISTS blob(
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    PRIMARY KEY(diff_id, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer(id INTEGER PRIMARY KEY, diff_id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS tree(
    layer INTEGER NOT NULL, folder BLOB NOT NULL, names TEXT NOT NULL, PRIMARY KEY(layer, folder));
CREATE TABLE IF NOT EXISTS file(
    name BLOB PRIMARY KEY, state BLOB NOT NULL CHECK(length(state) = 40),
    digest BLOB NOT NULL CHECK(length(digest) = 32)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sight(id INTEGER PRIMARY KEY, sight BLOB NOT NULL UNIQUE, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS origin(digest TEXT NOT NULL, repository TEXT NOT NULL,
    PRIMARY KEY(digest, repository)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS url(
    url TEXT PRIMARY KEY, etag TEXT NOT NULL, modified TEXT NOT NULL, digest TEXT NOT NULL,
    checksum TEXT NOT NULL) WITHOUT ROWID;
"""

PAST_STAGES = 1000
"""Of how many stages the last build is kept."""

_GROWTH = 32 * 1024
"""Bytes by which SQLite lets its shared memory grow at least."""

BUSY_TIMEOUT = 60.0
"""Seconds a process waits for another one's write."""

USE_GRAIN = 60.0
"""Seconds by which the last use of a record may be wrong. A build that is cached then writes nothing when repeated, and
does not wait for the disk at its end."""

_WASTE_SHARE = 0.1
"""How much of the file may be unused before it is written anew."""


@frozen
class Record:
    """What a cache key resolves to: the layer a step made, and when.

    *op* is the key of the operation alone, without the content it was done on and with. *created* is the RFC 3339 time
    the layer was made; a cached step keeps it, so that a fully cached build gives the same image.
    """

    key: str
    op: str
    diff_id: Digest
    created: str
    name: str
    ingredients: tuple[Ingredient, ...]


class State:
    """The state database.

    One connection, used from any thread under a lock. It must not cross a fork: call `close` before, the next use
    opens it anew.

    Args:
        path: the database file; its folder exists.
        on_reset: told why when a damaged file was moved aside.
    """

    def __init__(self, path: Path, *, on_reset: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._on_reset = on_reset
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the connection; the next call opens it anew."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection, locked for this thread.

        Raises:
            StoreError: the database cannot be used.
            StateDamagedError: it turned out to be damaged, and was begun anew.
        """
        with self._lock:
            try:
                yield self._open()
            except sqlite3.DatabaseError as error:
                if _means_damage(error):
                    self._begin_anew(error)
                    raise StateDamagedError(str(error), str(self._path)) from error
                if isinstance(error, sqlite3.OperationalError):
                    raise self._explain(error) from error
                raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction, committed at the end and rolled back on an error."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def find_answer(self, key: str) -> tuple[Digest, str] | None:
        """Look a key up: the layer its step made, and when that was, as RFC 3339 text."""
        with self.reading() as connection:
            row = connection.execute("SELECT diff_id, created FROM record WHERE key = ?", (key,)).fetchone()
        return (parse_digest(row[0]), row[1]) if row else None

    def find_record(self, key: str) -> Record | None:
        """Give all that is known of a key."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT key, op, diff_id, created, name, ingredients FROM record WHERE key = ?", (key,)
            ).fetchone()
        return _record(row) if row else None

    def knows_op(self, op: str) -> bool:
        """Tell whether any record is of this operation; if none is, no key of it can be found."""
        with self.reading() as connection:
            return connection.execute("SELECT 1 FROM record WHERE op = ? LIMIT 1", (op,)).fetchone() is not None

    def find_named(self, name: str, *, limit: int) -> tuple[Record, ...]:
        """List records of steps of this name, the last used first."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT key, op, diff_id, created, name, ingredients FROM record WHERE name = ? ORDER BY used DESC LIMIT ?",
                (name, limit),
            ).fetchall()
        return tuple(_record(row) for row in rows)

    def find_records(self, diff_id: Digest, name: str) -> tuple[Record, ...]:
        """List the records by which steps of this name made this layer."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT key, op, diff_id, created, name, ingredients FROM record WHERE diff_id = ? AND name = ?",
                (diff_id, name),
            ).fetchall()
        return tuple(_record(row) for row in rows)

    def put_record(self, record: Record, *, listing: Spool | None = None) -> None:
        """Keep a record, with a listing if its key is made of files; an older answer to the same key is replaced."""
        with self.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO record VALUES(?, ?, ?, ?, ?, ?, ?)",
                (
                    record.key,
                    record.op,
                    record.diff_id,
                    record.created,
                    record.name,
                    json.dumps(record.ingredients, separators=(",", ":")),
                    time.time(),
                ),
            )
            if listing is not None and listing.size:
                _put_listing(connection, record.key, listing)

    def find_listing(self, key: str) -> bytes:
        """Give the listing of a key, empty if it has none."""
        with self.reading() as connection:
            row = connection.execute("SELECT data FROM listing WHERE key = ?", (key,)).fetchone()
        return row[0] if row else b""

    def touch_records(self, keys: Iterable[str]) -> None:
        """Note that records were used now, unless that was noted less than `USE_GRAIN` ago."""
        now = time.time()
        old = "key IN (SELECT value FROM json_each(?)) AND used NOT BETWEEN ? AND ?"
        words = (json.dumps(list(keys)), now - USE_GRAIN, now)
        with self.reading() as connection:
            is_old = connection.execute(f"SELECT 1 FROM record WHERE {old} LIMIT 1", words).fetchone()  # noqa: S608  our own words
        if is_old:
            with self.writing() as connection:
                connection.execute(f"UPDATE record SET used = ? WHERE {old}", (now, *words))  # noqa: S608  as above

    def records(self) -> tuple[tuple[Record, float], ...]:
        """List all records with the time of their last use, least recently used first."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT key, op, diff_id, created, name, ingredients, used FROM record ORDER BY used"
            ).fetchall()
        return tuple((_record(row[:6]), float(row[6])) for row in rows)

    def remove_records(self, keys: Iterable[str], *, used_until: float) -> None:
        """Forget records with their listings, but for those that were used after *used_until*."""
        rows = [(key, used_until) for key in keys]
        with self.writing() as connection:
            connection.executemany("DELETE FROM record WHERE key = ? AND used <= ?", rows)
            connection.executemany(
                "DELETE FROM listing WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM record WHERE key = ?1)",
                [(key,) for key, _ in rows],
            )

    def put_past(self, place: str, stages: Mapping[str, Sequence[PastStep]]) -> None:
        """Keep what a build was made of, unless the same was kept less than `USE_GRAIN` ago.

        Other stages of the same place stay, and of all places those that were used last.
        """
        now = time.time()
        rows = {
            name: json.dumps([(step.text, step.key) for step in steps], separators=(",", ":"))
            for name, steps in stages.items()
        }
        with self.reading() as connection:
            known = connection.execute(
                "SELECT stage, steps FROM past WHERE place = ? AND used BETWEEN ? AND ?", (place, now - USE_GRAIN, now)
            ).fetchall()
        new = rows.items() - set(known)
        if not new:
            return
        with self.writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO past VALUES(?, ?, ?, ?)", [(place, name, steps, now) for name, steps in new]
            )
            connection.execute(
                "DELETE FROM past WHERE used < (SELECT used FROM past ORDER BY used DESC LIMIT 1 OFFSET ?)",
                (PAST_STAGES - 1,),
            )

    def find_past(self, place: str) -> dict[str, tuple[PastStep, ...]]:
        """Give what was last kept of the stages of a place."""
        from builder.cache.past import PastStep  # noqa: PLC0415  only where a miss is explained

        with self.reading() as connection:
            rows = connection.execute("SELECT stage, steps FROM past WHERE place = ?", (place,)).fetchall()
        return {name: tuple(PastStep(*step) for step in json.loads(steps)) for name, steps in rows}

    def find_blobs(self, diff_id: Digest) -> tuple[Descriptor, ...]:
        """List the stored forms of a layer; they may have been deleted since."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT media_type, digest, size FROM blob WHERE diff_id = ?", (diff_id,)
            ).fetchall()
        return tuple(Descriptor(media_type=row[0], digest=parse_digest(row[1]), size=row[2]) for row in rows)

    def put_blob(self, diff_id: Digest, descriptor: Descriptor) -> None:
        """Note that *descriptor* is a stored form of the layer *diff_id*: the caller made it, or hashed its tar."""
        with self.writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO blob VALUES(?, ?, ?, ?)",
                (diff_id, descriptor.digest, descriptor.size, descriptor.media_type),
            )

    def layer_blobs(self) -> dict[Digest, tuple[Digest, ...]]:
        """List the stored forms of all layers, by diff_id; they may have been deleted since."""
        forms: dict[Digest, tuple[Digest, ...]] = {}
        with self.reading() as connection:
            for diff_id, digest in connection.execute("SELECT diff_id, digest FROM blob"):
                forms[diff_id] = (*forms.get(diff_id, ()), digest)
        return forms

    def forget_blobs(self, digests: frozenset[str]) -> None:
        """Forget what was known of blobs that are gone, and the trees of layers that have lost their last one."""
        with self.writing() as connection:
            known = connection.execute("SELECT diff_id, digest FROM blob").fetchall()
            gone = [row for row in known if row[1] in digests]
            connection.executemany("DELETE FROM blob WHERE diff_id = ? AND digest = ?", gone)
            connection.executemany("DELETE FROM origin WHERE digest = ?", [(digest,) for digest in digests])
            connection.executemany("DELETE FROM url WHERE digest = ?", [(digest,) for digest in digests])
            kept = {row[0] for row in known if row[1] not in digests}
            layers = [(layer,) for layer in {row[0] for row in gone} - kept]
            connection.executemany("DELETE FROM tree WHERE layer = (SELECT id FROM layer WHERE diff_id = ?)", layers)
            connection.executemany("DELETE FROM layer WHERE diff_id = ?", layers)

    def forget_files(self) -> None:
        """Forget the fingerprints of context files, which are then read again."""
        with self.writing() as connection:
            connection.execute("DELETE FROM file")
            connection.execute("DELETE FROM sight")

    def compact(self) -> None:
        """Give the space of what was forgotten back to the disk, unless another process is in the way."""
        with self.reading() as connection, contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                free, pages = (
                    connection.execute(f"PRAGMA {n}").fetchone()[0] for n in ("freelist_count", "page_count")
                )
                if free > pages * _WASTE_SHARE:
                    connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}")

    def url_bodies(self) -> frozenset[Digest]:
        """List the bodies of all addresses; they may have been deleted since."""
        with self.reading() as connection:
            return frozenset(Digest(row[0]) for row in connection.execute("SELECT DISTINCT digest FROM url"))

    def find_url(self, name: str) -> UrlRow | None:
        """Give what is known of an address."""
        from builder.context.remote import UrlRow  # noqa: PLC0415  only builds that fetch something need it

        with self.reading() as connection:
            row = connection.execute(
                "SELECT etag, modified, digest, checksum FROM url WHERE url = ?", (name,)
            ).fetchone()
        return UrlRow(*row) if row else None

    def put_url(self, name: str, row: UrlRow) -> None:
        """Remember an answer; an older one is replaced."""
        with self.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO url VALUES(?, ?, ?, ?, ?)", (name, *row))

    def add_origin(self, digests: Iterable[Digest], repository: str) -> None:
        """Note that a repository (`registry/name`) holds blobs, so that a push can mount them from there."""
        with self.writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO origin VALUES(?, ?)", [(d, repository) for d in digests])

    def find_origins(self, digests: Iterable[Digest]) -> dict[Digest, tuple[str, ...]]:
        """Repositories that are known to hold each of *digests*."""
        with self.reading() as connection:
            return {
                digest: tuple(
                    row[0]
                    for row in connection.execute(
                        "SELECT repository FROM origin WHERE digest = ?", (digest,)
                    ).fetchall()
                )
                for digest in digests
            }

    def _explain(self, error: sqlite3.OperationalError) -> Exception:
        # A full disk shows as an error of input and output where SQLite grows its shared memory.
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL or _is_full(self._path.parent):
            return StoreFullError(str(self._path.parent), os.strerror(errno.ENOSPC))
        return StoreError(f"state database cannot be used, {error}: `{self._path}`", hint=_HINTS.get(_primary(error)))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._identity = _identify(self._path)
            try:
                self._connection = _connect(self._path)
            except sqlite3.DatabaseError as error:
                if not _means_damage(error):
                    raise
                self._begin_anew(error)
                self._connection = _connect(self._path)
            self._identity = self._identity or _identify(self._path)
        return self._connection

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        """Move the damaged file aside, unless another process has, and begin a new one with what is left of it."""
        from builder.cache.salvage import salvage  # noqa: PLC0415  only where something is damaged

        if self._connection is not None:
            self._connection.close()
            self._connection = None
        damaged = self._path.with_name(f"{self._path.name}.damaged")
        with _locked_folder(self._path.parent):
            if _identify(self._path) != self._identity:
                return
            for suffix in ("-shm", "-wal", ""):
                source = self._path.with_name(self._path.name + suffix)
                with contextlib.suppress(FileNotFoundError):
                    source.replace(damaged.with_name(damaged.name + suffix))
            with contextlib.closing(_connect(self._path)) as new:
                kept = salvage(damaged, new, _check_row)
        if self._on_reset is not None:
            self._on_reset(
                f"the state database was damaged ({error}) and is begun anew with {kept} cache records of the old one, "
                f"which is `{damaged}`"
            )


def _means_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell a file that is no database of ours from everything else that can go wrong."""
    if _primary(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return True
    # The statements are ours, so where they do not fit, the tables are not.
    return (
        _primary(error) == sqlite3.SQLITE_ERROR
        and re.match(r"no such (table|column)|table \w+ has", str(error)) is not None
    )


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _put_listing(connection: sqlite3.Connection, key: str, listing: Spool) -> None:
    row = connection.execute("INSERT OR REPLACE INTO listing VALUES(?, zeroblob(?))", (key, listing.size)).lastrowid
    if row is None:
        raise AssertionError("a table with row ids")
    with connection.blobopen("listing", "data", row) as blob:
        for piece in listing:
            blob.write(piece)


def _check_row(table: str, row: tuple[str, ...]) -> None:
    try:
        if table == "record":
            _record((row[0], row[1], row[2], row[3], row[4], row[5]))
        else:
            parse_digest(row[0])
    except RegistryError as error:
        raise ValueError(table) from error


_HINTS = {
    sqlite3.SQLITE_BUSY: "another pybuild holds it for long; end that one, or wait and try again",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable, or choose another folder with --root",
    sqlite3.SQLITE_CANTOPEN: "make the folder writable, or choose another one with --root",
    sqlite3.SQLITE_PERM: "make the file and its folder writable, or choose another folder with --root",
}


def _primary(error: sqlite3.Error) -> int:
    """Give the general kind of an error. Source: sqlite.org/rescode.html, section 2."""
    return error.sqlite_errorcode & 0xFF


def _is_full(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < _GROWTH


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            _create(connection, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if version:
        for table in ("record", "listing", "past", "blob", "layer", "tree", "file", "sight", "origin", "url"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _record(row: tuple[str, str, str, str, str, str]) -> Record:
    return Record(
        key=row[0],
        op=row[1],
        diff_id=parse_digest(row[2]),
        created=row[3],
        name=row[4],
        ingredients=tuple((name, value) for name, value in json.loads(row[5])),
    )
