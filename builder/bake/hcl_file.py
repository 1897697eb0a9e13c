"""Bake files in HCL.

Source: HCL, hclsyntax/spec.md; docker/buildx, docs/bake-reference.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from builder.bake.definition import Place, unknown_key
from builder.bake.document import Attribute, Block, Document
from builder.bake.expression import evaluate

if TYPE_CHECKING:
    from builder.bake.document import Scope

_BLOCKS: Final = ("variable", "function", "group", "target")


class HclExpression:
    """An expression as python-hcl2 reads it."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule

    def evaluate(self, scope: Scope) -> Any:
        """Return its value."""
        return evaluate(self._rule, scope)


def read_hcl(data: bytes, place: Place) -> Document:
    """Read a bake file in HCL.

    Raises:
        BakeFileError: it is not HCL, or has blocks of an unknown kind.
    """
    body = _parse(data, place)
    blocks: dict[str, list[tuple[str, Block]]] = {name: [] for name in _BLOCKS}
    for child in body.children:
        if child.lark_name() != "block":
            continue
        kind, *labels = (_label(label) for label in child.labels)
        if kind not in blocks:
            raise unknown_key(kind, _BLOCKS, place)
        if len(labels) != 1:
            raise place.at(kind).error("a block has one name", hint=f'write it like {kind} "name" {{ … }}')
        blocks[kind].append((labels[0], _block(child.body, place.at(kind).at(labels[0]))))
    variables, functions, groups, targets = (tuple(blocks[kind]) for kind in _BLOCKS)
    return Document(
        variables=variables,
        functions=functions,
        groups=groups,
        targets=targets,
        attributes=_attributes(body, place),
    )


def _parse(data: bytes, place: Place) -> Any:
    import hcl2  # noqa: PLC0415  (a quarter of a second)
    from lark.exceptions import LarkError, UnexpectedInput  # noqa: PLC0415  (as above)

    try:
        return hcl2.parses(data.decode("utf-8-sig")).body
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8, at byte {error.start}") from error
    except UnexpectedInput as error:
        raise place.error(f"not HCL in line {error.line}, column {error.column}") from error
    except (LarkError, RecursionError, ValueError) as error:
        raise place.error("not HCL, or nested too deeply") from error


def _block(body: Any, place: Place) -> Block:
    validations: list[Block] = []
    for child in body.children:
        if child.lark_name() != "block":
            continue
        kind, *_ = (_label(label) for label in child.labels)
        if kind != "validation":
            raise place.at(kind).error("unknown block", hint=f"write {kind} = {{ … }} if it is an object")
        validations.append(_block(child.body, place.at(kind)))
    return Block(place=place, attributes=_attributes(body, place), validations=tuple(validations))


def _attributes(body: Any, place: Place) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    for child in body.children:
        if child.lark_name() == "attribute":
            name = str(child.identifier.token)
            if name in attributes:
                raise place.at(name).error("stands twice")
            attributes[name] = Attribute(HclExpression(child.expression), place.at(name))
    return attributes


def _label(label: Any) -> str:
    if label.lark_name() == "string":
        return "".join(str(part.content) for part in label.string_parts)
    return str(label.token)
