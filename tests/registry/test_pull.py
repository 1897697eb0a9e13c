"""Pulling, against a registry in this process."""

from __future__ import annotations

import json
import signal
import ssl
import threading

import pytest

from registry.content.image import validate_image
from registry.errors import (
    BlobTooLargeError,
    DigestMismatchError,
    ManifestInvalidError,
    NotFoundError,
    PlatformMissingError,
    ProtocolError,
    RegistryError,
    SizeMismatchError,
    UnreachableError,
)
from registry.hosts import Mirror, RegistryRule, RegistrySettings
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.manifest import Manifest
from registry.oci.media_types import DOCKER_LAYER_FOREIGN_GZIP, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from registry.oci.reference import parse_reference
from registry.transfer import TransferCancelledError
from tests.fakes.certificate_authority import CertificateAuthority
from tests.fakes.random_image import AMD64, ARM64, make_image, make_index
from tests.fakes.registry_server import FakeRegistry, Fault


def name(fake, text="team/app:1"):
    """Return a reference on the fake."""
    return parse_reference(f"{fake.address}/{text}")


def publish(fake, store, image, tag="1", repository="team/app"):
    """Put an image into the fake and return the digest of its manifest."""
    for blob in (image.manifest.config, *image.manifest.layers):
        fake.add_blob(repository, store.read_bytes(blob.digest, limit=1 << 30))
    return fake.add_manifest(repository, tag, image.descriptor.media_type, image.manifest.to_bytes())


def leftovers(tmp_path):
    """Return unfinished files of the store that is pulled into."""
    return list((tmp_path / "target" / "tmp").glob("*"))


def test_pull_brings_a_whole_image(fake, rig, source, target):
    """A pulled image is complete and equals what was published."""
    image = make_image(source, sizes=(10, 3_000_000, 0))
    publish(fake, source, image)

    pulled = rig.client().pull(name(fake), None, target)

    assert pulled == image
    validate_image(target, pulled, content=True)


def test_pull_tells_progress_to_the_end(fake, rig, source, target):
    """The last word about each blob is that all of it is there."""
    image = make_image(source, sizes=(3_000_000,))
    publish(fake, source, image)

    rig.client().pull(name(fake), None, target)

    steps = [each for each in rig.progress if each.digest == image.manifest.layers[0].digest]
    assert steps[-1].current == steps[-1].total == 3_000_000
    assert len(steps) >= 3


def test_pull_skips_blobs_in_the_store(fake, rig, source, target):
    """What the store has is not fetched again."""
    publish(fake, source, make_image(source))
    client = rig.client()
    client.pull(name(fake), None, target)
    fetched = fake.count("GET", "/blobs/")

    client.pull(name(fake), None, target)

    assert fake.count("GET", "/blobs/") == fetched == 3


@pytest.mark.parametrize("wanted", [AMD64, ARM64], ids=str)
def test_pull_chooses_the_platform(fake, rig, source, target, wanted):
    """From an index comes the image of the wanted platform, and nothing of the others."""
    images = [make_image(source), make_image(source, platform=ARM64, seed=1)]
    for image in images:
        publish(fake, source, image, tag=None)
    index = make_index(source, images)
    fake.add_manifest("team/app", "1", OCI_INDEX, source.read_bytes(index.digest, limit=index.size))

    pulled = rig.client().pull(name(fake), wanted, target)

    assert pulled.config.platform == wanted
    assert fake.count("GET", "/blobs/") == 3


def test_pull_of_a_missing_platform_names_those_there_are(fake, rig, source, target):
    """A platform that an index lacks is an error with the list of those it has."""
    index = make_index(source, [make_image(source, platform=ARM64)])
    fake.add_manifest("team/app", "1", OCI_INDEX, source.read_bytes(index.digest, limit=index.size))

    with pytest.raises(PlatformMissingError) as caught:
        rig.client().pull(name(fake), AMD64, target)

    assert caught.value.available == ("linux/arm64",)


@pytest.mark.parametrize("can_range", [True, False], ids=["ranges", "no-ranges"])
def test_pull_resumes_a_broken_download(fake, rig, source, target, can_range, tmp_path):
    """A connection that breaks in the middle of a blob costs only the rest of it, where the server sends parts."""
    image = make_image(source, sizes=(900_000,))
    publish(fake, source, image)
    fake.can_range = can_range
    digest = image.manifest.layers[0].digest
    fake.faults.append(Fault(path=digest, cut_after=600_000))

    validate_image(target, rig.client().pull(name(fake), None, target), content=True)

    second = fake.seen("GET", digest)[1]
    assert second.headers["Range"] == "bytes=600000-"
    assert not leftovers(tmp_path)


