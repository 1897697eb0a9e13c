"""Caches of `--cache-from`: what they know, and their layers when they are needed.

The records of a cache are read before the first step is looked up. A layer is fetched when its bytes are needed, and
is known to the store only when it has been read whole: its bytes are those of its digest, its tar that of its diff_id.
A record itself is believed, since the user named the cache. Whatever goes wrong with a cache is a warning, and the
build goes on without it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from builder.cache.document import CachedLayer, CachedMount, ExportedCache, check_config
from builder.cache.inline import read_inline_cache
from registry.content.image import choose_manifest, verify_layer
from registry.errors import BlobTooLargeError, PlatformMissingError, RegistryError
from registry.oci.image_config import ImageConfig
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Manifest
from registry.oci.media_types import is_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from builder.cache.place import CachePlace
    from builder.store import Store
    from registry.content.local import LocalBlobStore
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.manifest import Index
    from registry.oci.platform import Platform


class OpenedSource(NamedTuple):
    """One `--cache-from`: what messages call it, where it is, whether what it has of cache mounts is wanted."""

    name: str
    place: CachePlace
    wants_mounts: bool


class _Cache(NamedTuple):
    """One cache: what messages call it, where it is, what it answers by key, and the contents of mounts by theirs."""

    name: str
    place: CachePlace
    records: dict[str, CachedLayer]
    mounts: dict[str, CachedMount]


class ImportedCaches:
    """The caches that a build imports. Used from many threads.

    Args:
        places: where they are; the first counts most.
        platforms: those of the build; images for others are no caches of it.
        store: takes what is fetched.
        warn: is told what cannot be used, and why.
    """

    def __init__(
        self,
        places: Sequence[OpenedSource],
        platforms: Sequence[Platform],
        store: Store,
        warn: Callable[[str], None],
    ) -> None:
        self._platforms = platforms
        self._store = store
        self._warn = warn
        self._lock = threading.RLock()
        self._caches: list[_Cache] = []
        for name, place, wants_mounts in places:
            try:
                parts = self._read(name, place)
            except (RegistryError, OSError) as error:
                self._tell(name, error)
            else:
                records = {record.key: record for part in parts for record in part.records}
                mounts = {mount.key: mount for part in parts for mount in part.mounts if wants_mounts}
                self._caches.append(_Cache(name, place, records, mounts))

    def find(self, key: str) -> CachedLayer | None:
        """Look a key up; the layer need not be in the store."""
        with self._lock:
            return next((cache.records[key] for cache in self._caches if key in cache.records), None)

    def place_of(self, key: str) -> str:
        """Name the cache that `find` finds a key in."""
        with self._lock:
            return next((cache.name for cache in self._caches if key in cache.records), "")

    def fetch(self, wanted: Iterable[CachedLayer]) -> bool:
        """Bring layers into the store.

        Returns:
            False if a cache failed: it is forgotten, and what it answered has to be asked again.
        """
        with self._lock:
            left = {layer.key: layer for layer in wanted}
            for cache in tuple(self._caches):
                mine = [left.pop(key) for key in tuple(left) if cache.records.get(key) == left[key]]
                try:
                    self._fetch(cache.place, mine)
                except (RegistryError, OSError) as error:
                    self._caches.remove(cache)
                    self._tell(cache.name, error)
                    return False
            return not left

    def find_mount(self, key: str) -> CachedMount | None:
        """Look up what a cache mount held elsewhere."""
        with self._lock:
            return next((cache.mounts[key] for cache in self._caches if key in cache.mounts), None)

    def fetch_mount(self, mount: CachedMount) -> LocalBlobStore | None:
        """Fetch the content of a cache mount; return where it is for now, None if it cannot be had and is forgotten."""
        with self._lock:
            cache = next((cache for cache in self._caches if cache.mounts.get(mount.key) == mount), None)
            if cache is None:
                return None
            try:
                cache.place.fetch([mount.blob], self._store.passing_blobs)
            except (RegistryError, OSError) as error:
                self.drop_mount(mount, f"what a cache mount held cannot be had, {_reason(error)}")
                return None
            return self._store.passing_blobs

    def drop_mount(self, mount: CachedMount, reason: str) -> None:
        """Forget the content of a cache mount, and tell why."""
        with self._lock:
            for cache in self._caches:
                if cache.mounts.get(mount.key) == mount:
                    del cache.mounts[mount.key]
                    self._warn(f"cache `{cache.name}`: {reason}")
                    return

    def _read(self, name: str, place: CachePlace) -> list[ExportedCache]:
        """Read what a cache answers; in an index, which is of images, all that are for platforms of the build count."""
        document = place.document()
        manifests = [document] if isinstance(document, Manifest) else self._read_index(name, document, place)
        return [self._read_manifest(name, manifest, place) for manifest in manifests]

    def _read_index(self, name: str, index: Index, place: CachePlace) -> list[Manifest]:
        chosen: dict[Digest, Descriptor] = {}
        missing: PlatformMissingError | None = None
        for platform in self._platforms:
            try:
                descriptor = choose_manifest(index, platform, subject=f"cache {name}")
            except PlatformMissingError as error:
                missing = error
            else:
                chosen[descriptor.digest] = descriptor
        if not chosen and missing is not None:
            raise missing
        documents = [place.document(digest) for digest in chosen]
        return [document for document in documents if isinstance(document, Manifest)]

    def _read_manifest(self, name: str, manifest: Manifest, place: CachePlace) -> ExportedCache:
        subject = f"cache {name}"
        config = manifest.config
        if not is_config(config.media_type):
            check_config(config, subject=subject)
        if config.size > MAX_DOCUMENT_SIZE:
            raise BlobTooLargeError(config.digest, size=config.size, limit=MAX_DOCUMENT_SIZE)
        place.fetch([config], self._store.blobs)
        data = self._store.blobs.read_bytes(config.digest, limit=MAX_DOCUMENT_SIZE)
        if is_config(config.media_type):
            image = ImageConfig.from_bytes(data, subject=subject)
            return ExportedCache(records=read_inline_cache(image, manifest.layers, subject=subject))
        return ExportedCache.from_bytes(data, manifest.layers, subject=subject)

    def _fetch(self, place: CachePlace, layers: Sequence[CachedLayer]) -> None:
        missing: dict[Digest, CachedLayer] = {}
        for layer in layers:
            known = {blob.digest for blob in self._store.state.find_blobs(layer.diff_id)}
            if layer.blob.digest not in known or not self._store.blobs.has(layer.blob.digest):
                missing[layer.diff_id] = layer
        if not missing:
            return
        place.fetch([layer.blob for layer in missing.values()], self._store.blobs)
        for diff_id, layer in missing.items():
            verify_layer(self._store.blobs, layer.blob, diff_id)
            self._store.state.put_blob(diff_id, layer.blob)

    def _tell(self, name: str, error: RegistryError | OSError) -> None:
        self._warn(f"cache `{name}` cannot be imported and is not used, {_reason(error)}")


def _reason(error: RegistryError | OSError) -> str:
    return error.message if isinstance(error, RegistryError) else str(error.strerror)
