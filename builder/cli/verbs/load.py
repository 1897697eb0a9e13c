"""`pybuild load`: images from a tar, whoever wrote it.

Three forms are read: an OCI layout in a tar, Docker's archive since version 25, which is one with a `manifest.json`
beside it, and Docker's older archive, where `manifest.json` names configs and layer tars by path. The tar is read
once, front to back, so it may come through a pipe; names in it are only ever keys, never paths on disk.

Source: image-spec, image-layout.md; the docker image specification v1.2, "Combined Image JSON".
"""

from __future__ import annotations

import posixpath
import re
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from builder.errors import ArchiveError, UsageError
from registry.content.image import Image, load_image, validate_image
from registry.content.layer_stream import open_archive
from registry.content.layout import CANONICAL_NAME_ANNOTATION, NAME_ANNOTATION
from registry.errors import PlatformMissingError, ReferenceInvalidError
from registry.oci.canonical_json import decode_json
from registry.oci.descriptor import Descriptor
from registry.oci.digest import Digest, parse_digest
from registry.oci.image_config import ImageConfig
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Index, Manifest
from registry.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from registry.oci.reference import Reference, parse_reference
from registry.value import field, frozen, mutable

if TYPE_CHECKING:
    import argparse
    import tarfile
    from collections.abc import Mapping

    from builder.cli.environment import Environment
    from builder.store import Store
    from registry.content.local import LocalBlobStore
    from registry.content.store import BlobInfo

_BLOB = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")
_DOCUMENTS = frozenset({"index.json", "manifest.json", "oci-layout", "repositories"})
_READ_SIZE = 1 << 20
_MAGICS = {b"\x1f\x8b": OCI_LAYER_GZIP, b"\x28\xb5\x2f\xfd": OCI_LAYER_ZSTD}


