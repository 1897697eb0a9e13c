"""Filters of prune in the words of buildx."""

from __future__ import annotations

import time

import pytest

from builder.cli.prune_filters import parse_filters
from builder.collect.inventory import Inventory, Item
from builder.errors import UsageError

STEP = Item(
    kind="record",
    key="abc123",
    id="abc123",
    description="RUN make",
    parts=frozenset({"sha256:shared"}),
    core=frozenset(),
    used=0,
)
MOUNT = Item(
    kind="mount",
    key="mounts/abd",
    id="abd",
    description="npm",
    parts=frozenset({"mounts/abd"}),
    core=frozenset(),
    used=0,
)
IMAGE = Item(
    kind="image",
    key="m",
    id="sha256:abc9",
    description="<none>",
    parts=frozenset({"sha256:own"}),
    core=frozenset(),
    used=0,
)
APP = Item(
    kind="image",
    key="n",
    id="sha256:fff",
    description="app:1",
    parts=frozenset({"sha256:shared"}),
    core=frozenset(),
    used=0,
)
INVENTORY = Inventory(
    parts={},
    items=(STEP, MOUNT, IMAGE),
    tagged=(APP,),
    pinned=APP.parts,
    held=frozenset(),
    missing=frozenset(),
)


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ([], "record mount image"),
        (["type=regular"], "record"),
        (["type=exec.cachemount"], "mount"),
        (["type!=regular"], "mount image"),
        (["type~=^(regular|image)$"], "record image"),
        (["type=source.local"], ""),
        (["id=abc"], "record image"),
        (["id=sha256:abc9"], "image"),
        (["id!=abc"], "mount"),
        (["description=npm"], "mount"),
        (["description~=^RUN"], "record"),
        (["mutable"], "mount"),
        (["immutable"], "record image"),
        (["shared"], "record"),
        (["private"], "mount image"),
        (["private", "immutable"], "image"),
    ],
    ids=str,
)
def test_filters_mean_what_they_mean_to_buildx(texts: list[str], wanted: str) -> None:
    """Several filters all have to fit."""
    filters = parse_filters(texts)

    assert " ".join(item.kind for item in INVENTORY.items if filters.wants(item, INVENTORY)) == wanted
    assert filters.used_before is None


@pytest.mark.parametrize("key", ["until", "unused-for"])
def test_age_is_counted_back_from_now(key: str) -> None:
    """Both names of an age mean the time since the last use."""
    before = parse_filters([f"{key}=1h30m"]).used_before

    assert before is not None
    assert abs(time.time_ns() - 5400 * 10**9 - before) < 60 * 10**9


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["age=1h"], "unknown filter: `age=1h`"),
        (["shared=true"], "unknown filter: `shared=true`"),
        (["id"], "unknown filter: `id`"),
        ([""], "unknown filter: ``"),
        (["inuse"], "filter is not supported, what is in use is never removed: `inuse`"),
        (["parents=abc"], "filter is not supported, .*: `parents=abc`"),
        (["until=soon"], "invalid duration: `until=soon`"),
        (["until=1h", "unused-for=2h"], "a second age: `unused-for=2h`"),
        (["type=cache"], "unknown type: `type=cache`"),
        (["id~=("], "invalid regular expression, .*: `id~=\\(`"),
    ],
    ids=str,
)
def test_filter_that_cannot_be_is_refused_by_name(texts: list[str], message: str) -> None:
    """Nothing is removed by a filter that was not understood."""
    with pytest.raises(UsageError, match=message):
        parse_filters(texts)
