"""pybuild df: what the store holds and how large it is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from builder.cli.find_image import shorten
from builder.cli.inside import run_inside_if_possible
from builder.cli.table import format_table
from builder.cli.units import format_age, format_size, parse_time
from builder.collect.inventory import Inventory, Item, part_path, take_inventory
from builder.solve.cache_mounts import list_caches
from builder.store import Store, check_root
from registry.value import frozen
from runtime.disk_usage import disk_usage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from builder.cli.environment import Environment
    from builder.collect.inventory import Part


@frozen
class _Kind:
    """A line of the summary: how many, their bytes, and how many of these `prune --all` would free."""

    name: str
    count: int
    size: int
    reclaimable: int = 0


@frozen
class _Line:
    """A line of the long form. *unique* bytes of *size* are needed by nothing else; times are seconds, or not known."""

    id: str
    type: str = ""
    size: int
    unique: int
    created: float | None = None
    used: float
    description: str = ""


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Show sizes as the file system counts them; what belongs to sub-ids is looked into from inside the namespace."""
    root = check_root(environment.root(arguments.root))
    with Store(root) as store:

        def body(*, is_inside: bool) -> int:
            return _show(arguments, store, is_inside=is_inside)

        if not _needs_namespace(store):
            return body(is_inside=False)
        return run_inside_if_possible(store, body, environment.isolation(), "what other ids own is left out")


def _needs_namespace(store: Store) -> bool:
    """Tell whether there is something that may belong to sub-ids and whose size nobody knows."""
    if list_caches(store.root) or _other_folders(store):
        return True
    return any(snapshot.size is None for snapshot in store.snapshots.stored())


def _show(arguments: argparse.Namespace, store: Store, *, is_inside: bool) -> int:
    inventory = take_inventory(store, measure=is_inside)
    kinds = _summarize(store, inventory)
    lines = _list_all(store, inventory) if arguments.verbose else {}
    if arguments.format == "json" and arguments.verbose:
        found = {name.title().replace(" ", ""): [_to_json(line) for line in rows] for name, rows in lines.items()}
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    if arguments.format == "json":
        for kind in kinds:
            values = {"Type": kind.name, "TotalCount": kind.count, "Size": kind.size, "Reclaimable": kind.reclaimable}
            sys.stdout.write(json.dumps(values) + "\n")
        return 0
    total = _Kind(
        name="Total",
        count=sum(kind.count for kind in kinds),
        size=sum(kind.size for kind in kinds),
        reclaimable=sum(kind.reclaimable for kind in kinds),
    )
    rows = [(k.name, str(k.count), format_size(k.size), _format_share(k.reclaimable, k.size)) for k in (*kinds, total)]
    sys.stdout.write(format_table(("TYPE", "TOTAL", "SIZE", "RECLAIMABLE"), rows))
    for name, listed in lines.items():
        sys.stdout.write(f"\n{name} space usage:\n\n{_format_lines(listed)}")
    return 0


def _summarize(store: Store, inventory: Inventory) -> list[_Kind]:
    images = frozenset[str]().union(*(image.parts for image in inventory.images()))
    groups: dict[str, list[Part]] = {"Images": [], "Layers": [], "Snapshots": [], "Cache mounts": []}
    for part in inventory.parts.values():
        match part.kind:
            case "blob":
                groups["Images" if part.name in images else "Layers"].append(part)
            case "snapshot":
                groups["Snapshots"].append(part)
            case "mount":
                groups["Cache mounts"].append(part)
    kinds = [
        _Kind(
            name=name,
            count=len(inventory.images()) if name == "Images" else len(group),
            size=_total(group),
            reclaimable=_total([p for p in group if inventory.is_cache(p) and p.name not in inventory.held]),
        )
        for name, group in groups.items()
    ]
    # What is there for the sake of this process alone goes with it: its folder, and files of the database.
    store.state.close()
    unfinished = store.root / "tmp"
    known = {os.fsencode(part_path(store, part)) for part in inventory.parts.values()}
    state = disk_usage(store.root, without={*known, os.fsencode(unfinished)}, can_miss=True)
    temporary = disk_usage(unfinished, without={os.fsencode(store.temporary)}, can_miss=True)
    kinds.append(_Kind(name="State", count=len(_state_files(store)), size=state))
    kinds.append(_Kind(name="Temporary", count=len(_other_folders(store)), size=temporary))
    return kinds


