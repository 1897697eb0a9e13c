"""Images in a store: from a descriptor to checked manifest and config."""

from __future__ import annotations

from registry.errors import (
    BlobMissingError,
    ManifestInvalidError,
    PlatformMissingError,
    SizeMismatchError,
)
from registry.oci.descriptor import Descriptor
from registry.oci.image_config import ImageConfig
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Index, Manifest, parse_manifest
from registry.oci.media_types import is_config, is_index, is_layer, is_manifest
from registry.oci.platform import Platform, best_match, host_platform
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO, Final

    from registry.content.store import BlobStore
    from registry.oci.digest import Digest

ATTESTATION_ANNOTATION: Final = "vnd.docker.reference.type"
"""Marks the entries of an index that are no images. Source: BuildKit, docs/attestations/attestation-storage.md."""

_READ_SIZE: Final = 128 * 1024

MAX_INDEX_DEPTH: Final = 4
"""How many indexes may lie within each other; real ones do not."""


@frozen
class Image:
    """One platform's image: *descriptor* names *manifest*, which names *config*. The digest of the config is its id."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig


def load_image(store: BlobStore, descriptor: Descriptor, platform: Platform | None = None) -> Image:
    """Read and verify the manifest and config of an image; its layers need not be there.

    Args:
        store: has the documents.
        descriptor: of a manifest, or of an index to choose from.
        platform: what to choose from an index, the machine's own if None. A manifest is taken as it is.

    Raises:
        BlobMissingError: a document is not in the store.
        ContentError: one is damaged.
        ManifestInvalidError: one breaks the specification, is no image, or they disagree on the number of layers.
        PlatformMissingError: the index has nothing that runs on *platform*.
    """
    wanted = platform or host_platform()
    for _ in range(MAX_INDEX_DEPTH):
        document = _read_document(store, descriptor)
        if isinstance(document, Manifest):
            image = Image(descriptor=descriptor, manifest=document, config=_read_config(store, document.config))
            check_diff_ids(image)
            return image
        descriptor = choose_manifest(document, wanted, subject=f"index {descriptor.digest}", store=store)
    raise ManifestInvalidError(subject=f"index {descriptor.digest}", path="manifests", reason="indexes within indexes")


def find_document(store: BlobStore, digest: Digest) -> Descriptor | None:
    """Describe the manifest or index of a digest by what it says of itself; None if it is not in *store*.

    Raises:
        ContentError: it is damaged.
        ManifestInvalidError: it is neither.
    """
    if not store.has(digest):
        return None
    data = store.read_bytes(digest, limit=MAX_DOCUMENT_SIZE)
    document = parse_manifest(data, None, subject=f"manifest {digest}")
    return Descriptor(media_type=document.media_type, digest=digest, size=len(data))


def choose_manifest(index: Index, wanted: Platform, *, subject: str, store: BlobStore | None = None) -> Descriptor:
    """Return the entry of *index* that fits *wanted* best; the first of equals.

    Entries that do not say their platform are looked into, if *store* has them, when none of the others fits.

    Raises:
        PlatformMissingError: none fits; the hint says which there are.
    """
    images = [entry for entry in index.manifests if _is_image(entry)]
    best = best_match((entry.platform for entry in images if entry.platform is not None), wanted)
    if best is not None:
        return next(entry for entry in images if entry.platform == best)
    for entry in images:
        if entry.platform is None and (is_index(entry.media_type) or _fits(store, entry, wanted)):
            return entry
    available = tuple(dict.fromkeys(str(entry.platform) for entry in images if entry.platform is not None))
    raise PlatformMissingError(wanted=str(wanted), available=available, subject=subject)


def validate_image(store: BlobStore, image: Image, *, content: bool = False) -> None:
    """Check that an image is complete and agrees with itself.

    Layers are present, of a known media type and of the length the manifest says, and there is one diff_id each.

    Args:
        store: has the blobs.
        image: what to check.
        content: also read every layer and compare digest and diff_id.

    Raises:
        BlobMissingError: a blob is missing.
        ContentError: a blob is damaged, or unpacks to something else than the config says.
        ManifestInvalidError: manifest and config disagree.
    """
    layers = image.manifest.layers
    subject = f"image {image.descriptor.digest}"
    check_diff_ids(image)
    for position, layer in enumerate(layers):
        if not is_layer(layer.media_type):
            reason = f"media type {layer.media_type} is no layer"
            raise ManifestInvalidError(subject=subject, path=f"layers[{position}].mediaType", reason=reason)
    for blob in (image.descriptor, image.manifest.config, *layers):
        _check_size(store, blob)
    if content:
        for layer, diff_id in zip(layers, image.config.diff_ids, strict=True):
            verify_layer(store, layer, diff_id)


def check_diff_ids(image: Image) -> None:
    """Check that the config has one diff_id for each layer of the manifest.

    Raises:
        ManifestInvalidError: it has more or fewer.
    """
    layers, diff_ids = len(image.manifest.layers), len(image.config.diff_ids)
    if layers != diff_ids:
        reason = f"the manifest has {layers} layers, the config {diff_ids} diff_ids"
        raise ManifestInvalidError(subject=f"image {image.descriptor.digest}", path="rootfs.diff_ids", reason=reason)


def missing_blobs(store: BlobStore, descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return those of *descriptors* whose blobs are not in *store* in their length, each digest once, in order."""
    unique: dict[str, Descriptor] = {}
    for descriptor in descriptors:
        unique.setdefault(descriptor.digest, descriptor)
    return tuple(descriptor for descriptor in unique.values() if not is_stored(store, descriptor))


