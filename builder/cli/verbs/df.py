"""pybuild df: what the store holds and how large it is."""

from __future__ import annotations

import json
import os
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING

from builder.cli.inside import run_inside
from builder.cli.table import format_table
from builder.cli.units import format_size
from builder.solve.cache_mounts import FOLDER, cache_mounts
from builder.store import Store

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from builder.cli.environment import Environment
    from runtime.zygote import Zygote

_Row = tuple[str, int, int]
"""Kind, how many, bytes on disk."""


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Show sizes as the file system counts them; snapshots are looked into from inside the namespace."""
    with Store(environment.root(arguments.root)) as store:
        if store.snapshots.names() or cache_mounts(store.root):
            return run_inside(store, partial(_show, arguments, store), environment.isolation())
        return _show(arguments, store, None)


def _show(arguments: argparse.Namespace, store: Store, zygote: Zygote | None) -> int:
    del zygote
    names = list(store.snapshots.names())
    records = store.state.records()
    rows: list[_Row] = [
        (
            "Images",
            len({entry.descriptor.digest for entry in store.layout.entries()}),
            disk_usage(store.root / "images"),
        ),
        ("Snapshots", len(names), disk_usage(store.root / "snapshots")),
        ("Cache mounts", len(cache_mounts(store.root)), disk_usage(store.root / FOLDER)),
        ("Cache records", len(records), sum(disk_usage(path) for path in store.root.glob("state.db*"))),
        ("Unfinished", len(list((store.root / "tmp").iterdir())) - 1, disk_usage(store.root / "tmp")),
    ]
    if arguments.format == "json":
        for kind, count, size in rows:
            sys.stdout.write(json.dumps({"Type": kind, "TotalCount": count, "Size": size}) + "\n")
        return 0
    table = [(kind, str(count), format_size(size)) for kind, count, size in rows]
    table.append(("Total", "", format_size(sum(size for _, _, size in rows))))
    sys.stdout.write(format_table(("TYPE", "TOTAL", "SIZE"), table))
    if arguments.verbose:
        used = [(record.name, record.diff_id, record.created) for record, _ in reversed(records)]
        sys.stdout.write("\n" + format_table(("STEP", "LAYER", "CREATED"), used))
    return 0


def disk_usage(path: Path) -> int:
    """Count the bytes a file or tree takes on disk, each inode once, as `du` does."""
    seen: set[tuple[int, int]] = set()
    total = 0
    pending = [os.fspath(path)]
    while pending:
        current = pending.pop()
        try:
            status = os.lstat(current)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
            if stat.S_ISDIR(status.st_mode):
                pending.extend(entry.path for entry in os.scandir(current))
        except (FileNotFoundError, PermissionError):
            continue
    return total
