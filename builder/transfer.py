"""Images between the store and registries, with the bookkeeping of where their layers are known to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.image.index import add_platform, list_documents, list_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.store import Store
    from registry.client import RegistryClient
    from registry.content.image import Image
    from registry.content.store import BlobStore
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference


def pull_image(store: Store, reference: Reference, platform: Platform | None, client: RegistryClient) -> Image:
    """Fetch an image into the store under its name, beside those that it has for other platforms.

    A reference with nothing but a digest is listed without a name.

    Args:
        store: takes it.
        reference: its digest wins over its tag.
        platform: what to choose from an index, the machine's own if None.
        client: fetches.

    Raises:
        RegistryError: it cannot be fetched; the store is as before, but for whole blobs.
    """
    image = client.pull(reference, platform, store.blobs)
    keep_image(store, image, reference)
    return image


def keep_image(store: Store, image: Image, reference: Reference) -> None:
    """List an image that was fetched whole under its name, as `pull_image` does."""
    known = store.layout.find(reference) if reference.tag else None
    descriptor = image.descriptor if known is None else add_platform(store.blobs, known, image)
    store.layout.put(descriptor, reference if reference.tag else None)
    _note_origin(store, _layer_digests(store, image.descriptor), reference)


def push_image(store: Store, image: Descriptor, reference: Reference, client: RegistryClient) -> Descriptor:
    """Bring an image or an index to its registry; layers that another repository there has are mounted from it.

    Returns:
        What the registry has under the name.

    Raises:
        RegistryError: it cannot be brought there.
    """
    layers = _layer_digests(store, image)
    for digest in (*list_documents(store.blobs, image), *layers):
        store.blobs.has(digest)  # from here on nobody removes it, should the image lose its name meanwhile
    pushed = client.push(image, reference, store.blobs, mount_from=_mount_sources(store, layers, reference))
    _note_origin(store, layers, reference)
    return pushed


def push_blobs(
    store: Store, blobs: Sequence[Descriptor], source: BlobStore, reference: Reference, client: RegistryClient
) -> None:
    """Bring blobs of *source* to a repository ahead of their manifest, as `push_image` does those of an image.

    Raises:
        RegistryError: they cannot be brought there.
    """
    digests = [blob.digest for blob in blobs]
    client.push_blobs(reference, blobs, source, mount_from=_mount_sources(store, digests, reference))
    _note_origin(store, digests, reference)


def _mount_sources(store: Store, layers: Sequence[Digest], reference: Reference) -> dict[Digest, str]:
    """Find for each layer another repository of the same registry that has it."""
    prefix = f"{reference.registry}/"
    own = prefix + reference.repository
    origins = store.state.find_origins(layers)
    return {
        digest: others[0].removeprefix(prefix)
        for digest, repositories in origins.items()
        if (others := [name for name in repositories if name.startswith(prefix) and name != own])
    }


def _note_origin(store: Store, layers: Sequence[Digest], reference: Reference) -> None:
    store.state.add_origin(layers, f"{reference.registry}/{reference.repository}")


def _layer_digests(store: Store, image: Descriptor) -> list[Digest]:
    images = list_images(store.blobs, image)
    return list(dict.fromkeys(layer.digest for each in images for layer in each.manifest.layers))
