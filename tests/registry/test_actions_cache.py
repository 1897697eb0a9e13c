"""Blobs in the cache service of GitHub Actions, against a server of our own that speaks its protocol."""

from __future__ import annotations

import pytest

from registry.actions_cache import MAX_ENTRY_SIZE, ActionsCache
from registry.errors import NotFoundError, SizeMismatchError, StorageError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.storage import fetch_blobs, put_blobs
from registry.value import replace
from tests.fakes.actions_cache_server import REFS, SIGNATURE, TOKEN, ActionsCacheServer

DATA = b"some bytes" * 1000
BLOB = Descriptor(media_type="application/octet-stream", digest=digest_of(DATA), size=len(DATA))


@pytest.fixture
def server():
    """Return a running server without entries."""
    with ActionsCacheServer() as server:
        yield server


@pytest.fixture
def place(server):
    """Return a cache of its main branch."""
    return ActionsCache(url=server.url, token=TOKEN, ref=REFS[0])


def test_blobs_go_there_and_come_back(rig, source, target, server, place):
    """What is there already is asked for once and not sent again."""
    source.put(DATA)
    with rig.client().storage(place) as storage:
        put_blobs(storage, [BLOB], source)
        put_blobs(storage, [BLOB], source)
        fetch_blobs(storage, [BLOB], target)

    assert target.read_bytes(BLOB.digest, limit=len(DATA)) == DATA
    assert [each.action for each in rig.progress] == ["push", "exists", "pull"]
    look_up = "GetCacheEntryDownloadURL"
    assert server.calls == [look_up, "CreateCacheEntry", "FinalizeCacheEntryUpload", look_up, look_up]


def test_newest_document_counts(rig, server, place):
    """Entries never change, so each document is one more; those of other scopes and branches are others."""
    with rig.client().storage(place) as storage:
        for data in (b"one", b"two", b"three"):
            storage.put_document(data)
        assert storage.get_document(limit=10) == b"three"
    for other in (replace(place, scope="pybuild2"), replace(place, scope="py"), replace(place, ref=REFS[1])):
        with rig.client().storage(other) as storage, pytest.raises(NotFoundError):
            storage.get_document(limit=10)


def test_document_of_another_job_at_the_same_time_is_followed(rig, server, place):
    """A number that is taken meanwhile, by a job that is not done, is left to that."""
    with rig.client().storage(place) as storage:
        storage.put_document(b"older")
        taken = next(iter(server.entries)).removesuffix("1") + "2"
        server.reserved[taken] = None

        storage.put_document(b"newer")

        assert storage.get_document(limit=10) == b"newer"
    assert taken not in server.entries


def test_blob_that_another_job_is_sending_is_left_to_it(rig, source, server, place):
    """Who comes second has nothing to do."""
    source.put(DATA)
    server.reserved[f"pybuild-blob-{BLOB.digest}"] = None

    with rig.client().storage(place) as storage:
        put_blobs(storage, [BLOB], source)

    assert not server.entries


def test_blob_that_was_forgotten_is_not_found(rig, target, place):
    """As the service forgets the oldest when it is full."""
    with rig.client().storage(place) as storage, pytest.raises(NotFoundError, match=BLOB.digest):
        fetch_blobs(storage, [BLOB], target)


def test_blob_is_verified(rig, target, server, place):
    """Other bytes do not arrive."""
    server.entries[f"pybuild-blob-{BLOB.digest}"] = DATA + b"more"

    with rig.client().storage(place) as storage, pytest.raises(SizeMismatchError):
        fetch_blobs(storage, [BLOB], target)


def test_throttling_is_waited_for_as_long_as_it_says(rig, source, server, place):
    """Retry-After is obeyed; without it the pauses grow."""
    source.put(DATA)
    server.refusals = [(429, "7"), (503, None), (429, None)]

    with rig.client().storage(place) as storage:
        put_blobs(storage, [BLOB], source)

    assert rig.pauses == [7.0, 1.0, 2.0]
    assert server.entries


@pytest.mark.parametrize("retry_after", ["3600", None], ids=["too long", "too often"])
def test_throttling_that_does_not_end_is_an_error(rig, server, place, retry_after):
    """A build goes on without the cache rather than wait for an hour, or for ever."""
    server.refusals = [(429, retry_after)] * 100

    with rig.client().storage(place) as storage, pytest.raises(StorageError, match=r"\(429\), too many requests"):
        storage.get_document(limit=10)

    assert sum(rig.pauses) < 60


def test_work_that_takes_too_long_is_given_up(rig, server, place):
    """The time-out is that of the place, whatever the service does."""
    server.refusals = [(429, "50")] * 100
    client = rig.client()
    client._pacing = replace(client._pacing, pause=lambda cancellation, seconds: cancellation.wait(seconds))

    with (
        pytest.raises(StorageError, match="it took longer than 0 seconds"),
        client.storage(replace(place, timeout=0.1)) as storage,
    ):
        storage.get_document(limit=10)


def test_service_that_does_not_answer_is_given_up(rig, server, place):
    """So is a request that hangs."""
    server.stalled = True

    with (
        pytest.raises(StorageError, match="it took longer than 0 seconds"),
        rig.client().storage(replace(place, timeout=0.1)) as storage,
    ):
        storage.get_document(limit=10)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"token": "not-to-be-shown"}, r"\(401\), access is denied \(unauthenticated, bad token\)"),
        ({"url": ""}, "ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN are not set"),
        ({"url": "http://127.0.0.1:1/"}, "connection refused"),
    ],
    ids=["wrong token", "no job", "nobody there"],
)
def test_refusal_shows_no_token(rig, place, changes, match):
    """Access that is denied is an error without the token."""
    wrong = replace(place, **changes)
    with rig.client().storage(wrong) as storage, pytest.raises(StorageError, match=match) as raised:
        storage.get_document(limit=10)

    assert "not-to-be-shown" not in f"{raised.value.message} {raised.value.hint} {wrong!r}"


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": True, "matched_key": "pybuild-index-other#1", "signed_download_url": "http://127.0.0.1/"},
        {"ok": True, "matched_key": 7, "signed_download_url": "http://127.0.0.1/"},
        {"ok": True, "matched_key": "KEY", "signed_download_url": "file:///etc/passwd"},
        {"ok": True, "matched_key": "KEY"},
        [],
    ],
)
def test_answer_that_makes_no_sense_is_an_error(rig, server, place, answer):
    """Another entry, an address that is none, or no object at all."""
    with rig.client().storage(place) as storage:
        if isinstance(answer, dict) and answer["matched_key"] == "KEY":
            answer["matched_key"] = f"{storage._index}1"
        server._GetCacheEntryDownloadURL = lambda _: (200, answer)
        with pytest.raises(StorageError):
            storage.get_document(limit=10)


def test_address_signed_for_an_entry_is_in_no_error(rig, target, server, place):
    """It is a secret by itself."""
    server.entries[f"pybuild-blob-{BLOB.digest}"] = DATA
    server._sign = lambda _: f"http://127.0.0.1:1/blob/?sig={SIGNATURE}"

    with rig.client().storage(place) as storage, pytest.raises(StorageError) as raised:
        fetch_blobs(storage, [BLOB], target)

    assert SIGNATURE not in raised.value.message


def test_entry_larger_than_one_request_takes_is_refused(rig, place):
    """It is said before anything is sent."""
    with rig.client().storage(place) as storage, pytest.raises(StorageError, match="larger than"):
        storage.put_blob(replace(BLOB, size=MAX_ENTRY_SIZE + 1), b"")
