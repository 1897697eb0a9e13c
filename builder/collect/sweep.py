"""Sweeping at the start: what processes that were killed left behind."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from builder.store import Store


def sweep(store: Store, *, is_inside: bool) -> None:
    """Remove what processes that are gone left: unfinished work, torn snapshots, blobs that nothing needs.

    Args:
        store: what is swept.
        is_inside: whether this is the namespace; outside, snapshots and files of sub-ids stay.
    """
    left = store.sweep() if is_inside else store.sweep_unfinished()
    if left:
        _collect(store, left)


def _collect(store: Store, left: Container[str]) -> None:
    import logging  # noqa: PLC0415  only after a crash, as all that follows

    from builder.collect.removal import collect_orphans  # noqa: PLC0415

    log = logging.getLogger("pybuild." + __name__)
    try:
        freed = collect_orphans(store, only=left)
        log.debug("removed %d bytes that a killed process left", freed.size)
    except Exception:  # what this process came for goes on; `pybuild prune` says what is wrong
        log.debug("leftovers could not be collected", exc_info=True)
