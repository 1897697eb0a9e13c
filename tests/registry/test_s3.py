"""Blobs in S3, against moto's server, which checks signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from registry.errors import DigestMismatchError, NotFoundError, StorageError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.s3 import AccessKey, Bucket
from registry.storage import fetch_blobs, put_blobs
from registry.value import replace
from tests.fakes.s3_server import BUCKET, REGION, S3Server, run_s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = b"some bytes" * 1000
BLOB = Descriptor(media_type="application/octet-stream", digest=digest_of(DATA), size=len(DATA))
MISSING = Descriptor(media_type="application/octet-stream", digest=digest_of(b"not there"), size=9)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return a running server."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> Bucket:
    """Return a place of this test's own, with all that has to be quoted in its name."""
    key = AccessKey(id=server.key_id, secret=server.secret)
    prefix = f"{request.node.name}/a b+c/~ü/"
    return Bucket(name=BUCKET, region=REGION, prefix=prefix, endpoint=server.endpoint, path_style=True, access_key=key)


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "https://b.s3.eu-west-1.amazonaws.com/blobs/sha256%3Aab"),
        ({"name": "b.c"}, "https://s3.eu-west-1.amazonaws.com/b.c/blobs/sha256%3Aab"),
        ({"path_style": True}, "https://s3.eu-west-1.amazonaws.com/b/blobs/sha256%3Aab"),
        ({"region": "cn-north-1"}, "https://b.s3.cn-north-1.amazonaws.com.cn/blobs/sha256%3Aab"),
        ({"endpoint": "http://h:9000"}, "http://b.h:9000/blobs/sha256%3Aab"),
        ({"endpoint": "http://h:9000/", "path_style": True}, "http://h:9000/b/blobs/sha256%3Aab"),
        ({"endpoint": "https://h/s3/", "path_style": True}, "https://h/s3/b/blobs/sha256%3Aab"),
    ],
)
def test_address_of_an_object(changes, url):
    """The bucket stands before the host, or in the path where it has to or is asked to."""
    assert replace(Bucket(name="b", region="eu-west-1"), **changes).url("blobs/sha256:ab") == url


def test_blobs_go_there_and_come_back(rig, source, target, server, bucket):
    """What is there already is not sent again, and lies where BuildKit would put it."""
    source.put(DATA)
    with rig.client().storage(bucket) as storage:
        assert not storage.has_blob(BLOB)
        put_blobs(storage, [BLOB], source)
        put_blobs(storage, [BLOB], source)
        fetch_blobs(storage, [BLOB], target)

    assert target.read_bytes(BLOB.digest, limit=len(DATA)) == DATA
    assert [each.action for each in rig.progress] == ["push", "exists", "pull"]
    assert f"{bucket.prefix}blobs/{BLOB.digest}" in server.list_objects()


def test_document_lies_under_each_name(rig, server, bucket):
    """It is read from the first of them, and replaced."""
    bucket = replace(bucket, names=("one", "two"))
    with rig.client().storage(bucket) as storage:
        storage.put_document(b"older")
        storage.put_document(b"newer")

        assert storage.get_document(limit=10) == b"newer"
    with rig.client().storage(replace(bucket, names=("two",))) as storage:
        assert storage.get_document(limit=10) == b"newer"


def test_what_is_not_there_is_not_found(rig, target, bucket):
    """So is a document of a place that nobody wrote to."""
    with rig.client().storage(bucket) as storage, pytest.raises(NotFoundError):
        storage.get_document(limit=10)
    with rig.client().storage(bucket) as storage, pytest.raises(NotFoundError, match=MISSING.digest):
        fetch_blobs(storage, [MISSING], target)


def test_document_that_is_too_long_is_not_read(rig, bucket):
    """The limit is that of the caller."""
    with rig.client().storage(bucket) as storage:
        storage.put_document(b"long")
        with pytest.raises(StorageError, match="longer than 3 bytes"):
            storage.get_document(limit=3)


def test_blob_is_verified(rig, target, server, bucket):
    """Other bytes under the digest do not arrive."""
    server.client().put_object(Bucket=BUCKET, Key=f"{bucket.prefix}blobs/{BLOB.digest}", Body=DATA[::-1])

    with rig.client().storage(bucket) as storage, pytest.raises(DigestMismatchError):
        fetch_blobs(storage, [BLOB], target)

    assert not target.has(BLOB.digest)


def test_rest_of_a_blob_is_asked_for(rig, source, bucket):
    """A download that broke off goes on where it was."""
    source.put(DATA)
    with rig.client().storage(bucket) as storage:
        put_blobs(storage, [BLOB], source)
        position, answer = storage.get_blob(BLOB, len(DATA) - 5)

        assert (position, answer.read_all(limit=100)) == (len(DATA) - 5, DATA[-5:])


@pytest.mark.parametrize(("age", "touched"), [(3600.0, False), (-3600.0, True)])
def test_old_blob_that_is_used_again_is_renewed(rig, source, server, bucket, age, touched):
    """A bucket that is tidied up by age keeps what builds still use."""
    source.put(DATA)
    key = f"{bucket.prefix}blobs/{BLOB.digest}"
    server.client().put_object(Bucket=BUCKET, Key=key, Body=DATA, Metadata={"mark": "first"})

    with rig.client().storage(replace(bucket, touch_seconds=age)) as storage:
        assert storage.has_blob(BLOB)

    found = server.client().get_object(Bucket=BUCKET, Key=key)
    assert found["Body"].read() == DATA
    assert ("mark" not in found["Metadata"]) is touched


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (None, "there is no access key"),
        (AccessKey(id="AKIAUNKNOWN", secret="not-to-be-shown"), r"\(403\), access is denied"),
        ("wrong secret", r"\(403\), access is denied"),
    ],
    ids=["no key", "unknown", "wrong secret"],
)
def test_refusal_names_the_place_and_no_secret(rig, bucket, key, match):
    """Access that is denied is an error without the keys."""
    if key == "wrong secret":
        key = replace(bucket.access_key, secret="not-to-be-shown")
    with (
        rig.client().storage(replace(bucket, access_key=key)) as storage,
        pytest.raises(StorageError, match=match) as raised,
    ):
        storage.get_document(limit=10)

    assert "not-to-be-shown" not in f"{raised.value.message} {raised.value.hint} {key!r}"


def test_storage_that_is_not_there_is_an_error_at_once(rig):
    """A host that refuses connections is not tried for long."""
    bucket = Bucket(
        name="b",
        region=REGION,
        endpoint="http://127.0.0.1:1",
        path_style=True,
        access_key=AccessKey(id="a", secret="b"),
    )
    with rig.client().storage(bucket) as storage, pytest.raises(StorageError, match="connection refused"):
        storage.get_document(limit=10)

    assert not rig.pauses


def test_blob_larger_than_one_request_takes_is_refused(rig, bucket):
    """It is said before anything is sent."""
    with rig.client().storage(bucket) as storage, pytest.raises(StorageError, match="larger than 5 GiB"):
        storage.put_blob(replace(BLOB, size=5 * 1024**3 + 1), b"")
