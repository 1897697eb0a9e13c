"""Descriptors: round trip, unknown fields, wrong shapes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.media_types import OCI_LAYER
from registry.oci.platform import Platform

DIGEST = digest_of(b"")
MINIMAL: dict[str, Any] = {"mediaType": OCI_LAYER, "digest": DIGEST, "size": 3}

descriptors = st.builds(
    Descriptor,
    media_type=st.text(min_size=1, max_size=9),
    digest=st.binary(max_size=4).map(digest_of),
    size=st.integers(0, 2**63 - 1),
    annotations=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    platform=st.none() | st.builds(Platform, *(st.text(max_size=5) for _ in range(4))),
    urls=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    extra=st.dictionaries(st.sampled_from(["artifactType", "data", "x"]), st.text() | st.integers(), max_size=3),
)


@given(descriptors)
def test_descriptor_written_is_read_back(descriptor: Descriptor) -> None:
    """Every descriptor survives, unknown fields included."""
    assert Descriptor.from_json(descriptor.to_json(), subject="index") == descriptor


def test_descriptor_with_nulls_is_one_without_those_fields() -> None:
    """Go writes null for empty lists and maps."""
    value = {**MINIMAL, "annotations": None, "urls": None, "platform": None, "x": None}

    assert Descriptor.from_json(value, subject="index").to_json() == MINIMAL


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"digest": "sha256:abc"}, "layers[1].digest", id="short digest"),
        pytest.param({"digest": "sha256:../../../../etc/passwd"}, "layers[1].digest", id="digest as path"),
        pytest.param({"digest": None}, "layers[1].digest", id="no digest"),
        pytest.param({"size": -1}, "layers[1].size", id="negative size"),
        pytest.param({"size": 2**64}, "layers[1].size", id="huge size"),
        pytest.param({"size": None}, "layers[1].size", id="no size"),
        pytest.param({"mediaType": ""}, "layers[1].mediaType", id="empty media type"),
        pytest.param({"annotations": {"a": 1}}, "layers[1].annotations.a", id="annotation"),
        pytest.param({"urls": "http://x"}, "layers[1].urls", id="urls"),
        pytest.param({"platform": []}, "layers[1].platform", id="platform"),
        pytest.param({"platform": {"os": 1}}, "layers[1].platform.os", id="os"),
    ],
)
def test_descriptor_with_a_wrong_field_is_refused(change: dict[str, Any], path: str) -> None:
    """The error names the field."""
    with pytest.raises(ManifestInvalidError, match="invalid manifest of x") as caught:
        Descriptor.from_json({**MINIMAL, **change}, subject="manifest of x", path="layers[1]")

    assert caught.value.path == path
