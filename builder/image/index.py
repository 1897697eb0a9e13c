"""Images for several platforms: an index, and the images it lists.

Source: image-spec, image-index.md; BuildKit, `exporter/containerimage/writer.go`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from registry.content.image import ATTESTATION_ANNOTATION, MAX_INDEX_DEPTH, Image, load_image
from registry.errors import RegistryError
from registry.oci.descriptor import Descriptor
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Index, parse_manifest
from registry.oci.media_types import DOCKER_MANIFEST_LIST, OCI_INDEX, is_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from registry.content.local import LocalBlobStore
    from registry.oci.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIndex:
    """An index in the store: *descriptor* names it, *images* are those it lists, in order."""

    descriptor: Descriptor
    images: tuple[Image, ...]


def write_index(
    images: Sequence[Image],
    blobs: LocalBlobStore,
    *,
    annotations: Mapping[str, str] = MappingProxyType({}),
    descriptor_annotations: Mapping[str, str] = MappingProxyType({}),
    docker_types: bool = False,
) -> ImageIndex:
    """Write the index of some images, whose descriptors say their platforms.

    Args:
        images: most wanted first.
        blobs: where it goes.
        annotations: annotations of the index.
        descriptor_annotations: annotations of the descriptor that names it.
        docker_types: write a manifest list, Docker's form.
    """
    index = Index(
        manifests=tuple(image.descriptor for image in images),
        media_type=DOCKER_MANIFEST_LIST if docker_types else OCI_INDEX,
        annotations=dict(annotations),
    )
    stored = blobs.put(index.to_bytes())
    descriptor = Descriptor(
        media_type=index.media_type,
        digest=stored.digest,
        size=stored.size,
        annotations=dict(descriptor_annotations),
    )
    return ImageIndex(descriptor=descriptor, images=tuple(images))


def list_images(blobs: LocalBlobStore, descriptor: Descriptor) -> Iterator[Image]:
    """Give the images of a manifest or index whose documents are in the store; what cannot be read is passed by."""
    for each in _manifests(blobs, descriptor, depth=0):
        if ATTESTATION_ANNOTATION not in each.annotations:
            try:
                yield load_image(blobs, each, each.platform)
            except RegistryError:
                continue


def list_documents(blobs: LocalBlobStore, descriptor: Descriptor) -> set[Digest]:
    """Give the digests of a manifest or index and of all manifests below it, readable or not."""
    return {descriptor.digest, *(each.digest for each in _manifests(blobs, descriptor, depth=0))}


def add_platform(blobs: LocalBlobStore, known: Descriptor, image: Image) -> Descriptor:
    """Put an image beside those that a name has for other platforms; return what the name is to stand for.

    Args:
        blobs: has the documents.
        known: what the name stands for.
        image: takes the place of the one of its platform.
    """
    others = [
        replace(each.descriptor, platform=each.config.platform)
        for each in list_images(blobs, known)
        if each.config.platform != image.config.platform
    ]
    if not others:
        return image.descriptor
    added = replace(image.descriptor, platform=image.config.platform)
    index = Index(manifests=(*others, added), media_type=OCI_INDEX)
    stored = blobs.put(index.to_bytes())
    return Descriptor(media_type=OCI_INDEX, digest=stored.digest, size=stored.size)


def _manifests(blobs: LocalBlobStore, descriptor: Descriptor, *, depth: int) -> Iterator[Descriptor]:
    """Give the manifests below a descriptor, itself if it is one."""
    if not is_index(descriptor.media_type):
        yield descriptor
        return
    if depth > MAX_INDEX_DEPTH:
        return
    try:
        data = blobs.read_bytes(descriptor.digest, limit=MAX_DOCUMENT_SIZE)
        document = parse_manifest(data, descriptor.media_type, subject=f"index {descriptor.digest}")
    except RegistryError:
        return
    for child in document.manifests if isinstance(document, Index) else ():
        yield from _manifests(blobs, child, depth=depth + 1)
