"""pybuild prune: remove what is no longer needed."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from builder.cli.inside import run_inside
from builder.cli.units import format_size, parse_size
from builder.collect import choose_records, collect_blobs, collect_snapshots, remove_untagged
from builder.dockerfile.instructions import parse_duration
from builder.errors import UsageError
from builder.solve.cache_mounts import remove_cache_mounts
from builder.store import Store

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment
    from registry.oci.digest import Digest
    from runtime.zygote import Zygote


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Remove images without a name, unneeded snapshots and blobs; with `-a` or a limit, cache records too."""
    used_before = _used_before(arguments.filter)
    keep = parse_size(arguments.keep_storage, option="--keep-storage") if arguments.keep_storage else 0
    drop_records = arguments.all or bool(arguments.keep_storage) or bool(arguments.filter)
    if not arguments.force and not _confirmed(environment, drop_records=drop_records):
        return 1
    with Store(environment.root(arguments.root), deletes=True) as store:
        body = partial(_prune, store, drop_records=drop_records, used_before=used_before, keep=keep)
        return run_inside(store, body, environment.isolation())


def _prune(store: Store, zygote: Zygote, *, drop_records: bool, used_before: float, keep: int) -> int:
    del zygote  # only the namespace is needed
    with store.exclusive() as alone:
        if not alone:
            raise UsageError("store is in use by another pybuild", hint="try again when it has ended")
        images = remove_untagged(store)
        records: list[str] = []
        if drop_records:
            sizes = _layer_sizes(store)
            records = choose_records(store.state.records(), sizes, used_before=used_before, keep_storage=keep)
            store.state.remove_records(records)
        everything = drop_records and not keep and used_before == float("inf")
        snapshots = collect_snapshots(store, everything=everything)
        caches = remove_cache_mounts(store.root) if everything else 0
        freed = collect_blobs(store)
    sys.stdout.write(
        f"removed {images} images without a name, {len(records)} cache records, {snapshots} snapshots, "
        f"{caches} cache mounts, {len(freed.blobs)} blobs\nTotal reclaimed space of blobs: {format_size(freed.size)}\n"
    )
    return 0


def _layer_sizes(store: Store) -> dict[Digest, int]:
    return {
        record.diff_id: max((blob.size for blob in store.state.find_blobs(record.diff_id)), default=0)
        for record, _ in store.state.records()
    }


def _used_before(filters: list[str]) -> float:
    limit = float("inf")
    for text in filters:
        key, _, value = text.partition("=")
        if key != "until":
            raise UsageError(f"unknown filter: `{text}`", hint="use until=DURATION, e.g. until=24h")
        try:
            age = parse_duration(value) / 1e9
        except ValueError as error:
            raise UsageError(f"invalid duration: `{text}`", hint="use e.g. until=24h") from error
        limit = min(limit, time.time() - age)
    return limit


def _confirmed(environment: Environment, *, drop_records: bool) -> bool:
    if not environment.stdin_tty:
        raise UsageError("prune asks before it removes, and standard input is no terminal", hint="add --force")
    what = "the build cache and all images without a name" if drop_records else "images without a name and leftovers"
    sys.stderr.write(f"WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
