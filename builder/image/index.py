"""Images for several platforms: an index, and the images it lists.

Source: image-spec, image-index.md; BuildKit, `exporter/containerimage/writer.go`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from registry.content.image import ATTESTATION_ANNOTATION, MAX_INDEX_DEPTH, Image, load_image
from registry.errors import RegistryError
from registry.oci.descriptor import Descriptor
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Index, Manifest, parse_manifest
from registry.oci.media_types import DOCKER_MANIFEST_LIST, OCI_INDEX, is_index
from registry.value import frozen, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from registry.content.local import LocalBlobStore
    from registry.oci.digest import Digest


SUBJECT_ANNOTATION: Final = "vnd.docker.reference.digest"
"""Says in the entry of an attestation which image it is about. Source: as `ATTESTATION_ANNOTATION`."""


@frozen
class Attachment:
    """What an index lists beside its images: *descriptor* names *manifest*, which is about one of them."""

    descriptor: Descriptor
    manifest: Manifest


@frozen
class ImageIndex:
    """An index in the store: *descriptor* names it, *images* and then *attachments* are what it lists, in order."""

    descriptor: Descriptor
    images: tuple[Image, ...]
    attachments: tuple[Attachment, ...] = ()


def write_index(
    images: Sequence[Image],
    blobs: LocalBlobStore,
    *,
    attachments: Sequence[Attachment] = (),
    annotations: Mapping[str, str] = MappingProxyType({}),
    descriptor_annotations: Mapping[str, str] = MappingProxyType({}),
    docker_types: bool = False,
) -> ImageIndex:
    """Write the index of some images, whose descriptors say their platforms.

    Args:
        images: most wanted first.
        blobs: where it goes.
        attachments: what is said of the images.
        annotations: annotations of the index.
        descriptor_annotations: annotations of the descriptor that names it.
        docker_types: write a manifest list, Docker's form.
    """
    index = Index(
        manifests=(*(image.descriptor for image in images), *(each.descriptor for each in attachments)),
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
    return ImageIndex(descriptor=descriptor, images=tuple(images), attachments=tuple(attachments))


def list_images(blobs: LocalBlobStore, descriptor: Descriptor) -> Iterator[Image]:
    """Give the images of a manifest or index whose documents are in the store; what cannot be read is passed by."""
    for each in _manifests(blobs, descriptor, depth=0):
        if ATTESTATION_ANNOTATION not in each.annotations:
            try:
                yield load_image(blobs, each, each.platform)
            except RegistryError:
                continue


def list_documents(blobs: LocalBlobStore, descriptor: Descriptor) -> set[Digest]:
    """Give the digests of a manifest or index and of all manifests below it, readable or not, and of attestations."""
    found = {descriptor.digest}
    for each in _manifests(blobs, descriptor, depth=0):
        found.add(each.digest)
        manifest = _read_manifest(blobs, each) if ATTESTATION_ANNOTATION in each.annotations else None
        if isinstance(manifest, Manifest):
            found.update(blob.digest for blob in (manifest.config, *manifest.layers))
    return found


def add_platform(blobs: LocalBlobStore, known: Descriptor, image: Image) -> Descriptor:
    """Put an image beside those that a name has for other platforms; return what the name is to stand for.

    Args:
        blobs: has the documents.
        known: what the name stands for.
        image: takes the place of the one of its platform; what is said of the others stays.
    """
    others = [
        replace(each.descriptor, platform=each.config.platform)
        for each in list_images(blobs, known)
        if each.config.platform != image.config.platform
    ]
    if not others:
        return image.descriptor
    added = replace(image.descriptor, platform=image.config.platform)
    kept = {each.digest for each in others}
    said = [
        each
        for each in _manifests(blobs, known, depth=0)
        if ATTESTATION_ANNOTATION in each.annotations and each.annotations.get(SUBJECT_ANNOTATION) in kept
    ]
    index = Index(manifests=(*others, added, *said), media_type=OCI_INDEX)
    stored = blobs.put(index.to_bytes())
    return Descriptor(media_type=OCI_INDEX, digest=stored.digest, size=stored.size)


def _manifests(blobs: LocalBlobStore, descriptor: Descriptor, *, depth: int) -> Iterator[Descriptor]:
    """Give the manifests below a descriptor, itself if it is one."""
    if not is_index(descriptor.media_type):
        yield descriptor
        return
    if depth > MAX_INDEX_DEPTH:
        return
    document = _read_manifest(blobs, descriptor)
    for child in document.manifests if isinstance(document, Index) else ():
        yield from _manifests(blobs, child, depth=depth + 1)


def _read_manifest(blobs: LocalBlobStore, descriptor: Descriptor) -> Manifest | Index | None:
    """Read a document; None if it is not there or cannot be read."""
    try:
        data = blobs.read_bytes(descriptor.digest, limit=MAX_DOCUMENT_SIZE)
        return parse_manifest(data, descriptor.media_type, subject=f"manifest {descriptor.digest}")
    except RegistryError:
        return None