@mutable(kw_only=False)
class _Archive:
    """What a tar held: *documents* by name, *files* (all else of use) as stored blobs by name, *links* by name."""

    documents: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, BlobInfo] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def file(self, name: str) -> BlobInfo:
        """Return the blob of the file *name*, links followed."""
        place = posixpath.normpath(name)
        for _ in range(2):
            place = self.links.get(place, place)
        found = self.files.get(place)
        if found is None:
            raise ArchiveError(f"archive lacks a file that its manifest names: `{name}`")
        return found


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Load every image of the archive and print their names."""
    from builder.store import Store  # noqa: PLC0415  (loads sqlite3)

    if arguments.input is None and environment.stdin_tty:
        hint = "use --input FILE, or pipe an archive into it"
        raise UsageError("refusing to read an archive from a terminal", hint=hint)
    with Store(environment.root(arguments.root)) as store:
        if arguments.input is None:
            loaded = load_archive(sys.stdin.buffer, store)
        else:
            with open(environment.path(arguments.input), "rb") as stream:
                loaded = load_archive(stream, store)
    if not arguments.quiet:
        sys.stdout.write("".join(f"Loaded image{line}\n" for line in loaded))
    return 0


def load_archive(stream: BinaryIO, store: Store) -> list[str]:
    """Put the images of a tar, which may be compressed, into the store; return what to tell of each.

    Raises:
        ArchiveError: not such a tar, or one that lacks something.
        ContentError: a blob is not what its name says.
        ManifestInvalidError: a document breaks the specification.
    """
    archive = _read(stream, store.blobs)
    if "index.json" in archive.documents:
        return _load_layout(archive, store)
    if "manifest.json" in archive.documents:
        return _load_docker(archive, store)
    raise ArchiveError("archive holds no images: neither index.json nor manifest.json is in it")


def _read(stream: BinaryIO, blobs: LocalBlobStore) -> _Archive:
    import tarfile  # noqa: PLC0415  (10 ms that other verbs do not pay)

    archive = _Archive()
    try:
        with tarfile.open(fileobj=open_archive(stream), mode="r|") as tar:
            for entry in tar:
                _read_entry(tar, entry, archive, blobs)
    except tarfile.TarError as error:
        raise ArchiveError(f"archive cannot be read as a tar: {error}") from error
    return archive


def _read_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, archive: _Archive, blobs: LocalBlobStore) -> None:
    name = posixpath.normpath(entry.name)
    if entry.issym():
        archive.links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.linkname))
        return
    if entry.islnk():
        archive.links[name] = posixpath.normpath(entry.linkname)
        return
    content = tar.extractfile(entry) if entry.isreg() and not entry.issparse() else None
    if content is None:
        return
    blob = _BLOB.fullmatch(name)
    if name in _DOCUMENTS:
        if entry.size > MAX_DOCUMENT_SIZE:
            raise ArchiveError(f"archive holds a document of {entry.size} bytes: `{name}`")
        archive.documents[name] = content.read()
    elif blob is not None:
        archive.files[name] = _store(content, entry.size, blobs, parse_digest(f"{blob[1]}:{blob[2]}"))
    elif name.endswith((".tar", ".json")):
        archive.files[name] = _store(content, entry.size, blobs, None)


def _store(content: Any, size: int, blobs: LocalBlobStore, digest: Digest | None) -> BlobInfo:
    with blobs.writer() as writer:
        while data := content.read(_READ_SIZE):
            writer.write(data)
        return writer.commit(digest, size)


def _load_layout(archive: _Archive, store: Store) -> list[str]:
    index = Index.from_bytes(archive.documents["index.json"], subject="index.json of the archive")
    docker_names = _docker_names(archive)
    loaded: list[str] = []
    for entry in index.manifests:
        config = _check(entry, store)
        names = _names(entry.annotations) or docker_names.get(config or entry.digest, ())
        loaded += _list(entry, names, config or entry.digest, store)
    if not loaded:
        raise ArchiveError("archive holds no images: its index.json is empty")
    return loaded


def _check(entry: Descriptor, store: Store) -> Digest | None:
    """Check that the image is whole; return its id, or None for an index without an image for this machine."""
    try:
        image = load_image(store.blobs, entry)
    except PlatformMissingError:
        return None
    validate_image(store.blobs, image)
    return image.manifest.config.digest


def _names(annotations: Mapping[str, str]) -> tuple[Reference, ...]:
    for annotation in (CANONICAL_NAME_ANNOTATION, NAME_ANNOTATION):
        text = annotations.get(annotation)
        if text and (name := _find_name(text)) is not None:
            return (name,)
    return ()


def _find_name(text: str) -> Reference | None:
    """Return the name in an annotation; a bare tag, which some tools put there, is none."""
    if not set(text) & {":", "/"}:
        return None
    try:
        return parse_reference(text)
    except ReferenceInvalidError:
        return None


def _docker_names(archive: _Archive) -> dict[Digest, tuple[Reference, ...]]:
    """Return the names in `manifest.json`, if there is one, by image id."""
    if "manifest.json" not in archive.documents:
        return {}
    return {archive.file(entry.config).digest: entry.names for entry in _docker_entries(archive)}


@frozen(kw_only=False)
class _DockerEntry:
    config: str
    layers: tuple[str, ...]
    names: tuple[Reference, ...]


def _docker_entries(archive: _Archive) -> list[_DockerEntry]:
    value = decode_json(archive.documents["manifest.json"], subject="manifest.json of the archive")
    entries: list[_DockerEntry] = []
    for item in value if isinstance(value, list) else [None]:
        fields: Mapping[str, Any] = item if isinstance(item, dict) else {}
        config, layers, tags = fields.get("Config"), fields.get("Layers") or [], fields.get("RepoTags") or []
        if not (isinstance(config, str) and _is_texts(layers) and _is_texts(tags)):
            raise ArchiveError("archive has a manifest.json that is not in Docker's form")
        entries.append(_DockerEntry(config, tuple(layers), tuple(parse_reference(tag) for tag in tags)))
    return entries


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _load_docker(archive: _Archive, store: Store) -> list[str]:
    loaded: list[str] = []
    for entry in _docker_entries(archive):
        image = _convert(archive, entry, store)
        # The diff_ids are all that vouches for layers whose names say nothing.
        trusted = all(
            layer.digest == diff_id
            for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=False)
        )
        validate_image(store.blobs, image, content=not trusted)
        loaded += _list(image.descriptor, entry.names, image.manifest.config.digest, store)
    if not loaded:
        raise ArchiveError("archive holds no images: its manifest.json is empty")
    return loaded


def _convert(archive: _Archive, entry: _DockerEntry, store: Store) -> Image:
    """Make the manifest that an archive of the older form has not."""
    stored = archive.file(entry.config)
    data = store.blobs.read_bytes(stored.digest, limit=MAX_DOCUMENT_SIZE)
    config = ImageConfig.from_bytes(data, subject=f"config {entry.config} of the archive")
    manifest = Manifest(
        config=Descriptor(media_type=OCI_CONFIG, digest=stored.digest, size=stored.size),
        layers=tuple(_describe_layer(archive.file(name), store.blobs) for name in entry.layers),
    )
    written = store.blobs.put(manifest.to_bytes())
    descriptor = Descriptor(media_type=OCI_MANIFEST, digest=written.digest, size=written.size, platform=config.platform)
    return Image(descriptor=descriptor, manifest=manifest, config=config)


def _describe_layer(stored: BlobInfo, blobs: LocalBlobStore) -> Descriptor:
    with blobs.open(stored.digest) as content:
        head = content.read(4)
    media_type = next((kind for magic, kind in _MAGICS.items() if head.startswith(magic)), OCI_LAYER)
    return Descriptor(media_type=media_type, digest=stored.digest, size=stored.size)


def _list(descriptor: Descriptor, names: tuple[Reference, ...], id_: Digest, store: Store) -> list[str]:
    for name in names or (None,):
        store.layout.put(descriptor, name)
    return [f": {name.familiar()}" for name in names] or [f" ID: {id_}"]
