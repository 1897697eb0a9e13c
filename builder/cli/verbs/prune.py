"""pybuild prune: remove what is no longer needed."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from builder.cli.find_image import shorten
from builder.cli.inside import run_inside_if_possible
from builder.cli.prune_filters import Filters, parse_filters
from builder.cli.space_limits import parse_space
from builder.cli.table import format_table
from builder.cli.units import format_age, format_size
from builder.collect.choice import cache_size, choose
from builder.collect.inventory import take_inventory
from builder.collect.limits import Disk, Limits
from builder.collect.removal import Freed, collect
from builder.errors import UsageError
from builder.store import Store, check_root
from registry.value import frozen
from runtime.disk_usage import disk_usage

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment
    from builder.collect.choice import Choice
    from builder.collect.inventory import Inventory, Item

_EVER = 1 << 63
"""A time, in nanoseconds, before which everything was used."""


@frozen
class _Wish:
    """What is to go.

    Attributes:
        with_cache: cache too, not only what has no name and what nothing needs.
        filters: which items.
        limits: how much may stay; None for nothing.
        only_blobs: what can be removed outside the namespace.
    """

    with_cache: bool
    filters: Filters
    limits: Limits | None
    only_blobs: bool = False

    @property
    def is_everything(self) -> bool:
        """Whether nothing of the cache is to stay."""
        return self.with_cache and self.limits is None and not self.filters.predicates and not self.filters.used_before

    def decide(self, store: Store, inventory: Inventory) -> Choice:
        """Choose what goes of what there is."""
        keep = None if self.limits is None else self.limits.keep(Disk.of(store.root), cache_size(inventory))
        return choose(
            inventory,
            partial(self._wants, inventory),
            used_before=self.filters.used_before or _EVER,
            keep=keep,
            with_orphans=not self.filters.predicates,
            only_blobs=self.only_blobs,
        )

    def _wants(self, inventory: Inventory, item: Item) -> bool:
        return (self.with_cache or item.kind == "image") and self.filters.wants(item, inventory)


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Remove images without a name, unneeded snapshots and blobs; with `-a`, a limit or a filter cache too."""
    filters = parse_filters(arguments.filter)
    limits = _parse_limits(arguments)
    root = check_root(environment.root(arguments.root))
    with_cache = arguments.all or limits is not None or bool(arguments.filter)
    if not arguments.force and not arguments.dry_run and not _is_confirmed(environment, with_cache=with_cache):
        return 1
    with Store(root, deletes=not arguments.dry_run) as store:

        def body(*, is_inside: bool) -> int:
            wish = _Wish(with_cache=with_cache, filters=filters, limits=limits, only_blobs=not is_inside)
            return _preview(store, wish) if arguments.dry_run else _prune(store, wish, is_verbose=arguments.verbose)

        return run_inside_if_possible(store, body, environment.isolation(), "snapshots and cache mounts stay")


def _prune(store: Store, wish: _Wish, *, is_verbose: bool) -> int:
    before = _state_size(store)
    inventory, freed = collect(store, partial(wish.decide, store), measure=not wish.only_blobs)
    if wish.is_everything:
        store.state.forget_files()
        for damaged in store.root.glob("state.db.damaged-*"):
            damaged.unlink(missing_ok=True)
    store.state.compact()
    if is_verbose:
        sys.stdout.write(_table(inventory, freed))
    reclaimed = freed.size + max(0, before - _state_size(store))
    sys.stdout.write(f"removed {_count(freed)}\nTotal reclaimed space: {format_size(reclaimed)}\n")
    return 0


def _preview(store: Store, wish: _Wish) -> int:
    inventory = take_inventory(store, measure=not wish.only_blobs)
    choice = wish.decide(store, inventory)
    chosen = Freed(items=choice.items, parts=choice.parts)
    sys.stdout.write(_table(inventory, chosen))
    sys.stdout.write(f"would remove {_count(chosen)}\nTotal reclaimable space: {format_size(chosen.size)}\n")
    return 0


def _count(freed: Freed) -> str:
    kinds = [item.kind for item in freed.items]
    parts = [part.kind for part in freed.parts]
    return (
        f"{kinds.count('image')} images without a name, {kinds.count('record')} cache records, "
        f"{parts.count('snapshot')} snapshots, {parts.count('mount')} cache mounts, {parts.count('blob')} blobs"
    )


def _table(inventory: Inventory, freed: Freed) -> str:
    """List what goes, each part with the first item that it goes with."""
    sizes = {part.name: part.size or 0 for part in freed.parts}
    now = time.time()
    rows = []
    for item in freed.items:
        size = sum(sizes.pop(name, 0) for name in item.parts)
        rows.append(
            (shorten(item.id), item.type, format_size(size), format_age(now - item.used / 1e9), item.description)
        )
    for name, size in sizes.items():
        age = format_age(now - inventory.parts[name].mark / 1e9)
        rows.append((shorten(name), "unreferenced", format_size(size), age, ""))
    return format_table(("ID", "TYPE", "SIZE", "LAST USED", "DESCRIPTION"), rows) if rows else ""


def _state_size(store: Store) -> int:
    return sum(disk_usage(path) for path in store.root.glob("state.db*"))


def _parse_limits(arguments: argparse.Namespace) -> Limits | None:
    """Read the options about space; None if there are none."""
    if arguments.keep_storage and arguments.reserved_space:
        raise UsageError("--keep-storage and --reserved-space are the same", hint="give one of them")
    given = {
        "--max-used-space": arguments.max_used_space,
        "--min-free-space": arguments.min_free_space,
        "--reserved-space": arguments.reserved_space,
        "--keep-storage": arguments.keep_storage,
    }
    spaces = {option: parse_space(text, option=option) for option, text in given.items() if text is not None}
    if not spaces:
        return None
    return Limits(
        max_used=spaces.get("--max-used-space"),
        min_free=spaces.get("--min-free-space"),
        reserved=spaces.get("--reserved-space") or spaces.get("--keep-storage"),
    )


def _is_confirmed(environment: Environment, *, with_cache: bool) -> bool:
    if not environment.stdin_tty:
        raise UsageError("prune asks before it removes, and standard input is no terminal", hint="add --force")
    what = "build cache and all images without a name" if with_cache else "images without a name and leftovers"
    sys.stderr.write(f"WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
