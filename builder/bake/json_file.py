"""Bake files in JSON: the blocks of HCL as objects, texts as templates.

    {"variable": {"TAG": {"default": "latest"}},
     "group": {"default": {"targets": ["app"]}},
     "target": {"app": {"context": ".", "tags": ["me/app:${TAG}"]}}}

Source: HCL, json/spec.md; docker/buildx, docs/bake-reference.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from builder.bake.definition import read_object, unknown_key
from builder.bake.document import Attribute, Block, Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.bake.definition import Place
    from builder.bake.document import Scope

_BLOCKS: Final = ("variable", "function", "group", "target")


class JsonExpression:
    """A JSON value, whose texts are templates."""

    def __init__(self, value: object) -> None:
        self._value = value

    def evaluate(self, scope: Scope) -> Any:
        """Return the value with its templates worked out."""
        return _evaluate(self._value, scope)


def _evaluate(value: object, scope: Scope) -> Any:
    match value:
        case str() if "${" in value or "%{" in value:
            from builder.bake.expression import evaluate_template  # noqa: PLC0415  (its library is slow to load)

            return evaluate_template(value, scope)
        case list():
            return [_evaluate(item, scope) for item in value]
        case dict():
            return {_evaluate(name, scope): _evaluate(item, scope) for name, item in value.items()}
        case _:
            return value


def read_json(data: bytes, place: Place) -> Document:
    """Read a bake file in JSON.

    Raises:
        BakeFileError: it is not JSON, or has other things than blocks.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise place.error(f"not JSON, {reason}") from error
    root = read_object(value, place)
    for name in root:
        if name not in _BLOCKS:
            raise unknown_key(name, _BLOCKS, place)
    variables, functions, groups, targets = (tuple(_blocks(root.get(name, {}), place.at(name))) for name in _BLOCKS)
    return Document(variables=variables, functions=functions, groups=groups, targets=targets)


def _refuse_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key stands twice: {next(name for name in names if names.count(name) > 1)}")
    return fields


def _blocks(value: object, place: Place) -> Iterator[tuple[str, Block]]:
    for name, item in read_object(value, place).items():
        yield name, _block(item, place.at(name))


def _block(value: object, place: Place) -> Block:
    fields = read_object(value, place)
    validations = fields.pop("validation", [])
    items = validations if isinstance(validations, list) else [validations]
    return Block(
        place=place,
        attributes={name: Attribute(JsonExpression(item), place.at(name)) for name, item in fields.items()},
        validations=tuple(_block(item, place.at("validation")) for item in items),
    )
