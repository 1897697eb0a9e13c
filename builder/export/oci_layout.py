"""Writing an image as an OCI image layout: a directory, or a tar of one that `docker load` reads too.

Source: image-spec, image-layout.md; for `manifest.json`, the docker image specification v1.2, "Combined Image JSON".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.export.destination import telling_where
from builder.image.index import ImageIndex
from registry.content.copy import copy_blob
from registry.content.layout import ImageLayout, name_descriptor
from registry.content.local import LocalBlobStore
from registry.oci.canonical_json import encode_json
from registry.oci.digest import Digest, digest_algorithm, digest_hex
from registry.oci.manifest import Index
from registry.oci.media_types import OCI_INDEX
from registry.value import frozen
from runtime.layers.archive import ArchiveWriter
from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from registry.content.image import Image
    from registry.oci.reference import Reference

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


def write_layout(
    image: Image | ImageIndex, blobs: LocalBlobStore, destination: Path, names: Sequence[Reference]
) -> None:
    """Add an image to the OCI image layout in *destination*, which is made if missing.

    Entries of the layout that are there already stay.

    Raises:
        BuildError: it cannot be written; blobs of it may be there, its list is as before.
        ContentError: a blob is missing or damaged.
    """
    with telling_where("image layout", destination):
        destination.mkdir(parents=True, exist_ok=True)
        layout = ImageLayout(destination)
        target = LocalBlobStore(destination, temporary=destination)
        for digest in blob_digests(image):
            copy_blob(blobs, target, digest)
        for name in names or (None,):
            layout.put(image.descriptor, name)


@frozen
class NamedImage:
    """An image, for one platform or several, and the names it gets where it is written."""

    image: Image | ImageIndex
    names: tuple[Reference, ...]


def write_archive(
    images: Sequence[NamedImage], blobs: LocalBlobStore, write: Callable[[bytes], object], *, docker: bool
) -> None:
    """Write images as a tar of an OCI layout; the same images always give the same bytes.

    Args:
        images: what to write.
        blobs: where their blobs are; they are verified on the way.
        write: takes the tar's bytes.
        docker: add `manifest.json` for `docker load` of any age.

    Raises:
        ContentError: a blob is missing or damaged.
        BuildError: *docker*, and one is for several platforms.
    """
    writer = ArchiveWriter(write)
    digests = sorted({digest for one in images for digest in blob_digests(one.image)})
    folders = {"blobs", *(f"blobs/{digest_algorithm(digest)}" for digest in digests)}
    for folder in sorted(folders):
        writer.add(Entry(path=folder.encode(), kind=EntryKind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime=0))
    for digest in digests:
        with blobs.open_verified(digest) as content:
            writer.add(_file(_blob_name(digest), blobs.size(digest)), content)
            content.read(1)  # the read that meets the end is the one that verifies
    for name, data in _documents(images, docker=docker):
        writer.add(_file(name, len(data)), data)
    writer.finish()


def blob_digests(image: Image | ImageIndex) -> tuple[Digest, ...]:
    """List the blobs of an image: layers, config, manifest; those of all platforms and attestations, then the index."""
    if isinstance(image, ImageIndex):
        digests = [digest for each in image.images for digest in blob_digests(each)]
        for each in image.attachments:
            blobs = (*each.manifest.layers, each.manifest.config, each.descriptor)
            digests += [blob.digest for blob in blobs]
        return tuple(dict.fromkeys([*digests, image.descriptor.digest]))
    layers = [layer.digest for layer in image.manifest.layers]
    return tuple(dict.fromkeys([*layers, image.manifest.config.digest, image.descriptor.digest]))


def _documents(images: Sequence[NamedImage], *, docker: bool) -> Iterator[tuple[str, bytes]]:
    entries = [name_descriptor(one.image.descriptor, name) for one in images for name in one.names or (None,)]
    yield "index.json", Index(manifests=tuple(entries), media_type=OCI_INDEX).to_bytes()
    if docker:
        yield "manifest.json", encode_json([_docker_entry(one) for one in images])
    yield "oci-layout", LAYOUT_FILE


def _docker_entry(one: NamedImage) -> dict[str, object]:
    image = one.image
    if isinstance(image, ImageIndex):
        raise BuildError(
            "docker exporter does not currently support exporting manifest lists", hint="write type=oci instead"
        )
    return {
        "Config": _blob_name(image.manifest.config.digest),
        "RepoTags": [name.familiar() for name in one.names if name.tag] or None,
        "Layers": [_blob_name(layer.digest) for layer in image.manifest.layers],
    }


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest_algorithm(digest)}/{digest_hex(digest)}"


def _file(name: str, size: int) -> Entry:
    return Entry(path=name.encode(), kind=EntryKind.FILE, mode=0o644, uid=0, gid=0, mtime=0, size=size)
