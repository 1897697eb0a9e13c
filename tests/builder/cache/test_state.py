"""The state database: records, blobs, damage."""

import contextlib
import math
import os
import sqlite3
import subprocess
import sys

import pytest

from builder.cache import fingerprints as fingerprints_module
from builder.cache.fingerprints import StoredFingerprints
from builder.cache.key import derive_key
from builder.cache.past import PastStep
from builder.cache.spool import Spool
from builder.cache.state import USE_GRAIN, Record, State
from builder.context.fingerprint import STATE
from builder.context.remote import UrlRow
from builder.errors import StateDamagedError, StoreError
from builder.image.layer_index import LayerIndex
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.media_types import OCI_LAYER_GZIP
from runtime.layers.entry import Entry, EntryKind


@pytest.fixture
def state(tmp_path):
    """Give an empty database."""
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()


def record(key: str = "k", name: str = "RUN x") -> Record:
    """Make a record."""
    return Record(
        key=key,
        op="run",
        diff_id=digest_of(b"x"),
        created="2026-01-01T00:00:00Z",
        name=name,
        ingredients=(("op", "run"),),
    )


def test_operation_is_known_as_long_as_one_record_is_of_it(state):
    """Once the last one is gone, no key of it can be answered."""
    assert not state.knows_op("run")

    state.put_record(record("a"))
    state.put_record(record("b"))
    state.remove_records(["a"], used_until=float("inf"))
    assert state.knows_op("run")

    state.remove_records(["b"], used_until=float("inf"))
    assert not state.knows_op("run")


def test_record_is_found_by_its_key_and_name(state):
    """What was put is given back whole, by any later connection."""
    state.put_record(record())
    state.close()

    assert state.find_record("k") == record()
    assert state.find_named("RUN x", limit=9) == (record(),)
    assert state.find_record("other") is None


def test_use_of_a_record_is_noted_once_a_minute(state, monkeypatch):
    """A record that was used just now is not written again; one that was not, or by a clock ahead of this one, is."""
    times = iter([1000.0, 1000.0 + USE_GRAIN, 1001.0 + USE_GRAIN, 500.0])
    monkeypatch.setattr("builder.cache.state.time.time", lambda: next(times))
    state.put_record(record())
    noted = []
    for _ in range(3):
        state.touch_records(["k"])
        noted += [used for _, used in state.records()]

    assert noted == [1000.0, 1001.0 + USE_GRAIN, 500.0]


def test_layer_is_known_until_its_last_blob_is_forgotten(state):
    """What is known of a layer goes with the last of its forms, and other layers stay."""
    first, second = (Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(name), size=4) for name in (b"1", b"2"))
    layer, other = digest_of(b"layer"), digest_of(b"other")
    index = LayerIndex(state)
    for diff_id, blob in ((layer, first), (layer, second), (other, second)):
        state.put_blob(diff_id, blob)
        index.put(diff_id, [Entry(path=b"a", kind=EntryKind.FILE, mode=0o644, uid=0, gid=0, mtime=0)])
    state.add_origin([first.digest, second.digest], "registry/name")
    state.put_url("url", UrlRow(etag="", modified="", digest=first.digest))

    state.forget_blobs(frozenset({first.digest}))
    assert state.layer_blobs() == {layer: (second.digest,), other: (second.digest,)}
    assert index.has(layer)
    assert state.url_bodies() == frozenset()
    assert state.find_origins([first.digest, second.digest]) == {first.digest: (), second.digest: ("registry/name",)}

    state.forget_blobs(frozenset({second.digest}))
    assert state.layer_blobs() == {}
    assert not index.has(layer)
    assert not index.has(other)


def test_record_that_was_used_since_is_not_removed(state):
    """Who removes records spares those that were used after it looked."""
    state.put_record(record())
    state.remove_records(["k"], used_until=0)
    spared = state.find_record("k")
    state.remove_records(["k"], used_until=math.inf)

    assert spared == record()
    assert state.find_record("k") is None


def test_compacting_gives_space_back(state, tmp_path):
    """What was forgotten no longer takes space on disk."""
    path = tmp_path / "state.db"
    index = LayerIndex(state)
    files = (Entry(path=b"%d" % n, kind=EntryKind.FILE, mode=0, uid=0, gid=0, mtime=0) for n in range(9000))
    index.put(digest_of(b"layer"), files)
    state.put_blob(digest_of(b"layer"), Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"1"), size=4))
    state.compact()
    full = path.stat().st_size
    state.forget_blobs(frozenset({digest_of(b"1")}))
    state.compact()

    assert path.stat().st_size < full / 2
    assert state.layer_blobs() == {}


def test_records_of_a_name_are_listed_the_last_used_first(state, monkeypatch):
    """Up to as many as are asked for."""
    times = iter([1.0, 2.0, 3.0, 3.0 + USE_GRAIN])
    monkeypatch.setattr("builder.cache.state.time.time", lambda: next(times))
    for key in "abc":
        state.put_record(record(key))
    state.touch_records(["a"])

    assert [found.key for found in state.find_named("RUN x", limit=2)] == ["a", "c"]


