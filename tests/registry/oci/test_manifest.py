"""Manifests and indexes: round trip, null, and documents that claim to be something else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.manifest import Index, Manifest, parse_manifest
from registry.oci.media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    DOCKER_MANIFEST_SCHEMA_1_SIGNED,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from tests.registry.oci.test_descriptor import descriptors

CONFIG = {"mediaType": OCI_CONFIG, "digest": digest_of(b"{}"), "size": 2}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "config": CONFIG, "layers": []}
INDEX: dict[str, Any] = {"schemaVersion": 2, "manifests": []}

extras = st.dictionaries(st.sampled_from(["artifactType", "x"]), st.text(min_size=1), max_size=2)
annotation_maps = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)


def encode(value: object) -> bytes:
    """Return *value* as JSON."""
    return json.dumps(value).encode()


@given(
    st.builds(
        Manifest,
        config=descriptors,
        layers=st.lists(descriptors, max_size=2).map(tuple),
        media_type=st.sampled_from([OCI_MANIFEST, DOCKER_MANIFEST]),
        annotations=annotation_maps,
        extra=extras,
    )
)
def test_manifest_written_is_read_back(manifest: Manifest) -> None:
    """Every manifest survives, and its bytes are stable."""
    data = manifest.to_bytes()

    assert Manifest.from_bytes(data, subject="x") == manifest
    assert parse_manifest(data, manifest.media_type, subject="x") == manifest
    assert Manifest.from_bytes(data, subject="x").to_bytes() == data


@given(
    st.builds(
        Index,
        manifests=st.lists(descriptors, max_size=2).map(tuple),
        media_type=st.sampled_from([OCI_INDEX, DOCKER_MANIFEST_LIST]),
        annotations=annotation_maps,
        extra=extras,
    )
)
def test_index_written_is_read_back(index: Index) -> None:
    """Every index survives."""
    assert parse_manifest(index.to_bytes(), index.media_type, subject="x") == index


def test_manifest_has_the_keys_of_the_specification_in_order() -> None:
    """The bytes look like BuildKit's."""
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"l"), size=1)
    config = Descriptor.from_json(CONFIG, subject="x")
    manifest = Manifest(config=config, layers=(layer,), annotations={"b": "2", "a": "1"}, extra={"subject": CONFIG})

    text = manifest.to_bytes().decode()

    assert text.startswith('{\n  "schemaVersion": 2,\n  "mediaType": ')
    assert list(json.loads(text)) == ["schemaVersion", "mediaType", "config", "layers", "subject", "annotations"]


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, None, "application/json; charset=utf-8"])
def test_manifest_with_null_layers_has_none(media_type: str | None) -> None:
    """BuildKit writes null for a scratch image without layers."""
    manifest = parse_manifest(encode({**MANIFEST, "layers": None}), media_type, subject="x")

    assert isinstance(manifest, Manifest)
    assert manifest.layers == ()


def test_index_with_null_manifests_is_an_empty_index() -> None:
    """Null counts as none, once it is known to be an index."""
    index = parse_manifest(encode({**INDEX, "manifests": None}), OCI_INDEX, subject="x")

    assert index == Index(manifests=())


@pytest.mark.parametrize(
    ("value", "outside", "expected"),
    [
        pytest.param(MANIFEST, DOCKER_MANIFEST, DOCKER_MANIFEST, id="Docker manifest by its descriptor"),
        pytest.param(INDEX, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST_LIST, id="Docker list by its descriptor"),
        pytest.param({**INDEX, "mediaType": DOCKER_MANIFEST_LIST}, None, DOCKER_MANIFEST_LIST, id="by its own word"),
        pytest.param({**MANIFEST, "mediaType": DOCKER_MANIFEST}, "text/plain", DOCKER_MANIFEST, id="wrong header"),
        pytest.param(INDEX, None, OCI_INDEX, id="index by its shape"),
        pytest.param(MANIFEST, None, OCI_MANIFEST, id="manifest by its shape"),
        pytest.param(MANIFEST, OCI_MANIFEST + "; charset=utf-8", OCI_MANIFEST, id="header with parameter"),
    ],
)
def test_manifest_media_type_is_found(value: object, outside: str | None, expected: str) -> None:
    """Descriptor first, then the document, then its shape."""
    assert parse_manifest(encode(value), outside, subject="x").media_type == expected


@pytest.mark.parametrize(
    ("value", "outside", "reason"),
    [
        pytest.param(
            {**MANIFEST, "manifests": []}, OCI_MANIFEST, "manifest and an index at once", id="both as manifest"
        ),
        pytest.param({**INDEX, "layers": []}, OCI_INDEX, "manifest and an index at once", id="both as index"),
        pytest.param(
            {"schemaVersion": 2, "config": 2}, OCI_INDEX, "manifest and an index at once", id="index of nothing"
        ),
        pytest.param({**INDEX, "config": CONFIG}, None, "manifest and an index at once", id="both"),
        pytest.param(INDEX, OCI_MANIFEST, "expected an object, found null: `config`", id="index announced as manifest"),
        pytest.param({**INDEX, "mediaType": OCI_INDEX}, OCI_MANIFEST, "says otherwise", id="other word inside"),
        pytest.param({**MANIFEST, "mediaType": DOCKER_MANIFEST}, OCI_MANIFEST, "says otherwise", id="Docker's word"),
        pytest.param({**MANIFEST, "mediaType": "x/y"}, None, "not the media type of a manifest", id="unknown word"),
        pytest.param({**MANIFEST, "mediaType": ["x"]}, None, "expected a string", id="word of another shape"),
        pytest.param({"schemaVersion": 1, "fsLayers": []}, None, "schema 1 is not supported", id="schema 1"),
        pytest.param(MANIFEST, DOCKER_MANIFEST_SCHEMA_1_SIGNED, "schema 1 is not supported", id="schema 1 announced"),
        pytest.param({**MANIFEST, "fsLayers": []}, None, "mixes Docker schema 1 and 2", id="schema 1 and 2"),
        pytest.param({**MANIFEST, "schemaVersion": 3}, None, "expected 2", id="schema 3"),
        pytest.param({**MANIFEST, "schemaVersion": True}, None, "found a boolean", id="schema true"),
        pytest.param({**MANIFEST, "layers": {}}, None, "expected an array", id="layers of another shape"),
        pytest.param({**MANIFEST, "layers": [None]}, None, "expected an object, found null", id="null layer"),
        pytest.param([], OCI_MANIFEST, "expected an object", id="array"),
        pytest.param("x", None, "expected an object", id="text"),
    ],
)
def test_manifest_that_is_something_else_is_refused(value: object, outside: str | None, reason: str) -> None:
    """Nobody may see another image in a document than somebody else does."""
    with pytest.raises(ManifestInvalidError, match=reason):
        parse_manifest(encode(value), outside, subject="manifest of x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "subject"]),
        json_values | st.just(2) | st.just(CONFIG) | st.lists(st.just(CONFIG)),
    ),
    st.sampled_from([None, OCI_MANIFEST, OCI_INDEX]),
)
def test_manifest_of_any_json_is_read_or_refused_with_its_own_error(value: object, outside: str | None) -> None:
    """Nothing a registry sends makes the reader fail in another way."""
    try:
        document = parse_manifest(encode(value), outside, subject="x")
    except ManifestInvalidError:
        return

    assert parse_manifest(document.to_bytes(), document.media_type, subject="x") == document
