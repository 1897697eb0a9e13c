"""Images between the store and registries, with the bookkeeping of where their layers are known to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.content.image import Image
    from registry.oci.digest import Digest
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference


def pull_image(store: Store, reference: Reference, platform: Platform, client: RegistryClient) -> Image:
    """Fetch an image into the store under its name.

    Raises:
        RegistryError: it cannot be fetched; the store is as before, but for whole blobs.
    """
    image = client.pull(reference, platform, store.blobs)
    store.layout.put(image.descriptor, reference)
    _note_origin(store, image, reference)
    return image


def push_image(store: Store, image: Image, reference: Reference, client: RegistryClient) -> None:
    """Bring an image to its registry; layers that another repository there has are mounted from it.

    Raises:
        RegistryError: it cannot be brought there.
    """
    client.push(image, reference, store.blobs, mount_from=_mount_sources(store, image, reference))
    _note_origin(store, image, reference)


def _mount_sources(store: Store, image: Image, reference: Reference) -> dict[Digest, str]:
    """Find for each layer another repository of the same registry that has it."""
    prefix = f"{reference.registry}/"
    own = prefix + reference.repository
    origins = store.state.find_origins([layer.digest for layer in image.manifest.layers])
    return {
        digest: others[0].removeprefix(prefix)
        for digest, repositories in origins.items()
        if (others := [name for name in repositories if name.startswith(prefix) and name != own])
    }


def _note_origin(store: Store, image: Image, reference: Reference) -> None:
    digests = [layer.digest for layer in image.manifest.layers]
    store.state.add_origin(digests, f"{reference.registry}/{reference.repository}")
