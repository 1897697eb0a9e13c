"""Media types: every layer type has a compression, and every compression a type."""

from __future__ import annotations

import pytest

from registry.oci import media_types
from registry.oci.media_types import is_layer, is_nondistributable, layer_compression, oci_layer_media_type


@pytest.mark.parametrize("kind", ["gzip", "zstd", "uncompressed"])
def test_media_type_of_a_compression_says_that_compression(kind: media_types.CompressionKind) -> None:
    """The two directions agree."""
    assert layer_compression(oci_layer_media_type(kind)) == kind


@pytest.mark.parametrize("name", [name for name in dir(media_types) if "_LAYER" in name and not name.startswith("_")])
def test_media_type_constants_of_layers_are_layers(name: str) -> None:
    """The name of a constant says its compression and whether it may be pushed."""
    media_type = getattr(media_types, name)
    expected = "gzip" if name.endswith("GZIP") else "zstd" if name.endswith("ZSTD") else "uncompressed"

    assert is_layer(media_type)
    assert layer_compression(media_type) == expected
    assert is_nondistributable(media_type) == ("FOREIGN" in name or "NONDISTRIBUTABLE" in name)


def test_media_type_of_a_config_is_no_layer() -> None:
    """None is the answer for everything else."""
    assert layer_compression(media_types.OCI_CONFIG) is None
