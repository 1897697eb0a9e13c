"""Small images with random bytes for layers, in a store."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from registry.content.local import LocalBlobStore
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.image_config import ImageConfig
from registry.oci.manifest import Index
from registry.oci.media_types import OCI_LAYER
from registry.oci.platform import Platform
from tests.fakes.image import compose_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from registry.content.image import Image

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


def make_store(directory: Path) -> LocalBlobStore:
    """Return an empty store below *directory*."""
    return LocalBlobStore(directory / "images", temporary=directory / "tmp")


def make_image(
    store: LocalBlobStore, *, sizes: Sequence[int] = (1000, 2000), platform: Platform = AMD64, seed: int = 0
) -> Image:
    """Put an image with one layer of random bytes per size into *store*; equal seeds give equal images."""
    chance = random.Random(seed)
    datas = [chance.randbytes(size) for size in sizes]
    layers = tuple(
        Descriptor(media_type=OCI_LAYER, digest=info.digest, size=info.size) for info in map(store.put, datas)
    )
    return compose_image(ImageConfig(platform=platform, diff_ids=tuple(map(digest_of, datas))), layers, store)


def make_index(store: LocalBlobStore, images: Sequence[Image]) -> Descriptor:
    """Put an index of *images* into *store*."""
    index = Index(
        manifests=tuple(
            Descriptor(
                media_type=image.descriptor.media_type,
                digest=image.descriptor.digest,
                size=image.descriptor.size,
                platform=image.config.platform,
            )
            for image in images
        )
    )
    info = store.put(index.to_bytes())
    return Descriptor(media_type=index.media_type, digest=info.digest, size=info.size)
