"""Attestation manifests in both forms."""

import json

import pytest

from builder.attest.manifest import write_attestations
from registry.content.local import LocalBlobStore
from registry.oci.digest import digest_of
from registry.oci.image_config import ImageConfig
from registry.oci.manifest import Manifest
from registry.oci.platform import Platform
from tests.fakes.image import compose_image

STATEMENTS = [("https://spdx.dev/Document", b'{"a":1}'), ("https://slsa.dev/provenance/v1", b'{"b":2}')]


@pytest.fixture
def blobs(tmp_path):
    """Give an empty store of blobs."""
    return LocalBlobStore(tmp_path, temporary=tmp_path)


@pytest.fixture
def image():
    """Give an image without layers."""
    return compose_image(ImageConfig(platform=Platform("linux", "amd64")), [])


@pytest.mark.parametrize("artifact", [True, False])
def test_entry_points_to_the_image_and_statements_are_layers(blobs, image, artifact):
    """Platform and annotations keep runtimes away and tell readers what it belongs to."""
    made = write_attestations(STATEMENTS, image, blobs, artifact=artifact)

    assert str(made.descriptor.platform) == "unknown/unknown"
    assert made.descriptor.annotations == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image.descriptor.digest,
    }
    data = blobs.read_bytes(made.descriptor.digest, limit=10_000)
    assert Manifest.from_bytes(data, subject="it") == made.manifest
    assert [(layer.media_type, layer.digest, dict(layer.annotations)) for layer in made.manifest.layers] == [
        ("application/vnd.in-toto+json", digest_of(text), {"in-toto.io/predicate-type": kind})
        for kind, text in STATEMENTS
    ]
    assert all(blobs.has(layer.digest) for layer in (*made.manifest.layers, made.manifest.config))


def test_artifact_has_type_subject_and_empty_config(blobs, image):
    """As OCI 1.1 wants artifacts to be."""
    made = write_attestations(STATEMENTS, image, blobs, artifact=True)
    document = json.loads(made.manifest.to_bytes())

    assert document["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
    assert document["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert document["config"]["data"] == "e30="
    assert blobs.read_bytes(made.manifest.config.digest, limit=10) == b"{}"
    assert document["subject"] == {
        "mediaType": image.descriptor.media_type,
        "digest": image.descriptor.digest,
        "size": image.descriptor.size,
    }


def test_older_form_looks_like_an_image(blobs, image):
    """Its config has the platform that is none, and the statements as diff_ids."""
    made = write_attestations(STATEMENTS, image, blobs, artifact=False)
    config = json.loads(blobs.read_bytes(made.manifest.config.digest, limit=10_000))

    assert made.manifest.extra == {}
    assert (config["os"], config["architecture"]) == ("unknown", "unknown")
    assert config["rootfs"]["diff_ids"] == [digest_of(text) for _, text in STATEMENTS]
