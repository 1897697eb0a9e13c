"""Removing what nothing refers to: blobs, layer trees, snapshots, cache records.

Roots are the images of the layout and the cache records. Blobs are kept while an image or a record refers to their
layer; snapshots while their chain_id belongs to an image or to the result of a record. Everything here runs under
`Store.exclusive`, so no build is going on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.image.index import list_documents, list_images
from registry.oci.chain_id import chain_id, extend_chain
from registry.oci.digest import Digest, digest_hex, parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builder.cache.state import Record
    from builder.store import Store
    from registry.content.image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class FreedBlobs:
    """Blobs that were removed, and their *size* together in bytes."""

    blobs: tuple[Digest, ...]
    size: int


def stored_images(store: Store) -> Iterator[Image]:
    """Give the images of the layout whose documents can be read, those of an index one after the other."""
    for entry in store.layout.entries():
        yield from list_images(store.blobs, entry.descriptor)


def collect_blobs(store: Store) -> FreedBlobs:
    """Remove blobs that no image and no record needs, and forget the trees of layers that are gone."""
    records = [record for record, _ in store.state.records()]
    kept = _referenced_documents(store)
    needed_layers = {record.diff_id for record in records}
    for image in stored_images(store):
        kept.update(layer.digest for layer in image.manifest.layers)
        kept.add(image.manifest.config.digest)
        kept.add(image.descriptor.digest)
        needed_layers.update(image.config.diff_ids)
    for diff_id in needed_layers:
        kept.update(descriptor.digest for descriptor in store.state.find_blobs(diff_id))
    unneeded = [blob for blob in store.blobs.walk() if blob.digest not in kept]
    for blob in unneeded:
        store.blobs.delete(blob.digest)
    store.state.forget_layers_except(needed_layers)
    return FreedBlobs(blobs=tuple(blob.digest for blob in unneeded), size=sum(blob.size for blob in unneeded))


def collect_snapshots(store: Store, *, everything: bool) -> int:
    """Remove snapshots nothing leads to, or all of them; return how many. Works only inside the namespace."""
    kept = set() if everything else set(_needed_snapshots(store))
    unneeded = [name for name in store.snapshots.names() if name not in kept]
    for name in unneeded:
        store.snapshots.remove(name)
    return len(unneeded)


def remove_untagged(store: Store) -> int:
    """Take images without a name out of the layout; return how many."""
    named = {entry.descriptor.digest for entry in store.layout.entries() if entry.reference is not None}
    unnamed = {entry.descriptor.digest for entry in store.layout.entries()} - named
    for digest in unnamed:
        store.layout.remove_digest(digest)
    return len(unnamed)


def choose_records(
    records: Iterable[tuple[Record, float]], sizes: dict[Digest, int], *, used_before: float, keep_storage: int
) -> list[str]:
    """Choose the keys of records to remove, least recently used first.

    Args:
        records: records with the time of their last use, least recently used first.
        sizes: bytes of each layer.
        used_before: only records last used before this time.
        keep_storage: bytes of layers that may stay.
    """
    candidates = list(records)
    total = sum({record.diff_id: sizes.get(record.diff_id, 0) for record, _ in candidates}.values())
    left = {record.key for record, _ in candidates}
    users: dict[Digest, int] = {}
    for record, _ in candidates:
        users[record.diff_id] = users.get(record.diff_id, 0) + 1
    for record, used in candidates:
        if total <= keep_storage or used >= used_before:
            continue
        left.discard(record.key)
        users[record.diff_id] -= 1
        if users[record.diff_id] == 0:
            total -= sizes.get(record.diff_id, 0)
    return [record.key for record, _ in candidates if record.key not in left]


def _referenced_documents(store: Store) -> set[Digest]:
    """List manifests and indexes that the layout names, and manifests below these, readable or not."""
    return {digest for entry in store.layout.entries() for digest in list_documents(store.blobs, entry.descriptor)}


def _needed_snapshots(store: Store) -> Iterator[str]:
    for image in stored_images(store):
        diff_ids = image.config.diff_ids
        for count in range(1, len(diff_ids) + 1):
            yield digest_hex(chain_id(diff_ids[:count]))
    for record, _ in store.state.records():
        below = dict(record.ingredients).get("below", "empty")
        if below != "empty":
            yield below
        parent = None if below == "empty" else parse_digest(f"sha256:{below}")
        yield digest_hex(extend_chain(parent, record.diff_id))
