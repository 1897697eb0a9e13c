"""What a store holds: parts on disk, and the items that need them.

A *part* is what lies on disk and is removed whole: a blob, a snapshot, a cache mount. An *item* is what somebody can do
without: a cache record, an image without a name, a snapshot, a cache mount, a downloaded file, another form of a layer.
An item needs parts; what a tagged image needs is *pinned*. An *orphan* is a part that nothing needs. The *mark* of a part
is the time stamp of its last use.

Reading a store takes no lock. Parts are looked at first, then who holds them, then who needs them. So what a process
begins to need and has left again meanwhile shows another mark when it is to be removed (builder.collect.removal).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Literal

from builder.image.index import list_documents, list_images
from builder.solve.cache_mounts import FOLDER, list_caches
from registry.oci.chain_id import chain_ids, extend_chain
from registry.oci.digest import Digest, digest_hex, parse_digest
from registry.value import frozen
from runtime.disk_usage import BLOCK, disk_usage
from runtime.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.cache.state import Record
    from builder.store import Store
    from registry.content.image import Image
    from registry.oci.descriptor import Descriptor

PartKind = Literal["blob", "snapshot", "mount"]
ItemKind = Literal["image", "record", "form", "download", "snapshot", "mount"]


@frozen
class Part:
    """Something on disk.

    Attributes:
        name: a digest, the directory of a snapshot, or `mounts/KEY`; blobs and snapshots are held under it.
        kind: what it is.
        size: its bytes on disk; None for what nobody has measured.
        mark: when it was last used, in nanoseconds.
    """

    name: str
    kind: PartKind
    size: int | None
    mark: int


@frozen
class Item:
    """Something that can be done without.

    Attributes:
        kind: what it is.
        key: names it in the store.
        id: names it for people, who may cut it short.
        description: what it is for people.
        parts: names of the parts it needs.
        core: those that who uses it holds, and that who uses another item need not: not the layers of its base.
        used: when it was last used, in nanoseconds.
        created: when it was made, as RFC 3339 text; empty if that is not known.
    """

    kind: ItemKind
    key: str
    id: str
    description: str
    parts: frozenset[str]
    core: frozenset[str]
    used: int
    created: str = ""

    @property
    def type(self) -> str:
        """Its type in the words of BuildKit, which knows no images here.

        Source: BuildKit, client/diskusage.go.
        """
        return {"image": "image", "mount": "exec.cachemount"}.get(self.kind, "regular")


@frozen
class Inventory:
    """What a store holds.

    Attributes:
        parts: by name.
        items: least recently used first, and what was made of others before these.
        tagged: images with a name, which are no items, in the form of such.
        pinned: names of the parts of tagged images, their snapshots included.
        held: what running processes hold.
        missing: names of blobs that something tells of and that are not there.
    """

    parts: Mapping[str, Part]
    items: tuple[Item, ...]
    tagged: tuple[Item, ...]
    pinned: frozenset[str]
    held: frozenset[str]
    missing: frozenset[str]

    def images(self) -> tuple[Item, ...]:
        """Give all images, with and without names."""
        return (*self.tagged, *(item for item in self.items if item.kind == "image"))

    def orphans(self) -> tuple[Part, ...]:
        """Give the parts that nothing needs."""
        needed = self.pinned | _parts_of(item for item in self.items if item.kind != "snapshot")
        return tuple(part for part in self.parts.values() if part.kind != "mount" and part.name not in needed)

    def is_cache(self, part: Part) -> bool:
        """Tell whether a part may go: all but the blobs of tagged images."""
        return part.kind != "blob" or part.name not in self.pinned


def take_inventory(store: Store, *, measure: bool) -> Inventory:
    """Look at everything in a store.

    Args:
        store: what is looked at.
        measure: also find out the sizes of snapshots that nobody has measured, and of cache mounts. Works only inside
            the namespace, and takes a walk for each; that of a snapshot is remembered.
    """
    parts = {part.name: part for part in list_parts(store, measure=measure)}
    held = store.held()
    return _Reader(store, parts, held).read()


def list_parts(store: Store, *, measure: bool) -> Iterator[Part]:
    """List what lies in a store; see `take_inventory`."""
    for digest, status in store.blobs.scan():
        yield Part(name=digest, kind="blob", size=status.st_blocks * BLOCK, mark=status.st_mtime_ns)
    for found in store.snapshots.stored():
        size = found.size
        if size is None and measure:
            try:
                size = store.snapshots.measure(found.directory)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue
        yield Part(name=found.directory, kind="snapshot", size=size, mark=found.used)
    for cache in list_caches(store.root):
        try:
            size = disk_usage(store.root / FOLDER / cache.key) if measure else None
        except FileNotFoundError:
            continue
        yield Part(name=f"{FOLDER}/{cache.key}", kind="mount", size=size, mark=cache.used)


def part_path(store: Store, part: Part) -> Path:
    """Return where a part lies."""
    match part.kind:
        case "blob":
            return store.blobs.path(Digest(part.name))
        case "snapshot":
            return store.root / "snapshots" / part.name
        case "mount":
            return store.root / part.name


class _Reader:
    """Finds out what needs the parts of a store."""

    def __init__(self, store: Store, parts: Mapping[str, Part], held: Iterable[str]) -> None:
        self._store = store
        self._parts = parts
        self._held = frozenset(held)
        self._layer_blobs = store.state.layer_blobs()
        self._below: dict[str, list[str]] = {}
        """The snapshots that lie directly below a snapshot."""
        self._directories: dict[str, list[str]] = {}
        """The snapshots of a file system, by the hex of its chain_id."""
        for part in parts.values():
            if part.kind == "snapshot":
                self._directories.setdefault(part.name.removesuffix(".recorded"), []).append(part.name)

    def read(self) -> Inventory:
        """Read what is known of the parts."""
        names: dict[Digest, list[str]] = {}
        descriptors: dict[Digest, Descriptor] = {}
        for entry in self._store.layout.entries():
            descriptors[entry.descriptor.digest] = entry.descriptor
            known = names.setdefault(entry.descriptor.digest, [])
            if entry.reference is not None:
                known.append(entry.reference.familiar())
        diff_ids: set[Digest] = set()
        tagged: list[Item] = []
        items: list[Item] = []
        for digest, descriptor in descriptors.items():
            images = tuple(list_images(self._store.blobs, descriptor))
            diff_ids.update(diff_id for image in images for diff_id in image.config.diff_ids)
            (tagged if names[digest] else items).append(self._image_item(descriptor, images, names[digest]))
        items += self._record_items()
        items += self._download_items()
        items += self._form_items(diff_ids, _parts_of((*tagged, *items)))
        items += self._lone_items()
        items.sort(key=lambda item: item.created, reverse=True)
        items.sort(key=lambda item: item.used)
        told = {blob for blobs in self._layer_blobs.values() for blob in blobs}
        return Inventory(
            parts=self._parts,
            items=tuple(items),
            tagged=tuple(tagged),
            pinned=_parts_of(tagged),
            held=self._held,
            missing=frozenset(told.difference(self._parts)),
        )

    def _image_item(self, descriptor: Descriptor, images: Sequence[Image], names: Iterable[str]) -> Item:
        documents: set[str] = set(list_documents(self._store.blobs, descriptor))
        documents.update(image.manifest.config.digest for image in images)
        layers = {layer.digest for image in images for layer in image.manifest.layers}
        # Who uses an image uses all its layers, though others may have used some of them later.
        marks = [self._parts[layer].mark for layer in layers if layer in self._parts]
        return Item(
            kind="image",
            key=descriptor.digest,
            id=images[0].manifest.config.digest if images else descriptor.digest,
            description=", ".join(names) or "<none>",
            parts=frozenset(documents | layers).union(*(self._snapshots_of(image) for image in images)),
            core=frozenset(documents),
            used=max(self._last_use(documents), min(marks, default=0)),
            created=next((image.config.created for image in images if image.config.created), ""),
        )

    def _snapshots_of(self, image: Image) -> Iterator[str]:
        """Give the snapshots of the layers of an image."""
        chains = chain_ids(image.config.diff_ids)
        for below, chain in zip((None, *chains), chains, strict=False):
            yield from self._snapshots_on(below, chain)

    def _snapshots_on(self, below: Digest | None, chain: Digest) -> Sequence[str]:
        """Give the snapshots of a file system, and note what lies below them."""
        found = self._directories.get(digest_hex(chain), [])
        if below is not None:
            for directory in found:
                self._below.setdefault(directory, []).extend(self._directories.get(digest_hex(below), ()))
        return found

    def _record_items(self) -> list[Item]:
        records = self._store.state.records()
        used: dict[str, int] = {}
        makers: dict[Digest, list[str]] = {}
        parts: dict[str, frozenset[str]] = {}
        cores: dict[str, frozenset[str]] = {}
        for record, last in records:
            below, result = _chains_of(record)
            blobs = [blob for blob in self._layer_blobs.get(record.diff_id, ()) if blob in self._parts]
            lower = self._directories.get(digest_hex(below), ()) if below else ()
            cores[record.key] = frozenset(blobs)
            parts[record.key] = frozenset((*blobs, *self._snapshots_on(below, result), *lower))
            used[record.key] = max(int(last * 1e9), self._last_use(blobs))
            makers.setdefault(result, []).append(record.key)
        given = {r.key: [maker for base in _given_to(r) for maker in makers.get(base, ())] for r, _ in records}
        _spread_use(used, given)
        return [
            Item(
                kind="record",
                key=record.key,
                id=record.key,
                description=record.name,
                parts=parts[record.key],
                core=cores[record.key],
                used=used[record.key],
                created=record.created,
            )
            for record, _ in records
        ]

    def _download_items(self) -> Iterator[Item]:
        for digest in self._store.state.url_bodies():
            if digest in self._parts:
                yield self._blob_item("download", digest, "downloaded file")

    def _form_items(self, diff_ids: Iterable[Digest], known: frozenset[str]) -> Iterator[Item]:
        """Give the forms of layers of images that no image and no record has any more."""
        for diff_id in diff_ids:
            for blob in self._layer_blobs.get(diff_id, ()):
                if blob in self._parts and blob not in known:
                    yield self._blob_item("form", blob, f"another form of layer {diff_id}")

    def _blob_item(self, kind: ItemKind, digest: str, description: str) -> Item:
        return Item(
            kind=kind,
            key=digest,
            id=digest,
            description=description,
            parts=frozenset({digest}),
            core=frozenset({digest}),
            used=self._parts[digest].mark,
        )

    def _lone_items(self) -> Iterator[Item]:
        """Give the snapshots and cache mounts, which are items and parts at once."""
        names = {f"{FOLDER}/{cache.key}": cache.id for cache in list_caches(self._store.root)}
        used = {part.name: part.mark for part in self._parts.values() if part.kind != "blob"}
        _spread_use(used, self._below, later=1)
        for name, last in used.items():
            kind = self._parts[name].kind
            yield Item(
                kind="mount" if kind == "mount" else "snapshot",
                key=name,
                id=name.removeprefix(f"{FOLDER}/"),
                description=names.get(name, "") if kind == "mount" else "unpacked layer",
                parts=frozenset({name}),
                core=frozenset({name}),
                used=last,
            )

    def _last_use(self, blobs: Iterable[str]) -> int:
        return max((self._parts[blob].mark for blob in blobs if blob in self._parts), default=0)


def _parts_of(items: Iterable[Item]) -> frozenset[str]:
    return frozenset[str]().union(*(item.parts for item in items))


def _chains_of(record: Record) -> tuple[Digest | None, Digest]:
    """Name the file systems below a step and after it; None for the empty one."""
    text = dict(record.ingredients).get("below", "empty")
    below = None if text == "empty" else parse_digest(f"sha256:{text}")
    return below, extend_chain(below, record.diff_id)


def _given_to(record: Record) -> Iterator[Digest]:
    """Name the file systems that a step was given."""
    for name, text in record.ingredients:
        if name in {"below", "source file system"} and text != "empty":
            yield parse_digest(f"sha256:{text}")


def _spread_use(used: dict[str, int], given: Mapping[str, Iterable[str]], *, later: int = 0) -> None:
    """Count a use of something as one of what it needs, so that this is not given up before.

    Args:
        used: when each was used, in nanoseconds; changed in place.
        given: what each needs.
        later: nanoseconds by which what is needed counts as used later. Not for records: of two linked COPY steps each
            may be made of the other's result.
    """
    pending = list(used)
    while pending:
        key = pending.pop()
        for base in given.get(key, ()):
            if used.get(base, 0) < used[key] + later and base in used:
                used[base] = used[key] + later
                pending.append(base)
