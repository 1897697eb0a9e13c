"""Images between the store and registries, with the bookkeeping of where their layers are known to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.image.index import ImageIndex, add_platform

if TYPE_CHECKING:
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.content.image import Image
    from registry.oci.digest import Digest
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference


def pull_image(store: Store, reference: Reference, platform: Platform, client: RegistryClient) -> Image:
    """Fetch an image into the store under its name, beside those that it has for other platforms.

    Raises:
        RegistryError: it cannot be fetched; the store is as before, but for whole blobs.
    """
    image = client.pull(reference, platform, store.blobs)
    known = store.layout.find(reference)
    store.layout.put(image.descriptor if known is None else add_platform(store.blobs, known, image), reference)
    _note_origin(store, image, reference)
    return image


def push_image(store: Store, image: Image | ImageIndex, reference: Reference, client: RegistryClient) -> None:
    """Bring an image to its registry; layers that another repository there has are mounted from it.

    Raises:
        RegistryError: it cannot be brought there.
    """
    whole = image.descriptor if isinstance(image, ImageIndex) else image
    client.push(whole, reference, store.blobs, mount_from=_mount_sources(store, image, reference))
    _note_origin(store, image, reference)


def _mount_sources(store: Store, image: Image | ImageIndex, reference: Reference) -> dict[Digest, str]:
    """Find for each layer another repository of the same registry that has it."""
    prefix = f"{reference.registry}/"
    own = prefix + reference.repository
    origins = store.state.find_origins(_layer_digests(image))
    return {
        digest: others[0].removeprefix(prefix)
        for digest, repositories in origins.items()
        if (others := [name for name in repositories if name.startswith(prefix) and name != own])
    }


def _note_origin(store: Store, image: Image | ImageIndex, reference: Reference) -> None:
    store.state.add_origin(_layer_digests(image), f"{reference.registry}/{reference.repository}")


def _layer_digests(image: Image | ImageIndex) -> list[Digest]:
    images = image.images if isinstance(image, ImageIndex) else (image,)
    return list(dict.fromkeys(layer.digest for each in images for layer in each.manifest.layers))