def test_pull_gives_up_on_a_download_that_never_gets_on(fake, rig, source, target, tmp_path):
    """A blob that breaks off at the same byte again and again ends the pull, and leaves nothing half-written."""
    image = make_image(source, sizes=(900_000,))
    publish(fake, source, image)
    fake.faults.append(Fault(path=image.manifest.layers[0].digest, cut_after=0, times=99))

    with pytest.raises(UnreachableError, match="the connection broke"):
        rig.client().pull(name(fake), None, target)

    assert rig.pauses == [0.5, 1.0, 2.0, 4.0]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_pull_retries_passing_failures(fake, rig, source, target, status):
    """Failures that may pass are tried again, later each time."""
    publish(fake, source, make_image(source))
    fake.faults.append(Fault(path="manifests", status=status, times=3))

    rig.client().pull(name(fake), None, target)

    assert rig.pauses == [0.5, 1.0, 2.0]


def test_pull_refuses_other_bytes(fake, rig, source, target, tmp_path):
    """Bytes that do not hash to the digest are an error, and are not stored."""
    image = make_image(source, sizes=(1000,))
    publish(fake, source, image)
    layer = image.manifest.layers[0]
    fake.faults.append(Fault(path=layer.digest, replace=bytes(1000), times=9))

    with pytest.raises(DigestMismatchError, match=layer.digest):
        rig.client().pull(name(fake), None, target)

    assert not target.has(layer.digest)
    assert not target.has(image.descriptor.digest)
    assert not leftovers(tmp_path)


def test_pull_refuses_a_blob_longer_than_declared(fake, rig, source, target):
    """A blob that does not end where the manifest says is cut off, however much would follow."""
    image = make_image(source, sizes=(1000,))
    publish(fake, source, image)
    fake.faults.append(Fault(path=image.manifest.layers[0].digest, replace=bytes(5_000_000), times=9))

    with pytest.raises(SizeMismatchError, match="expected 1000 bytes"):
        rig.client().pull(name(fake), None, target)


def test_pull_refuses_another_manifest_than_asked_for(fake, rig, source, target):
    """Under a digest, only the manifest with that digest is taken."""
    image = make_image(source)
    digest = publish(fake, source, image)
    other = make_image(source, seed=5).manifest.to_bytes()
    fake.faults.append(Fault(path="manifests", replace=other, times=9))

    with pytest.raises(DigestMismatchError, match=digest):
        rig.client().pull(name(fake, "team/app").with_digest(digest), None, target)


def test_pull_refuses_a_manifest_that_the_registry_announced_otherwise(fake, rig, source, target):
    """Under a tag, the manifest must be what the registry's own digest says."""
    publish(fake, source, make_image(source))
    fake.faults.append(Fault(path="manifests", replace=make_image(source, seed=5).manifest.to_bytes()))

    with pytest.raises(DigestMismatchError, match="digest mismatch"):
        rig.client().pull(name(fake), None, target)


def test_pull_refuses_a_huge_manifest(fake, rig, target):
    """A manifest of more than 4 MiB is not read into memory."""
    fake.add_manifest("team/app", "1", OCI_MANIFEST, b" " * (4 * 1024 * 1024 + 1))

    with pytest.raises(BlobTooLargeError, match="4194305 bytes"):
        rig.client().pull(name(fake), None, target)


def test_pull_refuses_schema_1(fake, rig, target):
    """An image of Docker's first schema is refused with a reason."""
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    fake.add_manifest("team/app", "1", media_type, b'{"schemaVersion": 1, "fsLayers": []}')

    with pytest.raises(ManifestInvalidError, match="schema 1"):
        rig.client().pull(name(fake), None, target)


def test_pull_refuses_an_index_that_is_announced_as_manifest(fake, rig, source, target):
    """A document whose inside and outside differ in type is refused."""
    index = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST_LIST, "manifests": []}).encode()
    fake.add_manifest("team/app", "1", OCI_MANIFEST, index)

    with pytest.raises(ManifestInvalidError, match="announced as"):
        rig.client().pull(name(fake), None, target)


