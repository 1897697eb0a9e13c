"""File systems as chains of layers: their trees, their snapshots, their blobs.

A *file system* is a tuple of layers, base first. What is known of one grows with need: the tree of a layer is indexed
when a COPY asks about it, a snapshot is unpacked when a step runs on it or is copied from.

The diff_ids of an image are *claims*: whoever wrote the config may have written those of other layers, and everything
here is found by diff_id. So a layer is read and hashed once before anything is made on, or of, the file system that
its diff_id stands for. Mostly this is the pass that unpacks or indexes it; only where another image has led to the
same snapshot or tree already, it is a pass of its own. What a store knows as a form of a layer was hashed here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial

from builder.cache.turns import Turns
from builder.errors import BaseImageError, StoreError, WrongLayerError
from builder.image.assemble import Layer
from registry.content.image import is_stored
from registry.errors import BlobMissingError, ContentError, DigestMismatchError, LayerDamagedError, SizeMismatchError
from registry.oci.chain_id import chain_id, chain_ids
from registry.oci.digest import Digest, digest_hex
from registry.oci.media_types import layer_compression
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import BinaryIO, TypeVar

    from builder.errors import BuildError
    from builder.image.layer_index import IndexTree
    from builder.solve.arrivals import Arrivals
    from builder.store import Store
    from registry.content.image import Image
    from registry.oci.descriptor import Descriptor
    from runtime.layers.entry import Entry
    from runtime.snapshots.snapshotter import Active, Snapshotter

    _Read = TypeVar("_Read")

FileSystem = tuple[Layer, ...]
"""The layers of a file system, base first; the empty tuple is the empty one."""

SMALL_FILE = 8 << 20
"""Longest file that is read whole out of a layer (passwd, group), in bytes."""

READ_SIZE = 1 << 20

_DAMAGE = (BlobMissingError, DigestMismatchError, SizeMismatchError, LayerDamagedError)
"""How a stored layer that is not what its name says shows when it is read."""


@frozen(kw_only=False)
class _Claim:
    """A layer that an image says is the form of a diff_id."""

    blob: Descriptor
    image: str


class FileSystems:
    """What is known of file systems in a store. Used from many threads.

    Args:
        store: where layers, trees and snapshots are.
        arrivals: fetches layers of base images that are not in the store; None if all are.

    Attributes:
        turns: by which threads and processes make the same snapshot, or step, once.
    """

    def __init__(self, store: Store, arrivals: Arrivals | None = None) -> None:
        self._store = store
        self._arrivals = arrivals
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._claims: dict[Digest, dict[Digest, _Claim]] = {}
        self._unpacked: set[str] = set()
        self._present: dict[Digest, list[Descriptor]] = {}
        self.turns = Turns(store.root)

    def add_image(self, image: Image, name: str) -> FileSystem:
        """Give the file system of an image in the store; what it is called is for errors.

        Its layers need not be read for it, and are not what they are said to be until they are.
        """
        for diff_id, blob in zip(image.config.diff_ids, image.manifest.layers, strict=True):
            if all(known.digest != blob.digest for known in self._store.state.find_blobs(diff_id)):
                self._claims.setdefault(diff_id, {})[blob.digest] = _Claim(blob, name)
        return tuple(Layer(diff_id=diff_id) for diff_id in image.config.diff_ids)

    def has_all(self, image: Image) -> bool:
        """Tell whether no layer of a base image is still to be fetched."""
        arrivals = self._arrivals
        return arrivals is None or not any(arrivals.awaits(blob) for blob in image.manifest.layers)

    def fetch(self, image: Image) -> None:
        """Have a base image that was given to the arrivals in the store, whole.

        Raises:
            BaseImageError: it cannot be fetched.
        """
        if self._arrivals is not None:
            self._arrivals.fetch(image, self.turns)

    def cancel(self) -> None:
        """Make who waits for other builds or for the network give up, now or later."""
        self.turns.cancel()
        if self._arrivals is not None:
            self._arrivals.cancel()

    def find_blob(self, diff_id: Digest, kind: str | None = None) -> Descriptor | None:
        """Find a stored form of a layer, not only claimed; one compressed as *kind* if there is one.

        What was found is held, so it is there until the end, and is looked for once.
        """
        if _first_of(kind, self._present.get(diff_id, ())) is None:
            known = self._store.state.find_blobs(diff_id)
            self._present[diff_id] = [blob for blob in known if is_stored(self._store.blobs, blob)]
        present = self._present[diff_id]
        return _first_of(kind, present) or _first_of(None, present)

    def get_blob(self, diff_id: Digest, kind: str | None = None) -> Descriptor:
        """Find a stored form of a layer.

        Raises:
            StoreError: none is left.
        """
        found = self.find_blob(diff_id, kind)
        if found is None:
            raise StoreError(
                f"a layer is missing from the store: `{diff_id}`", hint="build again with --no-cache, or pull the base"
            )
        return found

    def tree(self, layers: FileSystem) -> IndexTree:
        """Give the tree of a file system, indexing those of its layers that are not yet.

        Raises:
            WrongLayerError: a layer is not what its image says.
        """
        for layer in layers:
            if not self._store.index.has(layer.diff_id):
                with self._locked(layer.diff_id):
                    entries = self._read_early(layer.diff_id, _list_entries)
                    self._store.index.put(layer.diff_id, entries)
            self.prove(layer.diff_id)
        return self._store.index.tree([layer.diff_id for layer in layers], lambda path: self._read_file(layers, path))

    def snapshots(self, layers: FileSystem) -> tuple[str, ...]:
        """Unpack what is not unpacked of a file system; return the names of its snapshots, base first.

        Works only inside the namespace.

        Raises:
            WrongLayerError: a layer is not what its image says.
        """
        names = tuple(digest_hex(chain) for chain in chain_ids(layer.diff_id for layer in layers))
        for count, layer in enumerate(layers):
            name = names[count]
            if name not in self._unpacked and not self._store.snapshots.has(name):
                with self.turns.taken(f"snapshot-{name}"):
                    self._unpack(layer, names[: count + 1])
            self._unpacked.add(name)  # it is held, so it stays
            self.prove(layer.diff_id)
        return names

    def prove(self, diff_id: Digest) -> None:
        """Read what images claim to be a layer, as far as nobody has read it yet.

        Raises:
            StoreError: the layer was damaged and is removed.
            WrongLayerError: one claims what is not so.
        """
        if not self._claims_of(diff_id):
            return
        with self._locked(diff_id):
            for known in self._store.state.find_blobs(diff_id):  # another build may have read it by now
                self._claims[diff_id].pop(known.digest, None)
            while self._claims_of(diff_id):
                with self.open_tar(diff_id):
                    pass

    @contextlib.contextmanager
    def mounted(self, layers: FileSystem) -> Iterator[Path]:
        """Show a file system for reading for the time of the block. Works only inside the namespace."""
        with self._store.snapshots.view(self.snapshots(layers)) as view:
            yield view

    @contextlib.contextmanager
    def opened(self, layers: FileSystem) -> Iterator[int]:
        """Show a file system as `mounted` does, and give a descriptor of its root."""
        with self.mounted(layers) as path:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield fd
            finally:
                os.close(fd)

    def _unpack(self, layer: Layer, names: tuple[str, ...]) -> None:
        snapshots = self._store.snapshots
        if snapshots.has(names[-1]):
            return
        active = self._read_early(layer.diff_id, partial(_apply, snapshots, snapshots.lowers(names[:-1])))
        snapshots.commit(active, names[-1])

    def _read_early(self, diff_id: Digest, read: Callable[[AbstractContextManager[BinaryIO]], _Read]) -> _Read:
        """Have a layer read, from its first bytes on if it is still on its way.

        What arrives is known to be right only when all of it is there, so where reading it fails it is read once more
        then, and fails for good, for what is wrong with the layer or with its way here.

        Args:
            diff_id: of the layer.
            read: enters the block that gives its tar; what it makes outside counts only if that ends without an error.
        """
        awaited = self._find_awaited(diff_id)
        blob = None if awaited is None or self._arrivals is None else self._arrivals.follow(awaited, self.turns)
        if awaited is not None and blob is not None:
            import logging  # noqa: PLC0415  a build that is cached reads no layer

            from runtime.errors import LayerError  # noqa: PLC0415  as above

            try:
                return read(self._open_claimed(diff_id, self._claim_of(diff_id, awaited), awaited, blob))
            except (ContentError, LayerError) as error:
                log = logging.getLogger("pybuild." + __name__)
                log.debug("layer %s is read again when it is there: %s", diff_id, error.message)
        return read(self.open_tar(diff_id))

    def _find_awaited(self, diff_id: Digest) -> Descriptor | None:
        """Find the blob that `open_tar` would wait for."""
        if self._arrivals is None:
            return None
        claim = next(iter(self._claims_of(diff_id)), None)
        if claim is not None:
            return claim.blob if self._arrivals.awaits(claim.blob) else None
        if self.find_blob(diff_id) is not None:
            return None
        return next((blob for blob in self._store.state.find_blobs(diff_id) if self._arrivals.awaits(blob)), None)

    @contextlib.contextmanager
    def open_tar(self, diff_id: Digest) -> Iterator[BinaryIO]:
        """Give the tar of a layer; it is known to be right only when the block has ended without an error.

        Raises:
            BaseImageError: the layer cannot be fetched.
            StoreError: it is missing, or was damaged and is removed.
            WrongLayerError: it is not what its image says.
        """
        awaited = self._find_awaited(diff_id)
        if awaited is not None and self._arrivals is not None:
            self._arrivals.wait(awaited, self.turns)
        claim = next(iter(self._claims_of(diff_id)), None)
        descriptor = claim.blob if claim is not None else self.get_blob(diff_id)
        try:
            blob = self._store.blobs.open_verified(descriptor.digest, size=descriptor.size)
            with self._open_claimed(diff_id, claim, descriptor, blob) as stream:
                yield stream
        except _DAMAGE as error:
            raise self._explain(error, descriptor, diff_id, claim) from error
        except Exception as error:
            from runtime.errors import LayerError  # noqa: PLC0415  a build that is cached reads no layer

            # Who takes the tar apart may stumble over damage before the digest at the end tells of it.
            if not isinstance(error, LayerError) or self._is_whole(descriptor):
                raise
            raise self._remove(descriptor, error.message) from error

    @contextlib.contextmanager
    def _open_claimed(
        self, diff_id: Digest, claim: _Claim | None, descriptor: Descriptor, blob: BinaryIO
    ) -> Iterator[BinaryIO]:
        """Give the tar in a blob that verifies itself, and note what it is; a claim is checked."""
        from registry.content.image import verified_tar  # noqa: PLC0415  a build that is cached reads no layer
        from registry.content.layer_stream import open_layer  # noqa: PLC0415  as above
        from registry.content.read_ahead import ReadAhead  # noqa: PLC0415  as above

        if claim is None:
            tar = open_layer(blob, media_type=descriptor.media_type)
        else:
            tar = verified_tar(blob, descriptor, diff_id)
        with ReadAhead(tar) as stream:
            yield stream  # type: ignore[misc]  # readers of archives only call `read`
            while stream.read(READ_SIZE):
                pass  # the digests are only known to be right at the end
        if claim is not None:
            self._store.state.put_blob(diff_id, descriptor)
            self._claims[diff_id].pop(descriptor.digest, None)

    def _claim_of(self, diff_id: Digest, blob: Descriptor) -> _Claim | None:
        return self._claims.get(diff_id, {}).get(blob.digest)

    def _explain(
        self, error: ContentError, descriptor: Descriptor, diff_id: Digest, claim: _Claim | None
    ) -> BuildError:
        """Tell a layer that was damaged here, and is removed, from one that its image has wrong."""
        if claim is not None and isinstance(error, DigestMismatchError) and error.expected != descriptor.digest:
            return WrongLayerError(image=claim.image, layer=descriptor.digest, expected=diff_id, actual=error.actual)
        if claim is not None and self._is_whole(descriptor):
            return BaseImageError(
                f"a layer of the image cannot be unpacked, {error.message}, {descriptor.digest}: `{claim.image}`",
                hint="use another tag or digest of the image, and tell who publishes it",
            )
        return self._remove(descriptor, error.message)

    def _remove(self, descriptor: Descriptor, reason: str) -> StoreError:
        """Remove a blob that is not what its name says, and give the error that tells of it."""
        self._present.clear()
        self._store.blobs.delete(descriptor.digest)
        return StoreError(
            f"a stored layer was damaged and is removed, {reason}", hint="build again: it is made or pulled anew"
        )

    def _is_whole(self, descriptor: Descriptor) -> bool:
        """Tell whether the bytes of a blob are those of its digest."""
        try:
            with self._store.blobs.open_verified(descriptor.digest) as blob:
                while blob.read(READ_SIZE):
                    pass
        except ContentError:
            return False
        return True

    def _claims_of(self, diff_id: Digest) -> tuple[_Claim, ...]:
        return tuple(self._claims.get(diff_id, {}).values())

    def _read_file(self, layers: FileSystem, path: bytes) -> bytes | None:
        """Read a small file from the topmost layer that has it."""
        from runtime.layers.read import read_archive  # noqa: PLC0415  a build that is cached reads no layer

        for layer in reversed(layers):
            tree = self._store.index.tree([layer.diff_id], lambda _: None)
            entry = tree.find(path)
            if entry is None:
                continue
            wanted = entry.linkname or path
            with self.open_tar(layer.diff_id) as stream:
                for member in read_archive(stream):
                    if member.entry.path == wanted:
                        return member.read(SMALL_FILE)
        return None

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            yield


def _first_of(kind: str | None, blobs: Iterable[Descriptor]) -> Descriptor | None:
    """Give the first blob that is compressed as *kind*; None is any."""
    return next((blob for blob in blobs if kind in {None, layer_compression(blob.media_type)}), None)


def _list_entries(opening: AbstractContextManager[BinaryIO]) -> list[Entry]:
    """List what is in a layer."""
    from runtime.layers.read import read_archive  # noqa: PLC0415  a build that is cached looks at no tree

    with opening as stream:
        return [member.entry for member in read_archive(stream)]


def _apply(snapshots: Snapshotter, lowers: tuple[Path, ...], opening: AbstractContextManager[BinaryIO]) -> Active:
    """Unpack a layer onto others, and return what is to be committed."""
    from runtime.layers.apply import apply_layer  # noqa: PLC0415  a build that is cached unpacks nothing

    active = snapshots.prepare(lowers)
    try:
        with opening as stream, snapshots.writable(lowers, active) as target:
            apply_layer(stream, target)
        snapshots.settle(active)
    except BaseException:
        snapshots.discard(active)
        raise
    return active


def snapshot_name(layers: FileSystem) -> str:
    """Name the snapshot of a file system that is not empty: the hex of its chain_id."""
    return digest_hex(chain_id([layer.diff_id for layer in layers]))