def test_listing_goes_with_its_record(state, tmp_path):
    """It is there as long as the record is, so also where the record was used since."""
    listing = Spool(tmp_path)
    listing.add(b"list")
    listing.add(b"ing")
    state.put_record(record("a"), listing=listing)
    state.put_record(record("b"))

    assert (state.find_listing("a"), state.find_listing("b")) == (b"listing", b"")
    state.remove_records(["a"], used_until=0)
    assert state.find_listing("a") == b"listing"
    state.remove_records(["a"], used_until=math.inf)
    assert state.find_listing("a") == b""


def test_last_build_of_a_stage_replaces_the_one_before(state):
    """Stages that were not built again stay, and other places are other places."""
    steps = (PastStep("FROM a", ""), PastStep("RUN x", "k"))
    state.put_past("place", {"one": steps, "two": steps})
    state.put_past("place", {"one": steps[:1]})

    assert state.find_past("place") == {"one": steps[:1], "two": steps}
    assert state.find_past("elsewhere") == {}


def test_last_builds_of_long_ago_are_forgotten(state, monkeypatch):
    """Only so many stages are kept, those that were built last."""
    monkeypatch.setattr("builder.cache.state.PAST_STAGES", 2)
    for number in range(4):
        state.put_past(str(number), {"": (PastStep("FROM a", ""),)})

    assert [bool(state.find_past(str(number))) for number in range(4)] == [False, False, True, True]


def test_damaged_database_is_set_aside_and_begun_anew(tmp_path):
    """A file that is no database costs the cache, not the build, and the user is told."""
    path = tmp_path / "state.db"
    path.write_bytes(b"no database at all " * 100)
    told: list[str] = []
    state = State(path, on_reset=told.append)
    state.put_record(record())

    assert state.find_record("k") == record()
    assert len(told) == 1
    assert (tmp_path / "state.db.damaged").read_bytes().startswith(b"no database")
    state.close()


def fill(path, count=2000):
    """Make a database of many pages."""
    state = State(path)
    with state.writing() as connection:
        connection.executemany(
            "INSERT INTO record VALUES(?, 'run', ?, '', 'RUN x', '[]', 1.0)",
            [(f"{number:064x}", digest_of(b"%d" % number)) for number in range(count)],
        )
    StoredFingerprints(state).store([(STATE.pack(1, 2, 3, 4, 5), bytes(32))])
    state.put_blob(digest_of(b"layer"), Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"blob"), size=4))
    state.close()


def destroy_page(path):
    """Overwrite a page with records of the middle."""
    data = bytearray(path.read_bytes())
    middle = data.index(b"%064xrunsha256:" % 1000) // 4096 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)


def test_page_that_is_damaged_is_found_by_who_reads_it(tmp_path):
    """Who meets it is told that all is begun anew; by then most records are there again, and no fingerprint."""
    path = tmp_path / "state.db"
    fill(path)
    destroy_page(path)
    told: list[str] = []
    state = State(path, on_reset=told.append)

    with pytest.raises(StateDamagedError, match="state database was damaged and is begun anew"):
        state.records()

    kept = len(state.records())
    assert 1000 < kept < 2000
    assert len(told) == 1
    assert f"with {kept} cache records" in told[0]
    assert len(state.find_blobs(digest_of(b"layer"))) == 1
    assert StoredFingerprints(state).load([(1, 2)]) == {}
    state.close()


@pytest.mark.parametrize("length", [1, 99, 100, 1000, 4096, 5000, 60_000])
def test_truncated_database_is_used_again(tmp_path, length):
    """However much of it is left, the next record but one is kept and found."""
    path = tmp_path / "state.db"
    fill(path)
    path.write_bytes(path.read_bytes()[:length])
    state = State(path)
    with contextlib.suppress(StateDamagedError):
        state.put_record(record())
        state.records()
    state.put_record(record())

    assert state.find_record("k") == record()
    assert len(state.records()) >= 1
    state.close()


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE record",
        "ALTER TABLE record RENAME COLUMN created TO made",
        "ALTER TABLE record ADD COLUMN more TEXT",
        "PRAGMA user_version = 99",
    ],
)
def test_tables_of_another_make_are_replaced(tmp_path, change):
    """A database whose tables are not those we know is begun anew, and not met for ever."""
    path = tmp_path / "state.db"
    fill(path, 3)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(change)
    state = State(path)
    with contextlib.suppress(StateDamagedError):
        state.put_record(record())
        state.find_record("k")
    state.put_record(record())

    assert state.find_record("k") == record()
    state.close()


def test_damage_that_two_processes_meet_is_mended_once(tmp_path):
    """The second to notice leaves the new database of the first alone."""
    path = tmp_path / "state.db"
    fill(path)
    first, second = State(path), State(path)
    first.find_record("k")
    second.find_record("k")
    destroy_page(path)
    for state in (first, second):
        state.close()
    first.find_blobs(digest_of(b"x"))
    second.find_blobs(digest_of(b"x"))
    with pytest.raises(StateDamagedError):
        first.records()
    first.put_record(record())
    with contextlib.suppress(StateDamagedError):
        second.records()

    assert second.find_record("k") == record()
    for state in (first, second):
        state.close()


