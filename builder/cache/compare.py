"""What differs between two keys: the changes that `--explain-cache` shows.

Which earlier key is compared with is decided in `builder.solve.explain_cache`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from builder.events import CacheChange

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from builder.cache.key import Ingredient

CONTENT_NAMES = frozenset(
    ["files", "path", "source file system", "mounted files", "mounted path", "mounted file system"]
)
"""Ingredients that stand for files a step reads; they are compared file by file where that can be."""

_PREFIXES = {
    "environment ": "variable",
    "limit ": "limit",
    "file ": "here-document",
    "bind mount ": "bind mount",
    "cache mount ": "cache mount",
    "tmpfs mount ": "tmpfs mount",
    "secret ": "secret",
    "ssh ": "ssh",
    "device ": "device",
}
"""Ingredients with a name of their own, and what kind of change they are."""


def compare_ingredients(
    before: Sequence[Ingredient], now: Sequence[Ingredient], *, build_args: Collection[str] = ()
) -> Iterator[CacheChange]:
    """Give what differs between two keys of one kind of step, in the order of their ingredients.

    Left out is what stands for files, and for the file system below. Ingredients of one name are compared together.

    Args:
        before: of the key then.
        now: of the key now.
        build_args: which variables are build arguments.
    """
    old, new = _by_name(before), _by_name(now)
    for name in dict.fromkeys((*new, *old)):
        then, here = old.get(name, []), new.get(name, [])
        if then == here:
            continue
        kind, own_name = _split(name)
        if kind == "variable" and own_name in build_args:
            kind = "build argument"
        if kind == "command" and then[:-1] == here[:-1]:
            then, here = then[-1:], here[-1:]  # the shell before it is the same
        yield CacheChange(kind, own_name, _join(then), _join(here))
    if old == new and Counter(before) == Counter(now) and _order(before) != _order(now):
        yield CacheChange("order of variables")


def shape(ingredients: Iterable[Ingredient]) -> frozenset[str]:
    """Tell by which names files enter a key: a COPY from a stage has keys of two kinds."""
    return frozenset(name for name, _ in ingredients) & CONTENT_NAMES


def count_equal(before: Iterable[Ingredient], now: Iterable[Ingredient]) -> int:
    """Count what two keys share."""
    return (Counter(before) & Counter(now)).total()


def _by_name(ingredients: Iterable[Ingredient]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in ingredients:
        if name != "below" and name not in CONTENT_NAMES:
            grouped.setdefault(name, []).append(value)
    return grouped


def _order(ingredients: Iterable[Ingredient]) -> list[str]:
    return [name for name, _ in ingredients]


def _split(name: str) -> tuple[str, str]:
    if name == "argument":
        return "command", ""
    for prefix, kind in _PREFIXES.items():
        if name.startswith(prefix):
            return kind, name.removeprefix(prefix)
    return name, ""


def _join(values: Sequence[str]) -> str | None:
    return " ".join(values) if values else None
