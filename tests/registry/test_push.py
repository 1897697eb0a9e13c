"""Pushing, against a registry in this process."""

from __future__ import annotations

import pytest

from registry.errors import (
    AccessDeniedError,
    BlobMissingError,
    DigestMismatchError,
    ProtocolError,
    RateLimitedError,
    ReferenceInvalidError,
    UnreachableError,
)
from registry.oci.descriptor import Descriptor
from registry.oci.manifest import Manifest
from registry.oci.media_types import DOCKER_LAYER_FOREIGN_GZIP
from registry.oci.reference import parse_reference
from tests.fakes.random_image import ARM64, make_image, make_index
from tests.fakes.registry_server import Fault

UPLOAD = "/blobs/uploads/[0-9]"


def name(fake, text="team/app:1"):
    """Return a reference on the fake."""
    return parse_reference(f"{fake.address}/{text}")


def test_push_stores_blobs_and_manifest(fake, rig, source):
    """After a push the registry has the bytes of every blob and of the manifest under its tag and digest."""
    image = make_image(source, sizes=(10, 3_000_000, 0))

    descriptor = rig.client().push(image, name(fake), source)

    assert descriptor == image.descriptor
    blobs = fake.blobs["team/app"]
    assert set(blobs) == {image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers)}
    media_type, data = fake.manifests["team/app"]["1"]
    assert (media_type, data) == (image.descriptor.media_type, image.manifest.to_bytes())


def test_push_sends_bodies_with_a_length(fake, rig, source):
    """A blob travels in one request with a Content-Length, also an empty one, because not all registries take chunks."""
    rig.client().push(make_image(source, sizes=(0, 700_000)), name(fake), source)

    puts = fake.seen("PUT", UPLOAD)
    assert sorted(int(each.headers["Content-Length"]) for each in puts)[::2] == [0, 700_000]
    assert not any("Transfer-Encoding" in each.headers for each in puts)


def test_push_names_the_manifest_last(fake, rig, source):
    """The manifest is the last thing that a registry gets."""
    rig.client().push(make_image(source), name(fake), source)

    assert fake.requests[-1].path == "/v2/team/app/manifests/1"
    assert fake.count("PUT", "manifests") == 1


def test_push_skips_blobs_the_registry_has(fake, rig, source):
    """A second push of the same image sends no blob."""
    client = rig.client()
    client.push(make_image(source), name(fake), source)
    sent = fake.count("PUT", UPLOAD)

    client.push(make_image(source), name(fake, "team/app:2"), source)

    assert fake.count("PUT", UPLOAD) == sent == 3
    assert [each.action for each in rig.progress[-3:]] == ["exists"] * 3


def test_push_of_layers_that_the_registry_has_reads_none_of_them(fake, rig, source):
    """They are asked for by digest, so not even bytes that are gone from the store are missed."""
    image = make_image(source)
    for layer in image.manifest.layers:
        fake.add_blob("team/app", source.read_bytes(layer.digest, limit=1 << 30))
        source.delete(layer.digest)

    rig.client().push(image.descriptor, parse_reference(f"{fake.address}/team/app:1"), source)

    assert fake.manifests["team/app"]["1"][1] == image.manifest.to_bytes()
    assert fake.count("PUT", "/blobs/") == 1  # the config


def test_push_mounts_blobs_of_other_repositories(fake, rig, source):
    """A blob known to be in another repository is linked there, not sent."""
    image = make_image(source)
    layer = image.manifest.layers[1]
    fake.add_blob("team/cache", source.read_bytes(layer.digest, limit=layer.size))

    rig.client().push(image, name(fake), source, mount_from={layer.digest: "team/cache"})

    assert layer.digest in fake.blobs["team/app"]
    assert fake.count("PUT", UPLOAD) == 2
    assert [each.digest for each in rig.progress if each.action == "mount"] == [layer.digest]


@pytest.mark.parametrize("how", ["not-supported", "not-there", "refused"])
def test_push_sends_what_cannot_be_mounted(fake, rig, source, how):
    """A mount that fails in whatever way falls back to sending the bytes."""
    image = make_image(source)
    layer = image.manifest.layers[0]
    fake.can_mount = how != "not-supported"
    if how == "refused":
        fake.faults.append(Fault(method="POST", path="mount=", status=403))

    rig.client().push(image, name(fake), source, mount_from={layer.digest: "team/cache"})

    assert layer.digest in fake.blobs["team/app"]
    starts = fake.count("POST", "/blobs/uploads/")
    assert starts == (4 if how == "refused" else 3)


def test_push_asks_before_sending_again(fake, rig, source):
    """When the answer to an upload is lost, the registry is asked, and a blob that arrived is not sent twice."""
    fake.faults.append(Fault(method="PUT", path=UPLOAD, lose_answer=True))

    rig.client().push(make_image(source), name(fake), source)

    assert fake.count("PUT", UPLOAD) == 3
    assert fake.count("HEAD", "/blobs/") == 4


@pytest.mark.parametrize("status", [500, 502, 503, 408, 404, 429])
def test_push_starts_a_failed_upload_again(fake, rig, source, status):
    """An upload that the registry fails is done again in a new session."""
    fake.faults.append(Fault(method="PUT", path=UPLOAD, status=status, times=2))

    rig.client().push(make_image(source, sizes=(100,)), name(fake), source)

    assert fake.count("PUT", UPLOAD) == 4
    assert fake.count("POST", "/blobs/uploads/") == 4
    assert len(rig.pauses) == 2