def is_stored(store: BlobStore, descriptor: Descriptor) -> bool:
    """Tell whether a blob is there in its length; its bytes are not looked at. Who asks is taken to want it."""
    return store.has(descriptor.digest, descriptor.size)


def _read_document(store: BlobStore, descriptor: Descriptor) -> Manifest | Index:
    subject = f"manifest {descriptor.digest}"
    if not (is_manifest(descriptor.media_type) or is_index(descriptor.media_type)):
        reason = f"media type {descriptor.media_type} is neither manifest nor index"
        raise ManifestInvalidError(subject=subject, path="mediaType", reason=reason)
    return parse_manifest(_read(store, descriptor), descriptor.media_type, subject=subject)


def _read_config(store: BlobStore, descriptor: Descriptor) -> ImageConfig:
    subject = f"config {descriptor.digest}"
    if not is_config(descriptor.media_type):
        reason = f"an artifact of type {descriptor.media_type} is no image"
        raise ManifestInvalidError(subject=subject, path="config.mediaType", reason=reason)
    return ImageConfig.from_bytes(_read(store, descriptor), subject=subject)


def _read(store: BlobStore, descriptor: Descriptor) -> bytes:
    data = store.read_bytes(descriptor.digest, limit=MAX_DOCUMENT_SIZE)
    if len(data) != descriptor.size:
        raise SizeMismatchError(expected=descriptor.size, actual=len(data), subject=f"blob {descriptor.digest}")
    return data


def _is_image(entry: Descriptor) -> bool:
    if ATTESTATION_ANNOTATION in entry.annotations:
        return False
    return is_manifest(entry.media_type) or is_index(entry.media_type)


def _fits(store: BlobStore | None, entry: Descriptor, wanted: Platform) -> bool:
    if store is None:
        return False
    try:
        return load_image(store, entry).config.platform.matches(wanted)
    except (BlobMissingError, ManifestInvalidError):
        return False


def _check_size(store: BlobStore, descriptor: Descriptor) -> None:
    size = store.size(descriptor.digest)
    if size != descriptor.size:
        raise SizeMismatchError(expected=descriptor.size, actual=size, subject=f"blob {descriptor.digest}")


def verify_layer(store: BlobStore, layer: Descriptor, diff_id: Digest) -> None:
    """Read a whole layer and check that its bytes are those of its digest, and its tar that of *diff_id*.

    Raises:
        BlobMissingError: it is not there.
        ContentError: it is damaged, or unpacks to something else.
    """
    with open_verified_layer(store, layer, diff_id) as tar:
        while tar.read(_READ_SIZE):
            pass


def open_verified_layer(store: BlobStore, layer: Descriptor, diff_id: Digest) -> BinaryIO:
    """Open the tar of a layer; the read that meets its end checks what `verify_layer` checks. The caller closes it.

    It has no buffer: `read(n)` gives what is there, b"" only at the end.

    Raises:
        BlobMissingError: it is not there.
        ContentError: it cannot be opened, or is not compressed as it says. Reading raises DigestMismatchError, whose
            *expected* tells blob and tar apart, SizeMismatchError and LayerDamagedError.
    """
    return verified_tar(store.open_verified(layer.digest, size=layer.size), layer, diff_id)


def verified_tar(blob: BinaryIO, layer: Descriptor, diff_id: Digest) -> BinaryIO:
    """Give the tar in an open blob, which is closed with it; the read that meets its end checks the diff_id.

    Raises:
        ContentError: it is not compressed as it says. Reading raises what reading *blob* raises, DigestMismatchError
            and LayerDamagedError.
    """
    from registry.content.layer_stream import open_layer  # noqa: PLC0415  only who reads layers needs it
    from registry.content.verify import VerifyingReader  # noqa: PLC0415  as above

    tar = open_layer(blob, media_type=layer.media_type)
    # A RawIOBase has every method of BinaryIO that a reader may call; typeshed does not relate the two.
    return VerifyingReader(tar, diff_id, subject=f"tar of layer {layer.digest}")  # type: ignore[return-value]
