"""Images put together from a config and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.content.image import Image
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.manifest import Manifest
from registry.oci.media_types import OCI_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.content.local import LocalBlobStore
    from registry.oci.image_config import ImageConfig


def compose_image(config: ImageConfig, layers: Iterable[Descriptor], store: LocalBlobStore | None = None) -> Image:
    """Make an image of a config and layers base first; with a store, its two documents are put there."""
    manifest = Manifest(config=_describe(config.to_bytes(), OCI_CONFIG, store), layers=tuple(layers))
    descriptor = _describe(manifest.to_bytes(), manifest.media_type, store)
    return Image(descriptor=descriptor, manifest=manifest, config=config)


def _describe(data: bytes, media_type: str, store: LocalBlobStore | None) -> Descriptor:
    if store is not None:
        store.put(data)
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
