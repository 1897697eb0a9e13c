"""Making a layer: entries become a tar, the tar a diff_id and a compressed blob, in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from builder.image.assemble import Layer
from registry.oci.digest import Digest

if TYPE_CHECKING:
    from builder.context.digest_copied import CopiedSelection
    from builder.context.walk import SourceRoot
    from builder.solve.ops.place import PlacedEntry
    from builder.store import Store
    from registry.content.compression import Compression
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
        from registry.content.layer_sink import LayerSink  # noqa: PLC0415  a build that is cached makes no layer
        from runtime.layers.archive import ArchiveWriter  # noqa: PLC0415  as above

        entries: list[Entry] = []
        with LayerSink(self._store.blobs.writer(), self._compression, threads=self._threads) as sink:
            clamped = None if epoch is None else hashlib.sha256()
            archive = ArchiveWriter(sink.write, latest=epoch or 0, write_clamped=clamped.update if clamped else None)
            write(archive, entries.append)
            archive.finish()
            blob = sink.finish()
        self._store.index.put(blob.diff_id, entries)
        self._store.state.put_blob(blob.diff_id, blob.descriptor)
        return Layer(
            diff_id=blob.diff_id,
            created=self._now(),
            clamped=None if clamped is None else Digest(f"sha256:{clamped.hexdigest()}"),
        )

    def make_placed(
        self, placed: Iterable[PlacedEntry], *, root: SourceRoot | None, copied: CopiedSelection | None = None
    ) -> Layer:
        """Write one layer of placed entries, reading contents below *root*, and finish what *copied* digests."""
        from builder.solve.ops.place import write_entries  # noqa: PLC0415  a build that is cached makes no layer

        def write(archive: ArchiveWriter, note: Callable[[Entry], None]) -> None:
            write_entries(_noted(placed, note), archive, root=root, digests=copied.files if copied else None)
            if copied is not None:
                copied.finish()

        return self.make(write)


def _noted(placed: Iterable[PlacedEntry], note: Callable[[Entry], None]) -> Iterator[PlacedEntry]:
    for item in placed:
        note(item.entry)
        yield item
