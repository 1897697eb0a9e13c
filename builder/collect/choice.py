"""Choosing what goes: orphans first, then items, least recently used first, until what is left fits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.collect.inventory import Inventory, Item, Part


@frozen
class Choice:
    """What is to go.

    Attributes:
        items: those that are given up, first chosen first.
        parts: those that nothing needs then, first those that nothing needed before.
    """

    items: tuple[Item, ...]
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes on disk of the parts, as far as they are known."""
        return sum(part.size or 0 for part in self.parts)


def cache_size(inventory: Inventory) -> int:
    """Give the bytes of all parts that may go, in use or not, as far as they are known."""
    return sum(part.size or 0 for part in inventory.parts.values() if inventory.is_cache(part))


def choose(
    inventory: Inventory,
    wanted: Callable[[Item], bool],
    *,
    used_before: int,
    keep: int | None = None,
    with_orphans: bool = True,
    only_blobs: bool = False,
) -> Choice:
    """Choose what is to go; nothing that a running process holds.

    Args:
        inventory: what there is.
        wanted: whether an item may go.
        used_before: only what was last used before this time, in nanoseconds.
        keep: bytes of cache that may stay; None for nothing of what is wanted.
        with_orphans: whether parts that nothing needs go.
        only_blobs: leave what can be removed inside the namespace only, though it counts.
    """
    selection = _Selection(inventory, keep, only_blobs=only_blobs)
    if with_orphans:
        for part in sorted(inventory.orphans(), key=lambda part: part.mark):
            if part.mark < used_before:
                selection.drop(part.name)
    for item in inventory.items:
        if selection.fits():
            break
        if keep is not None and item.kind == "record" and item.core and item.core <= inventory.pinned:
            continue  # a step of a tagged image: its layer stays, so giving it up would cost time and gain nothing
        if item.used < used_before and item.core.isdisjoint(inventory.held) and wanted(item):
            selection.give_up(item)
    return Choice(items=tuple(selection.items), parts=tuple(selection.dropped))


class _Selection:
    """What is chosen so far."""

    def __init__(self, inventory: Inventory, keep: int | None, *, only_blobs: bool) -> None:
        self._inventory = inventory
        self._only_blobs = only_blobs
        self._keep = keep
        self._size = cache_size(inventory)
        self._users = Counter(name for item in inventory.items if item.kind != "snapshot" for name in item.parts)
        self._seen: set[str] = set()
        self.items: list[Item] = []
        self.dropped: list[Part] = []

    def fits(self) -> bool:
        """Tell whether what is left may stay."""
        return self._keep is not None and self._size <= self._keep

    def give_up(self, item: Item) -> None:
        """Do without an item, and without the parts that only it needed."""
        if item.kind == "snapshot":
            if self.drop(item.key):
                self.items.append(item)
            return
        if item.kind == "mount" and self._only_blobs:
            return
        self.items.append(item)
        for name in item.parts:
            self._users[name] -= 1
            if not self._users[name] and name not in self._inventory.pinned:
                self.drop(name)

    def drop(self, name: str) -> bool:
        """Do without a part; return False if that cannot be, or was chosen before."""
        part = self._inventory.parts.get(name)
        if part is None or name in self._seen or name in self._inventory.held:
            return False
        if self._only_blobs and part.kind != "blob":
            return False
        self._seen.add(name)
        self.dropped.append(part)
        self._size -= part.size or 0
        return True
