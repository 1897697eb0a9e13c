"""Pushing to and pulling from Debian's docker-registry, and another tool reading what we pushed."""

from __future__ import annotations

import subprocess

import pytest

from registry.auth.keychain import save_credentials
from registry.content.image import validate_image
from registry.errors import AccessDeniedError, NotFoundError
from registry.hosts import RegistrySettings
from registry.oci.reference import parse_reference
from tests.fakes.docker_registry import require, run_docker_registry
from tests.fakes.random_image import ARM64, make_image, make_index

pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A registry for all tests."""
    with run_docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


def test_docker_registry_gives_back_what_it_got(address, rig, source, target):
    """An image that was pushed is pulled back whole and equal."""
    image = make_image(source, sizes=(0, 10, 5_000_000))
    client = rig.client()

    descriptor = client.push(image, parse_reference(f"{address}/round/trip:1"), source)
    pulled = client.pull(parse_reference(f"{address}/round/trip:1"), None, target)

    assert descriptor == pulled.descriptor == client.resolve(parse_reference(f"{address}/round/trip:1"))
    assert pulled == image
    validate_image(target, pulled, content=True)


def test_docker_registry_mounts_across_repositories(address, rig, source):
    """Blobs of another repository are linked there, not sent."""
    image = make_image(source, sizes=(100_000, 200_000), seed=2)
    client = rig.client()
    client.push(image, parse_reference(f"{address}/mount/from:1"), source)
    rig.progress.clear()
    digests = [image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers)]

    client.push(
        image, parse_reference(f"{address}/mount/to:1"), source, mount_from=dict.fromkeys(digests, "mount/from")
    )

    assert [each.action for each in rig.progress] == ["mount"] * 3


def test_docker_registry_takes_an_index(address, rig, source, target):
    """An index is pushed with all its images, and each platform can be pulled."""
    images = [make_image(source), make_image(source, platform=ARM64, seed=1)]
    reference = parse_reference(f"{address}/multi:1")
    client = rig.client()
    index = make_index(source, images)

    client.push(index, reference, source)

    assert client.resolve(reference) == index
    assert client.pull(reference, ARM64, target) == images[1]


def test_docker_registry_resumes_in_the_middle(address, rig, source, target):
    """The registry's answer to a range is understood."""
    image = make_image(source, sizes=(300_000,), seed=3)
    reference = parse_reference(f"{address}/range:1")
    client = rig.client()
    client.push(image, reference, source)
    endpoint = RegistrySettings().push_endpoint(reference)

    with client._open(endpoint, client._authenticator) as repository:
        position, answer = repository.get_blob(image.manifest.layers[0].digest, start=299_000)
        with answer:
            rest = answer.read(5000)

    assert position == 299_000
    assert rest == source.read_bytes(image.manifest.layers[0].digest, limit=1 << 20)[299_000:]


def test_docker_registry_says_not_found(address, rig, target):
    """A repository that is not there is an error that names it."""
    with pytest.raises(NotFoundError, match=f"not found on {address}: `{address}/nothing/here:1`"):
        rig.client().pull(parse_reference(f"{address}/nothing/here:1"), None, target)


@pytest.mark.skopeo
def test_skopeo_reads_what_was_pushed(address, rig, source):
    """Skopeo finds the digest that we pushed, and its inspection accepts the image."""
    program = require("skopeo")
    image = make_image(source, seed=4)
    rig.client().push(image, parse_reference(f"{address}/for/skopeo:1"), source)

    command = [program, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{address}/for/skopeo:1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert done.stdout.strip() == image.descriptor.digest


def test_docker_registry_with_passwords(tmp_path, rig, source, target):
    """A registry with htpasswd takes the saved credentials, and says how to log in without."""
    (tmp_path / "registry").mkdir()
    image = make_image(source)
    with run_docker_registry(tmp_path / "registry", users={"alice": "secret"}) as address:
        reference = parse_reference(f"{address}/private/app:1")
        with pytest.raises(AccessDeniedError) as caught:
            rig.client().push(image, reference, source)
        assert f"pybuild login {address}" in caught.value.hint

        rig.client().check_credentials(address, "alice", "secret")
        with pytest.raises(AccessDeniedError, match="access denied"):
            rig.client().check_credentials(address, "alice", "wrong")

        save_credentials(tmp_path / "auth.json", address, "alice", "secret")
        client = rig.client(RegistrySettings(auth_files=(tmp_path / "auth.json",)))
        client.push(image, reference, source)
        assert client.pull(reference, None, target) == image
