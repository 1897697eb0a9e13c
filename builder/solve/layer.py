"""Making a layer: entries become a tar, the tar a diff_id and a compressed blob, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from builder.image.assemble import Layer
from registry.hashing import new_hash
from registry.oci.digest import Digest

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

    from builder.context.digest_copied import CopiedSelection
    from builder.context.root import SourceRoot
    from builder.solve.ops.place import PlacedEntry
    from builder.store import Store
    from registry.content.compression import Compression
    from registry.content.layer_sink import LayerBlob
    from runtime.layers.archive import ArchiveWriter
    from runtime.layers.entry import Entry

WriteEntries = Callable[["ArchiveWriter", Callable[["Entry"], None]], None]
"""Writes entries to an archive and tells each to the second argument."""


class LayerMaker:
    """Makes layers in a store.

    Args:
        store: takes blobs and trees.
        compression: how blobs are stored.
        threads: how many compress one layer.
        now: gives the time as RFC 3339 text.
    """

    def __init__(self, store: Store, compression: Compression, *, threads: int, now: Callable[[], str]) -> None:
        self._store = store
        self._compression = compression
        self._threads = threads
        self._now = now

    def make(self, write: WriteEntries, *, epoch: int | None = None) -> Layer:
        """Write one layer: its blob is stored and its tree indexed. Nothing is kept when *write* fails.

        Args:
            write: writes the entries.
            epoch: find out what the diff_id would be with no time later than this, in seconds.
        """
        entries: list[Entry] = []
        clamped = None if epoch is None else new_hash("sha256", None)
        blob = self._store_layer(lambda archive: write(archive, entries.append), clamped, epoch or 0)
        self._store.index.put(blob.diff_id, entries)
        return self._made(blob, clamped)

    def make_placed(
        self,
        placed: Iterable[PlacedEntry],
        *,
        root: SourceRoot | None,
        copied: CopiedSelection | None = None,
        in_order: bool = True,
    ) -> Layer:
        """Write one layer of placed entries.

        Args:
            placed: the entries.
            root: where their contents are read.
            copied: digests them on the way, and is finished.
            in_order: whether they stand in the order of `TreeRows`; then however many there are takes little memory.
        """
        from builder.image.layer_index import TreeRows  # noqa: PLC0415  a build that is cached makes no layer
        from builder.solve.ops.place import write_entries  # noqa: PLC0415  as above

        entries: list[Entry] = []
        rows = TreeRows(self._store.temporary)

        def write(archive: ArchiveWriter) -> None:
            noted = _noted(placed, rows.add if in_order else entries.append)
            write_entries(noted, archive, root=root, digests=copied.files if copied else None)
            if copied is not None:
                copied.finish()

        blob = self._store_layer(write)
        if in_order:
            self._store.index.put_rows(blob.diff_id, rows)
        else:
            self._store.index.put(blob.diff_id, entries)
        return self._made(blob)

    def _store_layer(
        self, write: Callable[[ArchiveWriter], None], clamped: HASH | None = None, latest: int = 0
    ) -> LayerBlob:
        from registry.content.layer_sink import LayerSink  # noqa: PLC0415  a build that is cached makes no layer
        from runtime.layers.archive import ArchiveWriter  # noqa: PLC0415  as above

        with LayerSink(self._store.blobs.writer(), self._compression, threads=self._threads) as sink:
            archive = ArchiveWriter(sink.write, latest=latest, write_clamped=clamped.update if clamped else None)
            write(archive)
            archive.finish()
            return sink.finish()

    def _made(self, blob: LayerBlob, clamped: HASH | None = None) -> Layer:
        self._store.state.put_blob(blob.diff_id, blob.descriptor)
        return Layer(
            diff_id=blob.diff_id,
            created=self._now(),
            clamped=None if clamped is None else Digest(f"sha256:{clamped.hexdigest()}"),
        )


def _noted(placed: Iterable[PlacedEntry], note: Callable[[Entry], None]) -> Iterator[PlacedEntry]:
    for item in placed:
        note(item[0])
        yield item
