"""The state database: records, blobs, damage."""

import pytest

from builder.cache import fingerprints as fingerprints_module
from builder.cache.fingerprints import StoredFingerprints
from builder.cache.key import derive_key
from builder.cache.past import PastStep
from builder.cache.state import Record, State
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.media_types import OCI_LAYER_GZIP


@pytest.fixture
def state(tmp_path):
    """Give an empty database."""
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()


def record(key: str = "k", name: str = "RUN x") -> Record:
    """Make a record."""
    return Record(
        key=key, diff_id=digest_of(b"x"), created="2026-01-01T00:00:00Z", name=name, ingredients=(("op", "run"),)
    )


def test_record_is_found_by_its_key_and_name(state):
    """What was put is given back whole, by any later connection."""
    state.put_record(record())
    state.close()

    assert state.find_record("k") == record()
    assert state.find_named("RUN x", limit=9) == (record(),)
    assert state.find_record("other") is None


def test_blobs_of_forgotten_layers_are_gone(state):
    """Only the layers that are kept stay known."""
    blob = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"blob"), size=4)
    kept, dropped = digest_of(b"kept"), digest_of(b"dropped")
    state.put_blob(kept, blob)
    state.put_blob(dropped, blob)
    state.forget_layers_except({kept})

    assert state.find_blobs(kept) == (blob,)
    assert state.find_blobs(dropped) == ()


def test_records_of_a_name_are_listed_the_last_used_first(state):
    """Up to as many as are asked for."""
    for key in "abc":
        state.put_record(record(key))
    state.touch_records(["a"])

    assert [found.key for found in state.find_named("RUN x", limit=2)] == ["a", "c"]


def test_listing_goes_with_its_record(state):
    """It is there as long as the record is."""
    state.put_record(record("a"), listing=b"listing")
    state.put_record(record("b"))

    assert (state.find_listing("a"), state.find_listing("b")) == (b"listing", b"")
    state.remove_records(["a"])
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
    assert len(list(tmp_path.glob("state.db.damaged-*"))) == 1
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
    """Few and many fingerprints are found again by device and inode."""
    fingerprints = StoredFingerprints(state)
    rows = [(1, inode, 10, 20, 30, bytes([inode % 256]) * 32) for inode in range(count)]
    fingerprints.store(rows)
    found = fingerprints.load([(1, inode) for inode in range(count)])

    assert found == {(1, inode): (10, 20, 30, bytes([inode % 256]) * 32) for inode in range(count)}


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
