"""The seam between the cache of a build and where it is kept.

A *place* holds one exported cache: the documents that say what is in it, and blobs. The form of the documents is that
of `builder.cache.document`, the same everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from registry.content.store import BlobStore
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.manifest import Index, Manifest


class CachePlace(Protocol):
    """Where one cache is. Nothing is opened or asked before a method is called."""

    def document(self, digest: Digest | None = None) -> Manifest | Index:
        """Give what lies under the name of the place, or, for a digest, what an index under it lists; verified.

        Raises:
            RegistryError: there is none, or it cannot be had.
        """
        ...

    def fetch(self, blobs: Iterable[Descriptor], store: BlobStore) -> None:
        """Bring blobs into a store, verified by digest and size; those it has already are not fetched.

        Raises:
            RegistryError, OSError: one cannot be had.
        """
        ...

    def has(self, blob: Descriptor) -> bool:
        """Tell whether the place has a blob already.

        Raises:
            RegistryError: it cannot be asked.
        """
        ...

    def put(self, blobs: Sequence[Descriptor], store: BlobStore) -> None:
        """Bring blobs of a store there; those the place has already are left alone.

        Raises:
            BuildError, RegistryError: one cannot be brought there.
        """
        ...

    def name(self, manifest: Descriptor, store: BlobStore) -> None:
        """Put a manifest, whose blobs are there, under the name of the place; an older one is replaced at once.

        Raises:
            BuildError, RegistryError: it cannot be; the older one is as it was.
        """
        ...