def test_pull_of_an_unknown_name_says_not_found(fake, rig, target):
    """A tag that is not there is an error that names registry and tag."""
    with pytest.raises(NotFoundError, match=rf"not found on {fake.address}: `{fake.address}/team/app:1`") as caught:
        rig.client().pull(name(fake), None, target)

    assert caught.value.hint == "the repository team/app may exist, but not with this tag or digest"


def test_pull_follows_redirects_without_credentials(fake, rig, source, target, tmp_path):
    """Blobs that lie on another host are fetched from there, and the registry's password is not shown to it."""
    image = make_image(source)
    publish(fake, source, image)
    fake.auth, fake.users = "basic", {"alice": "secret-canary"}
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {fake.address: {"username": "alice", "password": "secret-canary"}}}))
    with FakeRegistry() as storage:
        fake.blob_redirect = storage.url
        storage.cdn = dict(fake.blobs["team/app"])

        pulled = rig.client(RegistrySettings(auth_files=(auth,))).pull(name(fake), None, target)

    assert pulled == image
    assert len(storage.requests) == 3
    assert not any("Authorization" in each.headers for each in storage.requests)
    assert all("Authorization" in each.headers for each in fake.seen("GET", "/blobs/"))


def test_pull_stops_at_redirects_in_circles(fake, rig, source, target):
    """Redirects that never end are an error."""
    publish(fake, source, make_image(source))
    circle = {"Location": "/v2/team/app/manifests/1"}
    fake.faults.append(Fault(path="manifests", status=302, headers=circle, times=99))

    with pytest.raises(ProtocolError, match="redirects in circles"):
        rig.client().pull(name(fake), None, target)


def test_pull_failure_ends_the_other_downloads(fake, rig, source, target, tmp_path):
    """When one blob fails, the others are given up, and the error is that of the first."""
    image = make_image(source, sizes=(900_000, 800_000))
    publish(fake, source, image)
    slow, bad = (layer.digest for layer in image.manifest.layers)
    never = threading.Event()
    fake.faults += [Fault(path=slow, cut_after=100_000, wait_for=never), Fault(path=bad, status=400)]

    with pytest.raises(ProtocolError, match=r"\(400\)"):
        rig.client().pull(name(fake), None, target)

    assert not never.is_set()
    never.set()
    assert not leftovers(tmp_path)


def test_client_cancel_ends_a_pull(fake, rig, source, target, tmp_path):
    """A pull that waits for bytes ends when another thread says so."""
    image = make_image(source, sizes=(900_000,))
    publish(fake, source, image)
    never = threading.Event()
    fake.faults.append(Fault(path=image.manifest.layers[0].digest, cut_after=300_000, wait_for=never))
    client = rig.client()
    caught: list[RegistryError] = []

    def pull():
        try:
            client.pull(name(fake), None, target)
        except RegistryError as error:
            caught.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    while not fake.count("GET", image.manifest.layers[0].digest):
        thread.join(0.01)
    client.cancel()
    thread.join(10)
    never.set()

    assert [type(error) for error in caught] == [TransferCancelledError]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("problem", ["gone", "lacks-tag", "lacks-blob", "wrong-bytes", "fails"])
def test_pull_passes_over_a_bad_mirror(fake, rig, source, target, problem):
    """A mirror that is not there, lacks something or lies is passed over; the origin has the last word."""
    image = make_image(source)
    publish(fake, source, image)
    with FakeRegistry() as mirror:
        location = "127.0.0.1:1/copy" if problem == "gone" else f"{mirror.address}/copy"
        if problem not in {"gone", "lacks-tag"}:
            publish(mirror, source, image, repository="copy/team/app")
        match problem:
            case "lacks-blob":
                del mirror.blobs["copy/team/app"][image.manifest.layers[1].digest]
            case "wrong-bytes":
                mirror.faults.append(Fault(path=image.manifest.layers[1].digest, replace=bytes(2000)))
            case "fails":
                mirror.faults.append(Fault(path="manifests", status=500, times=99))
        rule = RegistryRule(prefix=fake.address, location=fake.address, mirrors=(Mirror(location=location),))

        pulled = rig.client(RegistrySettings(rules=(rule,))).pull(name(fake), None, target)

    assert pulled == image
    assert fake.count("GET", "manifests") == 1