def test_lock_of_a_killed_process_is_gone_with_it(tmp_path):
    """Who dies in the middle of a write leaves nothing of it, and nobody waits."""
    path = tmp_path / "state.db"
    fill(path, 1)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE');"
        "c.execute('DELETE FROM record'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        process.kill()
    state = State(path)
    state.put_record(record())

    assert len(state.records()) == 2
    state.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an unprivileged user, root writes everything")
def test_database_that_may_only_be_read_is_named_with_what_to_do(tmp_path):
    """A store of somebody else is no damage."""
    path = tmp_path / "state.db"
    fill(path, 1)
    path.chmod(0o444)
    state = State(path)

    with pytest.raises(StoreError, match="readonly") as caught:
        state.put_record(record())

    assert "writable" in caught.value.hint
    state.close()


def test_error_inside_a_write_leaves_nothing(state):
    """A transaction that fails is rolled back."""

    def fail():
        with state.writing() as connection:
            connection.execute("INSERT INTO origin VALUES('d', 'r')")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()

    assert state.find_origins([digest_of(b"d")]) == {digest_of(b"d"): ()}


@pytest.mark.parametrize("count", [3, 500])
def test_fingerprints_are_given_back(state, count):
    """Few and many fingerprints are found again by device and inode, for the state they are of."""
    fingerprints = StoredFingerprints(state)
    rows = [(STATE.pack(1, inode, 10, 20, 30), bytes([inode % 256]) * 32) for inode in range(count)]
    fingerprints.store(rows)
    found = fingerprints.load([(1, inode) for inode in range(count)])

    assert found == dict(rows)


def test_fingerprint_takes_the_place_of_an_earlier_one(state):
    """A file has one, whatever it was before; numbers may use all their bits, and times may be before 1970."""
    fingerprints = StoredFingerprints(state)
    largest = (1 << 64) - 1
    for second in (-1, -2):
        fingerprints.store([(STATE.pack(largest, largest, 1 << 40, second, 0), bytes(32))])

    assert fingerprints.load([(largest, largest)]) == {STATE.pack(largest, largest, 1 << 40, -2, 0): bytes(32)}


def test_key_depends_on_where_one_ingredient_ends():
    """Framing keeps apart what reads the same when joined."""
    keys = {
        derive_key([("a", "bc")]),
        derive_key([("ab", "c")]),
        derive_key([("a", "b"), ("c", "")]),
        derive_key([("a", "b"), ("", "c")]),
        derive_key([]),
    }

    assert len(keys) == 5


def test_oldest_sights_are_forgotten(state, monkeypatch):
    """What contexts looked like long ago does not pile up."""
    monkeypatch.setattr(fingerprints_module, "_SIGHTS_KEPT", 2)
    fingerprints = StoredFingerprints(state)
    for name in (b"a", b"b", b"c"):
        fingerprints.store_sight(name, f"digest of {name!r}")

    assert [fingerprints.find_sight(name) for name in (b"a", b"b", b"c")] == [
        None,
        "digest of b'b'",
        "digest of b'c'",
    ]


def test_same_steps_again_write_nothing(state, monkeypatch):
    """A build that is repeated at once leaves its steps as they are; a change, or a minute later, they are kept anew."""
    times = iter([1000.0, 1001.0, 1002.0, 1001.0 + USE_GRAIN])
    monkeypatch.setattr("builder.cache.state.time.time", lambda: next(times))
    step = PastStep("RUN x", "key")
    noted = []
    for stages in ({"a": [step]}, {"a": [step]}, {"a": [step], "b": [step]}, {"a": [step]}):
        state.put_past("place", stages)
        with state.reading() as connection:
            noted.append(dict(connection.execute("SELECT stage, used FROM past").fetchall()))

    assert noted == [
        {"a": 1000.0},
        {"a": 1000.0},
        {"a": 1000.0, "b": 1002.0},
        {"a": 1001.0 + USE_GRAIN, "b": 1002.0},
    ]


@pytest.mark.parametrize("gap", [0, 3, 1 << 20])
def test_fingerprints_are_found_wherever_their_inodes_lie(state, monkeypatch, gap):
    """Neighbours are asked for together, on each device by itself."""
    monkeypatch.setattr(fingerprints_module, "_GAP", gap)
    rows = [
        (STATE.pack(device, inode, 1, 2, 3), b"%032d" % inode) for device in (1, 2) for inode in (1, 2, 5, 9, 1 << 40)
    ]
    fingerprints = StoredFingerprints(state)
    fingerprints.store(rows)
    asked = {(1, 2), (1, 5), (2, 1), (2, 9), (2, 1 << 40), (3, 7)}
    found = fingerprints.load(asked)

    assert {key: found.get(STATE.pack(*key, 1, 2, 3)) for key in asked} == {
        key: None if key[0] == 3 else b"%032d" % key[1] for key in asked
    }
    assert fingerprints.load(()) == {}
