"""Layers again with no time later than the epoch: what `rewrite-timestamp=true` asks of an output.

Source: BuildKit, docs/build-repro.md, "Timestamps of the files inside the layers"; `util/converter/tarconverter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

from builder.cache.key import Ingredient, derive_key
from runtime.layers.entry import EntryKind
from runtime.layers.read import read_archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.oci.digest import Digest
    from runtime.layers.archive import ArchiveWriter
    from runtime.layers.entry import Entry


def clamp_times(stream: BinaryIO, writer: ArchiveWriter, epoch: int, note: Callable[[Entry], None]) -> None:
    """Copy a layer's tar; times later than *epoch* become it. Does not finish the writer.

    Args:
        stream: the tar.
        writer: of the new layer.
        epoch: seconds since 1970.
        note: told of every entry that is written.
    """
    for member in read_archive(stream):
        entry = member.entry
        if entry.mtime > epoch:
            entry = entry._replace(mtime=epoch)
        has_content = entry.kind is EntryKind.FILE and entry.size
        # A member has the one method of streams that the writer calls.
        writer.add(entry, cast("BinaryIO", member) if has_content else None)
        note(entry)


def rewrite_key(diff_id: Digest, epoch: int) -> tuple[str, tuple[Ingredient, ...]]:
    """Give the cache key of a rewritten layer, and what it is made of."""
    ingredients = (("op", "rewrite timestamps"), ("diff_id", str(diff_id)), ("epoch", str(epoch)))
    return derive_key(ingredients), ingredients
