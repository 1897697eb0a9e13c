"""The seam between the cache of a build and where it is kept.

A *place* holds one exported cache: the documents that say what is in it, and blobs. The form of the documents is that
of `builder.cache.document`, the same everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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

    def fetch(self, blobs: Iterable[Descriptor]) -> None:
        """Bring blobs into the store, verified by digest and size; those it has already are not fetched.

        Raises:
            RegistryError, OSError: one cannot be had.
        """
        ...

    def has(self, blob: Descriptor) -> bool:
        """Tell whether `write` would find a blob there.

        Raises:
            RegistryError: the place cannot be asked.
        """
        ...

    def write(self, manifest: Descriptor, blobs: Sequence[Descriptor]) -> None:
        """Put a manifest under the name of the place; an older one is replaced, and its blobs stay.

        Args:
            manifest: in the store.
            blobs: its config and layers; in the store, unless the place has them.

        Raises:
            BuildError, RegistryError: it cannot be written; the older one is as it was.
        """
        ...