def test_push_gives_up_after_the_last_attempt(fake, rig, source):
    """A registry that keeps failing ends the push with its status."""
    fake.faults.append(Fault(method="PUT", path=UPLOAD, status=500, times=99))

    with pytest.raises(ProtocolError, match=r"unexpected answer from 127\.0\.0\.1:\d+ \(500\)"):
        rig.client().push(make_image(source, sizes=()), name(fake), source)

    assert rig.pauses == [0.5, 1.0, 2.0, 4.0]


def test_push_tells_the_registrys_reason(fake, rig, source):
    """A refusal shows the reason that the registry gives, and is not tried again."""
    body = b'{"errors": [{"code": "TAG_INVALID", "message": "tag 1 is immutable\\u001b[31m"}]}'
    fake.faults.append(Fault(method="PUT", path="manifests", status=400, body=body))

    with pytest.raises(ProtocolError, match=r"\(400\), tag 1 is immutable \[31m"):
        rig.client().push(make_image(source), name(fake), source)

    assert not rig.pauses


def test_push_keeps_query_of_absolute_location(fake, rig, source):
    """An absolute upload location works, and its query reaches the registry unchanged."""
    fake.absolute_locations = True

    rig.client().push(make_image(source, sizes=()), name(fake), source)

    assert "?_state=a%2Bb%3D&digest=sha256" in fake.seen("PUT", UPLOAD)[0].path


def test_push_of_index_sends_children_first(fake, rig, source):
    """An index is pushed with the images of all platforms, which come by digest before it."""
    images = [make_image(source), make_image(source, platform=ARM64, seed=1)]
    descriptor = make_index(source, images)

    pushed = rig.client().push(descriptor, name(fake), source)

    assert pushed == descriptor
    order = [each.path.rpartition("/")[2] for each in fake.seen("PUT", "manifests")]
    assert order == [images[0].descriptor.digest, images[1].descriptor.digest, "1"]
    assert fake.manifests["team/app"]["1"][0] == descriptor.media_type


def test_push_leaves_foreign_layers_out(fake, rig, source):
    """Layers that may not be distributed are not sent; their addresses in the manifest say where they are."""
    image = make_image(source, sizes=(5,))
    foreign = Descriptor(
        media_type=DOCKER_LAYER_FOREIGN_GZIP,
        digest=image.descriptor.digest,
        size=3,
        urls=("https://elsewhere.example/layer",),
    )
    manifest = Manifest(config=image.manifest.config, layers=(*image.manifest.layers, foreign))
    info = source.put(manifest.to_bytes())
    descriptor = Descriptor(media_type=manifest.media_type, digest=info.digest, size=info.size)

    rig.client().push(descriptor, name(fake), source)

    assert foreign.digest not in fake.blobs["team/app"]


def test_push_to_another_digest_is_refused(fake, rig, source):
    """A reference with a digest only takes the image that has it."""
    reference = name(fake).with_digest("sha256:" + "0" * 64)

    with pytest.raises(ReferenceInvalidError, match="the image has the digest"):
        rig.client().push(make_image(source), reference, source)


def test_push_of_a_missing_blob_names_it(fake, rig, source):
    """A blob that the store lacks ends the push before the manifest."""
    image = make_image(source)
    source.delete(image.manifest.layers[0].digest)

    with pytest.raises(BlobMissingError, match=image.manifest.layers[0].digest):
        rig.client().push(image, name(fake), source)

    assert not fake.manifests


def test_push_of_a_damaged_blob_says_so(fake, rig, source):
    """A blob whose bytes changed in the store is found out by us, not by the registry."""
    image = make_image(source, sizes=(500_000,))
    source.path(image.manifest.layers[0].digest).write_bytes(bytes(500_000))

    with pytest.raises(DigestMismatchError, match="digest mismatch in blob"):
        rig.client().push(image, name(fake), source)


def test_push_denied_without_credentials_says_how_to_log_in(fake, rig, source):
    """Where nobody is logged in, the hint is the command that does it."""
    fake.auth, fake.users = "basic", {"alice": "secret"}

    with pytest.raises(AccessDeniedError) as caught:
        rig.client().push(make_image(source), name(fake), source)

    assert f"`pybuild login {fake.address}`" in caught.value.hint


def test_push_obeys_retry_after(fake, rig, source):
    """A registry that asks for patience gets exactly what it asks for."""
    fake.faults.append(Fault(method="HEAD", path="/blobs/", status=429, headers={"Retry-After": "7"}))

    rig.client().push(make_image(source), name(fake), source)

    assert rig.pauses == [7.0]


def test_push_does_not_sit_out_a_long_retry_after(fake, rig, source):
    """A wait of an hour is an error that says so, not a hang."""
    fake.faults.append(Fault(method="HEAD", path="/blobs/", status=429, headers={"Retry-After": "3600"}, times=9))

    with pytest.raises(RateLimitedError, match="wait 3600 seconds"):
        rig.client().push(make_image(source), name(fake), source)

    assert not rig.pauses


def test_push_to_nobody_names_the_cause(rig, source):
    """A port where nobody listens is named with the cause, at once."""
    with pytest.raises(UnreachableError, match=r"connection refused: `127\.0\.0\.1:1`"):
        rig.client().push(make_image(source), parse_reference("127.0.0.1:1/app:1"), source)

    assert not rig.pauses
