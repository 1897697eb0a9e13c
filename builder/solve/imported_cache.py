"""Caches of `--cache-from`: what they know, and their layers when they are needed.

The records of a cache are read before the first step is looked up. A layer is fetched when its bytes are needed, and
is known to the store only when it has been read whole: its bytes are those of its digest, its tar that of its diff_id.
A record itself is believed, since the user named the cache. Whatever goes wrong with a cache is a warning, and the
build goes on without it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from builder.cache.document import CachedLayer, check_config, read_records
from registry.content.image import verify_layer
from registry.content.layout import ImageLayout
from registry.content.local import LocalBlobStore
from registry.errors import BlobTooLargeError, ManifestInvalidError, NotFoundError, RegistryError
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Manifest, parse_manifest
from registry.oci.media_types import OCI_MANIFEST
from registry.oci.reference import Reference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from builder.request import CacheSource
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest

    Connecting = Callable[[str], AbstractContextManager[RegistryClient]]


class _Place(Protocol):
    """Where one cache is."""

    def manifest(self) -> Manifest:
        """Give its manifest, verified."""

    def fetch(self, blobs: Iterable[Descriptor]) -> None:
        """Bring blobs into the store, verified by digest and size."""


class ImportedCaches:
    """The caches that a build imports. Used from many threads.

    Args:
        sources: what `--cache-from` names, the first counts most.
        store: takes what is fetched.
        connecting: gives a registry client that shows its transfers as the named piece of work while a block runs.
        warn: is told what cannot be used, and why.
    """

    def __init__(
        self, sources: Sequence[CacheSource], store: Store, connecting: Connecting, warn: Callable[[str], None]
    ) -> None:
        self._store = store
        self._warn = warn
        self._lock = threading.RLock()
        self._caches: list[tuple[CacheSource, _Place, dict[str, CachedLayer]]] = []
        for source in sources:
            place = _open_place(source, store, connecting)
            try:
                self._caches.append((source, place, self._read(source, place)))
            except (RegistryError, OSError) as error:
                self._tell(source, error)

    def find(self, key: str) -> CachedLayer | None:
        """Look a key up; the layer need not be in the store."""
        with self._lock:
            return next((records[key] for _, _, records in self._caches if key in records), None)

    def fetch(self, wanted: Iterable[CachedLayer]) -> bool:
        """Bring layers into the store.

        Returns:
            False if a cache failed: it is forgotten, and what it answered has to be asked again.
        """
        with self._lock:
            left = {layer.key: layer for layer in wanted}
            for cache in tuple(self._caches):
                source, place, records = cache
                mine = [left.pop(key) for key in tuple(left) if records.get(key) == left[key]]
                try:
                    self._fetch(place, mine)
                except (RegistryError, OSError) as error:
                    self._caches.remove(cache)
                    self._tell(source, error)
                    return False
            return not left

    def _read(self, source: CacheSource, place: _Place) -> dict[str, CachedLayer]:
        subject = f"cache {source.name}"
        manifest = place.manifest()
        config = manifest.config
        check_config(config, subject=subject)
        if config.size > MAX_DOCUMENT_SIZE:
            raise BlobTooLargeError(config.digest, size=config.size, limit=MAX_DOCUMENT_SIZE)
        place.fetch([config])
        data = self._store.blobs.read_bytes(config.digest, limit=MAX_DOCUMENT_SIZE)
        return {record.key: record for record in read_records(data, manifest.layers, subject=subject)}

    def _fetch(self, place: _Place, layers: Sequence[CachedLayer]) -> None:
        missing: dict[Digest, CachedLayer] = {}
        for layer in layers:
            known = {blob.digest for blob in self._store.state.find_blobs(layer.diff_id)}
            if layer.blob.digest not in known or not self._store.blobs.has(layer.blob.digest):
                missing[layer.diff_id] = layer
        if not missing:
            return
        place.fetch(layer.blob for layer in missing.values())
        for diff_id, layer in missing.items():
            verify_layer(self._store.blobs, layer.blob, diff_id)
            self._store.state.put_blob(diff_id, layer.blob)

    def _tell(self, source: CacheSource, error: RegistryError | OSError) -> None:
        reason = error.message if isinstance(error, RegistryError) else str(error.strerror)
        self._warn(f"cache `{source.name}` cannot be imported and is not used, {reason}")


def _open_place(source: CacheSource, store: Store, connecting: Connecting) -> _Place:
    if source.folder is not None:
        return _Folder(source.folder, source.digest or source.tag, store)
    if source.reference is None:
        raise AssertionError("a cache is in a folder or a registry")
    return _Registry(source.reference, store, connecting)


class _Folder:
    """A cache in an OCI image layout on this machine."""

    def __init__(self, folder: Path, name: str, store: Store) -> None:
        self._folder = folder
        self._name = name
        self._store = store
        self._blobs = LocalBlobStore(folder, temporary=store.temporary)

    def manifest(self) -> Manifest:
        """Read the manifest that the layout has under the name."""
        descriptor = ImageLayout(self._folder).find(cache_name(self._name))
        if descriptor is None:
            raise NotFoundError(str(self._folder), self._name)
        subject = f"manifest {descriptor.digest}"
        self._check(descriptor.digest)
        data = self._blobs.read_bytes(descriptor.digest, limit=MAX_DOCUMENT_SIZE)
        return _expect_manifest(parse_manifest(data, OCI_MANIFEST, subject=subject), subject)

    def fetch(self, blobs: Iterable[Descriptor]) -> None:
        """Copy blobs into the store."""
        for blob in blobs:
            if self._store.blobs.has(blob.digest):
                continue
            self._check(blob.digest)
            with self._blobs.open_verified(blob.digest, size=blob.size) as content, self._store.blobs.writer() as to:
                while data := content.read(1 << 20):
                    to.write(data)
                to.commit(blob.digest, blob.size)

    def _check(self, digest: Digest) -> None:
        """Refuse what is no file: a pipe would never end."""
        if not self._blobs.has(digest):
            raise NotFoundError(str(self._folder), digest)


class _Registry:
    """A cache in a registry."""

    def __init__(self, reference: Reference, store: Store, connecting: Connecting) -> None:
        self._reference = reference
        self._store = store
        self._connecting = connecting

    def manifest(self) -> Manifest:
        """Fetch the manifest."""
        with self._connecting(f"importing cache manifest from {self._reference}") as client:
            document = client.fetch_manifest(self._reference).document
        return _expect_manifest(document, f"manifest of {self._reference}")

    def fetch(self, blobs: Iterable[Descriptor]) -> None:
        """Pull blobs into the store."""
        wanted = tuple(blobs)
        with self._connecting(f"importing cache from {self._reference}") as client:
            client.pull_blobs(self._reference, wanted, self._store.blobs)
        repository = f"{self._reference.registry}/{self._reference.repository}"
        self._store.state.add_origin((blob.digest for blob in wanted), repository)


def cache_name(name: str) -> Reference:
    """Give the name that a cache has in an image layout, by its tag or digest."""
    return parse_reference(f"pybuild-cache{'@' if ':' in name else ':'}{name}")


def _expect_manifest(document: object, subject: str) -> Manifest:
    if not isinstance(document, Manifest):
        raise ManifestInvalidError(subject=subject, path="", reason="an index is no cache of pybuild")
    return document
