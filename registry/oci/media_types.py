"""Media types of images, and what they say.

Names are those of the specifications. A media type is a claim by whoever wrote the descriptor; the reader of layers
looks at the bytes as well.

Source: image-spec, media-types.md; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal, TypeAlias


OCI_LAYOUT_HEADER: Final = "application/vnd.oci.layout.header.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_LAYER_NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_LAYER_NONDISTRIBUTABLE_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_LAYER_NONDISTRIBUTABLE_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_LAYER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_LAYER_FOREIGN_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

DOCKER_MANIFEST_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_MANIFEST_SCHEMA_1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

CompressionKind: TypeAlias = 'Literal["gzip", "zstd", "uncompressed"]'
"""How the tar of a layer is stored."""

_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
_MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_SCHEMA_1: Final = frozenset({DOCKER_MANIFEST_SCHEMA_1, DOCKER_MANIFEST_SCHEMA_1_SIGNED})
_CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_LAYERS: Final[dict[str, CompressionKind]] = {
    OCI_LAYER: "uncompressed",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    OCI_LAYER_NONDISTRIBUTABLE: "uncompressed",
    OCI_LAYER_NONDISTRIBUTABLE_GZIP: "gzip",
    OCI_LAYER_NONDISTRIBUTABLE_ZSTD: "zstd",
    DOCKER_LAYER: "uncompressed",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    DOCKER_LAYER_FOREIGN: "uncompressed",
    DOCKER_LAYER_FOREIGN_GZIP: "gzip",
}
_NONDISTRIBUTABLE: Final = frozenset(
    {
        OCI_LAYER_NONDISTRIBUTABLE,
        OCI_LAYER_NONDISTRIBUTABLE_GZIP,
        OCI_LAYER_NONDISTRIBUTABLE_ZSTD,
        DOCKER_LAYER_FOREIGN,
        DOCKER_LAYER_FOREIGN_GZIP,
    }
)
_OCI_LAYER_OF: Final[dict[CompressionKind, str]] = {
    "uncompressed": OCI_LAYER,
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
}

_DOCKER_LAYER_OF: Final[dict[CompressionKind, str]] = {
    "uncompressed": DOCKER_LAYER,
    "gzip": DOCKER_LAYER_GZIP,
    "zstd": DOCKER_LAYER_ZSTD,
}

ACCEPTED_MANIFESTS: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST)
"""What a manifest request asks a registry for, most wanted first."""


def is_index(media_type: str) -> bool:
    """Tell whether *media_type* names an index, in OCI's or Docker's spelling."""
    return media_type in _INDEXES


def is_manifest(media_type: str) -> bool:
    """Tell whether *media_type* names the manifest of one platform's image."""
    return media_type in _MANIFESTS


def is_schema_1(media_type: str) -> bool:
    """Tell whether *media_type* names a Docker schema 1 manifest, which nothing here reads."""
    return media_type in _SCHEMA_1


def is_config(media_type: str) -> bool:
    """Tell whether *media_type* names an image config."""
    return media_type in _CONFIGS


def is_layer(media_type: str) -> bool:
    """Tell whether *media_type* names a layer of an image."""
    return media_type in _LAYERS


def is_nondistributable(media_type: str) -> bool:
    """Tell whether *media_type* names a layer that may live elsewhere than in the registry (Docker: foreign)."""
    return media_type in _NONDISTRIBUTABLE


def layer_compression(media_type: str) -> CompressionKind | None:
    """Return what *media_type* says about a layer's compression, or None if it names no layer."""
    return _LAYERS.get(media_type)


def oci_layer_media_type(compression: CompressionKind) -> str:
    """Return OCI's media type of a distributable layer that is stored with *compression*."""
    return _OCI_LAYER_OF[compression]


def docker_layer_media_type(compression: CompressionKind) -> str:
    """Return Docker's media type of a distributable layer that is stored with *compression*."""
    return _DOCKER_LAYER_OF[compression]
