"""Where caches are kept: folders, registries and object stores. Each is a `builder.cache.place.CachePlace`.

A folder is an OCI image layout. One that a cache is written to again keeps the blobs it has; the older cache loses its
entry.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, assert_never

from builder.export.destination import telling_where
from builder.request import CacheFolder, CacheRepository
from builder.transfer import push_blobs
from registry.actions_cache import ActionsCache
from registry.content.copy import copy_blob
from registry.content.layout import ImageLayout
from registry.content.local import LocalBlobStore
from registry.errors import NotFoundError
from registry.oci.manifest import MAX_DOCUMENT_SIZE, parse_manifest
from registry.oci.media_types import OCI_MANIFEST
from registry.oci.reference import Reference, parse_reference
from registry.s3 import Bucket
from registry.storage import fetch_blobs, put_blobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from builder.cache.place import CachePlace
    from builder.request import CacheLocation
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.content.store import BlobStore
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.manifest import Index, Manifest
    from registry.storage import BlobStorage

    Connecting = Callable[[str], AbstractContextManager[RegistryClient]]


def open_place(location: CacheLocation, store: Store, connecting: Connecting) -> CachePlace:
    """Give the place that a location names.

    Args:
        location: of a cache.
        store: knows where blobs were seen.
        connecting: gives a client that shows its transfers as the named piece of work while a block runs.
    """
    match location:
        case CacheFolder():
            return _Folder(location)
        case CacheRepository():
            return _Repository(location.reference, store, connecting)
        case Bucket() | ActionsCache():
            return _Storage(location, connecting)
        case _:
            assert_never(location)


class _Folder:
    """A cache in an OCI image layout on this machine."""

    def __init__(self, location: CacheFolder) -> None:
        self._location = location
        self._name = _layout_name(location.digest or location.tag)
        self._blobs = LocalBlobStore(location.path, temporary=location.path)

    def document(self, digest: Digest | None = None) -> Manifest | Index:
        """Read what the layout has under the name."""
        if digest is None:
            descriptor = ImageLayout(self._location.path).find(self._name)
            if descriptor is None:
                raise NotFoundError(str(self._location.path), self._location.digest or self._location.tag)
            digest, media_type = descriptor.digest, descriptor.media_type
        else:
            media_type = ""
        self._check(digest)
        data = self._blobs.read_bytes(digest, limit=MAX_DOCUMENT_SIZE)
        return parse_manifest(data, media_type, subject=f"manifest {digest}")

    def fetch(self, blobs: Iterable[Descriptor], store: BlobStore) -> None:
        """Copy blobs into a store."""
        for blob in blobs:
            self._check(blob.digest)
            copy_blob(self._blobs, store, blob.digest, size=blob.size)

    def has(self, blob: Descriptor) -> bool:
        """Look whether the layout has a blob."""
        return self._blobs.has(blob.digest)

    def put(self, blobs: Sequence[Descriptor], store: BlobStore) -> None:
        """Copy blobs to the layout, whose folder is made if it is missing."""
        with telling_where("cache", self._location.path):
            self._location.path.mkdir(parents=True, exist_ok=True)
            for blob in blobs:
                copy_blob(store, self._blobs, blob.digest)

    def name(self, manifest: Descriptor, store: BlobStore) -> None:
        """Enter a manifest in the list of the layout, in place of the older one."""
        self.put([manifest], store)
        with telling_where("cache", self._location.path):
            layout = ImageLayout(self._location.path)
            older = layout.find(self._name)
            layout.put(manifest, self._name)
            if older is not None and older.digest != manifest.digest:
                layout.remove_digest(older.digest)

    def _check(self, digest: Digest) -> None:
        """Refuse what is no file: a pipe would never end."""
        if not self._blobs.has(digest):
            raise NotFoundError(str(self._location.path), digest)


def _layout_name(name: str) -> Reference:
    """Give the name that a cache has in an image layout, by its tag or digest."""
    return parse_reference(f"pybuild-cache{'@' if ':' in name else ':'}{name}")


class _Repository:
    """A cache, or an image with one, in a registry."""

    def __init__(self, reference: Reference, store: Store, connecting: Connecting) -> None:
        self._reference = reference
        self._store = store
        self._connecting = connecting

    def document(self, digest: Digest | None = None) -> Manifest | Index:
        """Fetch the document of the name."""
        with self._connecting(f"importing cache manifest from {self._reference}") as client:
            return client.fetch_manifest(self._at(digest)).document

    def fetch(self, blobs: Iterable[Descriptor], store: BlobStore) -> None:
        """Pull blobs into a store."""
        wanted = tuple(blobs)
        with self._connecting(f"importing cache from {self._reference}") as client:
            client.pull_blobs(self._reference, wanted, store)
        repository = f"{self._reference.registry}/{self._reference.repository}"
        self._store.state.add_origin((blob.digest for blob in wanted), repository)

    def has(self, blob: Descriptor) -> bool:
        """Ask the repository for a blob."""
        with self._connecting(f"exporting cache to {self._reference}") as client:
            return client.has_blob(self._reference, blob.digest)

    def put(self, blobs: Sequence[Descriptor], store: BlobStore) -> None:
        """Push blobs."""
        with self._connecting(f"exporting cache to {self._reference}") as client:
            push_blobs(self._store, blobs, store, self._reference, client)

    def name(self, manifest: Descriptor, store: BlobStore) -> None:
        """Push a manifest."""
        with self._connecting(f"exporting cache to {self._reference}") as client:
            client.push_manifest(self._reference, manifest, store)

    def _at(self, digest: Digest | None) -> Reference:
        return self._reference if digest is None else self._reference.with_digest(digest)


class _Storage:
    """A cache in an object store."""

    def __init__(self, location: Bucket | ActionsCache, connecting: Connecting) -> None:
        self._location = location
        self._connecting = connecting

    def document(self, digest: Digest | None = None) -> Manifest | Index:
        """Read the document of the name; there is nothing but that."""
        if digest is not None:
            raise NotFoundError(str(self._location), digest)
        with self._open(f"importing cache manifest from {self._location}") as storage:
            data = storage.get_document(limit=MAX_DOCUMENT_SIZE)
        return parse_manifest(data, OCI_MANIFEST, subject=f"manifest of {self._location}")

    def fetch(self, blobs: Iterable[Descriptor], store: BlobStore) -> None:
        """Fetch blobs into a store."""
        wanted = tuple(blobs)
        with self._open(f"importing cache from {self._location}") as storage:
            fetch_blobs(storage, wanted, store)

    def has(self, blob: Descriptor) -> bool:
        """Ask for a blob."""
        with self._open(f"exporting cache to {self._location}") as storage:
            return storage.has_blob(blob)

    def put(self, blobs: Sequence[Descriptor], store: BlobStore) -> None:
        """Send blobs."""
        with self._open(f"exporting cache to {self._location}") as storage:
            put_blobs(storage, blobs, store)

    def name(self, manifest: Descriptor, store: BlobStore) -> None:
        """Write the document."""
        with self._open(f"exporting cache to {self._location}") as storage:
            storage.put_document(store.read_bytes(manifest.digest, limit=MAX_DOCUMENT_SIZE))

    @contextmanager
    def _open(self, work: str) -> Iterator[BlobStorage]:
        with self._connecting(work) as client, client.storage(self._location) as storage:
            yield storage