def _state_files(store: Store) -> list[Path]:
    return sorted(path for path in store.root.iterdir() if path.is_file())


def _other_folders(store: Store) -> list[Path]:
    """List the folders of other processes, with what they have not finished."""
    return [path for path in sorted((store.root / "tmp").iterdir()) if path != store.temporary]


def _total(parts: Sequence[Part]) -> int:
    return sum(part.size or 0 for part in parts)


def _format_share(part: int, whole: int) -> str:
    return f"{format_size(part)} ({part * 100 // whole}%)" if whole else format_size(part)


def _list_all(store: Store, inventory: Inventory) -> dict[str, list[_Line]]:
    """List everything by kind, what was used last first."""
    users = Counter(
        name for item in (*inventory.tagged, *inventory.items) if item.kind != "snapshot" for name in item.parts
    )
    kinds = {"Images": [*inventory.images()], "Layers": [], "Snapshots": [], "Cache mounts": []}
    groups = {
        "record": "Layers",
        "form": "Layers",
        "download": "Layers",
        "snapshot": "Snapshots",
        "mount": "Cache mounts",
    }
    for item in inventory.items:
        if item.kind != "image":
            kinds[groups[item.kind]].append(item)
    lines = {
        name: [_describe(item, inventory, users) for item in sorted(items, key=lambda item: item.used, reverse=True)]
        for name, items in kinds.items()
    }
    lines["Layers"] += [
        _Line(
            id=part.name, size=part.size or 0, unique=part.size or 0, used=part.mark / 1e9, description="unreferenced"
        )
        for part in inventory.orphans()
        if part.kind == "blob"
    ]
    lines["State"] = [_describe_path(path) for path in _state_files(store)]
    lines["Temporary"] = [_describe_path(path) for path in _other_folders(store)]
    return lines


def _describe(item: Item, inventory: Inventory, users: Counter[str]) -> _Line:
    """Describe an item; the snapshots that others need stand for themselves."""
    parts = [inventory.parts[name] for name in item.parts if name in inventory.parts]
    own = [part for part in parts if part.kind == "blob" or part.name == item.key]
    return _Line(
        id=item.id,
        type=item.type,
        size=_total(own),
        unique=_total([part for part in own if users[part.name] < 2 or part.kind != "blob"]),
        created=parse_time(item.created),
        used=item.used / 1e9,
        description=item.description,
    )


def _describe_path(path: Path) -> _Line:
    size = disk_usage(path, can_miss=True)
    return _Line(id=path.name, size=size, unique=size, used=path.lstat().st_mtime)


def _format_lines(lines: Sequence[_Line]) -> str:
    now = time.time()
    rows = [
        (
            shorten(line.id),
            line.type,
            format_size(line.size),
            format_size(line.unique),
            "" if line.created is None else format_age(now - line.created),
            format_age(now - line.used) if line.used else "",
            line.description,
        )
        for line in lines
    ]
    return format_table(("ID", "TYPE", "SIZE", "UNIQUE SIZE", "CREATED", "LAST USED", "DESCRIPTION"), rows)


def _to_json(line: _Line) -> dict[str, object]:
    return {
        "ID": line.id,
        "Type": line.type,
        "Size": line.size,
        "UniqueSize": line.unique,
        "CreatedAt": line.created,
        "LastUsedAt": line.used,
        "Description": line.description,
    }