def test_pull_prefers_the_mirror(fake, rig, source, target):
    """A mirror that has the image spares the origin every request."""
    image = make_image(source)
    with FakeRegistry() as mirror:
        publish(mirror, source, image, repository="copy/team/app")
        rule = RegistryRule(
            prefix=fake.address, location=fake.address, mirrors=(Mirror(location=f"{mirror.address}/copy"),)
        )

        rig.client(RegistrySettings(rules=(rule,))).pull(name(fake), None, target)

    assert not fake.requests


def test_resolve_asks_with_one_small_request(fake, rig, source):
    """A tag is resolved by HEAD, which registries do not count as a pull."""
    image = make_image(source)
    publish(fake, source, image)

    assert rig.client().resolve(name(fake)) == image.descriptor
    assert not fake.count("GET", "manifests")


@pytest.mark.parametrize("answers_head", [True, False], ids=["head", "no-head"])
def test_resolve_finds_the_platform(fake, rig, source, answers_head):
    """With a platform, the descriptor is that of the platform's manifest."""
    images = [make_image(source), make_image(source, platform=ARM64, seed=1)]
    for image in images:
        publish(fake, source, image, tag=None)
    index = make_index(source, images)
    fake.add_manifest("team/app", "1", OCI_INDEX, source.read_bytes(index.digest, limit=index.size))
    fake.answers_head = answers_head

    client = rig.client()

    assert client.resolve(name(fake), ARM64) == images[1].descriptor
    assert client.resolve(name(fake)) == index


def test_fetch_manifest_returns_bytes_and_descriptor(fake, rig, source):
    """The bytes of a manifest come as they are stored, with the descriptor that names them."""
    image = make_image(source)
    publish(fake, source, image)

    data, descriptor, document = rig.client().fetch_manifest(name(fake))

    assert (data, descriptor, document) == (image.manifest.to_bytes(), image.descriptor, image.manifest)


def test_interrupt_ends_a_pull(fake, rig, source, target, tmp_path):
    """Ctrl-C ends a pull that waits for bytes at once, and leaves nothing half-written."""
    image = make_image(source, sizes=(900_000, 800_000))
    publish(fake, source, image)
    never = threading.Event()
    fake.faults += [Fault(path=layer.digest, cut_after=300_000, wait_for=never) for layer in image.manifest.layers]

    def interrupt():
        while fake.count("GET", "/blobs/") < 3:
            never.wait(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rig.client().pull(name(fake), None, target)
    thread.join()

    assert not never.is_set()
    never.set()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_pull_fetches_foreign_layers_from_their_addresses(fake, rig, source, target, tmp_path, scheme):
    """A layer that may not be distributed is fetched by https from where the manifest says, without credentials."""
    image = make_image(source, sizes=(5,))
    data = bytes(image.manifest.layers[0].size)
    CertificateAuthority().issue(tmp_path / "server.pem", tmp_path / "server.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with FakeRegistry(tls=context if scheme == "https" else None) as storage:
        foreign = Descriptor(
            media_type=DOCKER_LAYER_FOREIGN_GZIP,
            digest=digest_of(data),
            size=len(data),
            urls=(f"{storage.url}/cdn/layer",),
        )
        storage.cdn["layer"] = data
        fake.add_blob("team/app", source.read_bytes(image.manifest.config.digest, limit=1 << 20))
        manifest = Manifest(config=image.manifest.config, layers=(foreign,))
        fake.add_manifest("team/app", "1", manifest.media_type, manifest.to_bytes())

        if scheme == "https":
            rig.client().pull(name(fake), None, target)
        else:
            with pytest.raises(NotFoundError, match=foreign.digest):
                rig.client().pull(name(fake), None, target)

    assert target.has(foreign.digest) == (scheme == "https")
    assert len(storage.seen("GET", "/cdn/")) == (scheme == "https")


def test_pull_without_layers_brings_the_config_only(fake, rig, source, target):
    """Config and manifest are there for a look; the layers stay where they are."""
    image = make_image(source, sizes=(10, 20))
    publish(fake, source, image)

    pulled = rig.client().pull(name(fake), None, target, layers=False)

    assert pulled == image
    assert not any(target.has(layer.digest) for layer in image.manifest.layers)
