"""`--filter` of prune: which items are meant, in the words of buildx.

    until=24h, unused-for=24h     last used before that
    id=PREFIX                     the beginning of an id; other keys compare the whole
    type=regular                  as BuildKit calls it; `image` is an image without a name
    description=TEXT
    KEY=VALUE, KEY!=VALUE, KEY~=REGULAR-EXPRESSION
    mutable, immutable            cache mounts, and everything else
    shared, private               what an image has too, and what only the cache has

Source: buildx, commands/prune.go (toBuildkitPruneInfo); BuildKit, client/diskusage.go; containerd, filters.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from builder.dockerfile.instructions import parse_duration
from builder.errors import UsageError
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builder.collect.inventory import Inventory, Item

    Predicate = Callable[[Item, Inventory], bool]


def _is_shared(item: Item, inventory: Inventory) -> bool:
    return any(not item.parts.isdisjoint(image.parts) for image in inventory.images() if image is not item)


TYPES: Final = (
    "regular",
    "exec.cachemount",
    "image",
    "internal",
    "frontend",
    "source.local",
    "source.git.checkout",
)
"""What `type` compares with. Of the last four, which BuildKit has, there are none here."""

_AGES: Final = ("until", "unused-for")
_VALUES: Final[dict[str, Callable[[Item], str]]] = {
    "id": lambda item: item.id,
    "type": lambda item: item.type,
    "description": lambda item: item.description,
}
_SWITCHES: Final[dict[str, Predicate]] = {
    "mutable": lambda item, _: item.kind == "mount",
    "immutable": lambda item, _: item.kind != "mount",
    "shared": _is_shared,
    "private": lambda item, inventory: not _is_shared(item, inventory),
}
_ABSENT: Final = {
    "inuse": "what is in use is never removed",
    "parents": "records have no parents here: they are keyed by content",
}
_FORM: Final = re.compile(r"([a-z-]+)(?:(=|!=|~=)(.*))?", re.DOTALL)


@frozen
class Filters:
    """What is meant: what fits all *predicates* and was last used before *used_before*, in nanoseconds."""

    predicates: tuple[Predicate, ...]
    used_before: int | None

    def wants(self, item: Item, inventory: Inventory) -> bool:
        """Tell whether an item is meant, its age aside."""
        return all(predicate(item, inventory) for predicate in self.predicates)


def parse_filters(texts: Sequence[str]) -> Filters:
    """Read the values of `--filter`.

    Raises:
        UsageError: a key is unknown, means nothing here, or a value cannot be read.
    """
    predicates: list[Predicate] = []
    used_before: int | None = None
    for text in texts:
        found = _FORM.fullmatch(text)
        key, operator, value = found.groups() if found else ("", None, None)
        if key in _AGES and operator == "=":
            if used_before is not None:
                raise UsageError(f"a second age: `{text}`", hint="give one until=DURATION")
            used_before = time.time_ns() - _parse_age(text, value or "")
        elif key in _VALUES and operator is not None:
            predicates.append(_compare(text, key, operator, value or ""))
        elif key in _SWITCHES and operator is None:
            predicates.append(_SWITCHES[key])
        else:
            raise _refuse(text, key)
    return Filters(predicates=tuple(predicates), used_before=used_before)


def _parse_age(text: str, value: str) -> int:
    try:
        return int(parse_duration(value))
    except ValueError as error:
        raise UsageError(f"invalid duration: `{text}`", hint="use e.g. until=24h") from error


def _compare(text: str, key: str, operator: str, value: str) -> Predicate:
    read = _VALUES[key]
    if operator == "~=":
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise UsageError(f"invalid regular expression, {error}: `{text}`") from error
        return lambda item, _: pattern.search(read(item)) is not None
    if key == "type" and value not in TYPES:
        raise UsageError(f"unknown type: `{text}`", hint=f"one of {', '.join(TYPES)}")
    if key == "id":
        wanted = value.removeprefix("sha256:")
        return lambda item, _: read(item).removeprefix("sha256:").startswith(wanted) == (operator == "=")
    return lambda item, _: (read(item) == value) == (operator == "=")


def _refuse(text: str, key: str) -> UsageError:
    if key in _ABSENT:
        return UsageError(f"filter is not supported, {_ABSENT[key]}: `{text}`", hint="leave it out")
    keys = ", ".join([f"{name}=" for name in (*_AGES, *_VALUES)] + list(_SWITCHES))
    return UsageError(f"unknown filter: `{text}`", hint=f"use one of {keys}")
