"""Listings of sources that are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cache.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from builder.context.digest import ListedSource


def make_listing(folder: Path, sources: Iterable[ListedSource], *, piece: int = 1 << 16) -> Listing:
    """List *sources*, their records in pieces."""
    listing = Listing(folder)
    for source in sources:
        listing.begin(source.name, source.prefix)
        for at in range(0, len(source.records), piece):
            listing.add(source.records[at : at + piece])
    return listing
