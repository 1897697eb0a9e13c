"""Removing what was chosen, beside running builds.

What goes is moved to the folder of this process while nobody can begin to hold anything, and removed after that. A part
that somebody holds by then, or that shows another mark than when it was chosen, stays, and so do the items whose core it
belongs to, with all they need.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING

from builder.collect.choice import Choice
from builder.collect.inventory import list_parts, take_inventory
from builder.solve.cache_mounts import FOLDER, lay_cache_aside
from builder.store import remove_folder
from registry.oci.digest import Digest
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

    from builder.collect.inventory import Inventory, Item, Part
    from builder.store import Store


@frozen
class Freed:
    """What was removed."""

    items: tuple[Item, ...]
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Its bytes on disk."""
        return sum(part.size or 0 for part in self.parts)


def collect(store: Store, decide: Callable[[Inventory], Choice], *, measure: bool = True) -> tuple[Inventory, Freed]:
    """Remove what *decide* chooses of all there is.

    Args:
        store: what is removed from.
        decide: chooses.
        measure: see `take_inventory`.

    Returns:
        What there was, and what is gone of it.
    """
    began = time.time()
    inventory = take_inventory(store, measure=measure)
    return inventory, remove(store, inventory, decide(inventory), used_until=began)


def collect_orphans(store: Store, only: Container[str] | None = None) -> Freed:
    """Remove blobs that nothing needs; of snapshots nothing, so this works everywhere.

    Args:
        store: what is removed from.
        only: names of those that are looked at; None for all.
    """

    def decide(inventory: Inventory) -> Choice:
        parts = tuple(
            part
            for part in inventory.orphans()
            if part.kind == "blob" and part.name not in inventory.held and (only is None or part.name in only)
        )
        return Choice(items=(), parts=parts)

    return collect(store, decide, measure=False)[1]


def remove(store: Store, inventory: Inventory, choice: Choice, *, used_until: float) -> Freed:
    """Remove what was chosen, as far as it is still what it was.

    Args:
        store: what is removed from.
        inventory: what was chosen from.
        choice: what is to go.
        used_until: when the inventory was begun, in seconds.
    """
    doomed = store.temporary / f"removed-{secrets.token_hex(8)}"
    doomed.mkdir(mode=0o700)
    try:
        with store.removing() as held:
            marks = {part.name: part.mark for part in list_parts(store, measure=False)}
            spared = {p.name for p in choice.parts if p.name in held or marks.get(p.name, p.mark) != p.mark}
            items = tuple(item for item in choice.items if item.core.isdisjoint(spared))
            kept = spared.union(*(item.parts for item in choice.items if not item.core.isdisjoint(spared)))
            _give_up(store, items, used_until=used_until)
            parts = tuple(
                part
                for part in choice.parts
                if part.name in marks and part.name not in kept and _lay_aside(store, part, doomed)
            )
            gone = {part.name for part in parts if part.kind == "blob"} | (inventory.missing - held - marks.keys())
            store.state.forget_blobs(frozenset(gone))
    finally:
        remove_folder(doomed)
    return Freed(items=items, parts=parts)


def _give_up(store: Store, items: tuple[Item, ...], *, used_until: float) -> None:
    """Forget items, before their parts go."""
    for item in items:
        if item.kind == "image":
            store.layout.remove_unnamed(Digest(item.key))
    store.state.remove_records([item.key for item in items if item.kind == "record"], used_until=used_until)


def _lay_aside(store: Store, part: Part, doomed: Path) -> bool:
    """Move a part away; return whether it could be."""
    target = doomed / secrets.token_hex(8)
    with contextlib.suppress(OSError):  # another user's, or of sub-ids and this is outside the namespace
        match part.kind:
            case "blob":
                os.rename(store.blobs.path(Digest(part.name)), target)
            case "snapshot":
                store.snapshots.lay_aside(part.name, target)
            case "mount":
                return lay_cache_aside(store.root, part.name.removeprefix(f"{FOLDER}/"), target)
        return True
    return False
