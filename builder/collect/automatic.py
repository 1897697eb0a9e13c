"""Collecting at the end of a build, when the disk has become full or the cache too large.

A build never fails by it. It takes what was used least recently, never what a running build holds, this one included,
and nothing of the last hour unless the disk is all but full or the cache is over a cap that somebody set.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from builder.collect.choice import cache_size, choose
from builder.collect.limits import Disk
from builder.collect.removal import collect
from builder.store import RESERVE_SIZE, give_up_reserve

if TYPE_CHECKING:
    from pathlib import Path

    from builder.collect.choice import Choice
    from builder.collect.inventory import Inventory
    from builder.collect.limits import Limits
    from builder.store import Store

RECENT_SECONDS: Final = 3600
"""What was used within this time stays, so that builds that take turns do not throw out each other's cache."""

SCARCE_SHARE: Final = 0.05
"""With less than this share of the disk free, what is recent may go too: a build that fails is worse than a slow one."""

PAUSE_SECONDS: Final = 600
"""How long nobody looks again after a look that found nothing to remove."""

_NOTE_NAME = "collected"
_LOG = logging.getLogger("pybuild." + __name__)


def collect_after_build(store: Store, limits: Limits, *, is_inside: bool) -> int:
    """Hold the cache to its limits; return how many bytes were removed.

    Args:
        store: what is removed from.
        limits: what the cache is held to.
        is_inside: whether this is the namespace, where snapshots and cache mounts can be removed too.
    """
    try:
        return _collect(store, limits, is_inside=is_inside)
    except Exception:  # noqa: BLE001  the build is done, whatever is wrong here
        _LOG.debug("the store could not be collected", exc_info=True)
        return 0


def _collect(store: Store, limits: Limits, *, is_inside: bool) -> int:
    disk = Disk.of(store.root)
    is_scarce = disk.free < disk.size * SCARCE_SHARE
    note = store.root / _NOTE_NAME
    has_cap = limits.max_used is not None
    if limits.is_kept(disk) or (not has_cap and not is_scarce and _is_young(note)):
        return 0
    now = time.time_ns()

    def decide(inventory: Inventory) -> Choice:
        used = cache_size(inventory)
        keep = limits.keep(disk, used)
        spares_recent = not is_scarce and not limits.is_exceeded(disk, used)
        return choose(
            inventory,
            lambda _: True,
            used_before=now - (RECENT_SECONDS * 1_000_000_000 if spares_recent else 0),
            keep=keep,
            only_blobs=not is_inside,
        )

    if disk.free < RESERVE_SIZE:
        give_up_reserve(store.root)
    _, freed = collect(store, decide, measure=is_inside)
    if not freed.parts and not has_cap:
        note.touch()
    return freed.size


def _is_young(note: Path) -> bool:
    try:
        return 0 <= time.time() - note.stat().st_mtime < PAUSE_SECONDS
    except FileNotFoundError:
        return False
