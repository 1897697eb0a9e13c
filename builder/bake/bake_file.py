"""Bake files: variables, functions, groups and targets, worked out.

    variable "TAG" { default = "latest" }
    group "default" { targets = ["app"] }
    target "app" {
      matrix = { os = ["linux", "windows"] }
      name   = "app-${os}"
      tags   = ["me/app:${TAG}"]
    }

A variable has the value of `--var`, else of the environment, else its default. All files are one: a variable of one may
be used in another, and what a later file says of a target counts more.

Source: docker/buildx, docs/bake-reference.md; bake/hclparser/hclparser.go.
"""

from __future__ import annotations

import csv
import json
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from builder.bake.definition import (
    KEYS,
    Definitions,
    Place,
    Target,
    Variable,
    check_name,
    join_definitions,
    merge_targets,
    read_object,
    read_target,
    read_text,
    read_texts,
    unknown_key,
)
from builder.bake.document import EvaluationError, Scope
from builder.bake.files import is_json
from builder.bake.functions import call_function
from builder.dockerfile.suggest import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.bake.document import Attribute, Block, Document
    from builder.bake.files import DefinitionFile
    from builder.bake.variables import Variables

MOST_TARGETS: Final = 10_000
"""Targets that one matrix may make."""

_VARIABLE_KEYS: Final = ("default", "type", "description", "sensitive")
_FUNCTION_KEYS: Final = ("params", "variadic_params", "result")
_GROUP_KEYS: Final = ("targets", "description")
_SWITCHES: Final = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def read_bake_files(files: Sequence[DefinitionFile], variables: Variables) -> Definitions:
    """Read bake files, in JSON or HCL, as one.

    Raises:
        BakeFileError: one cannot be read, or says what cannot be.
    """
    return _Reader([_read_document(file) for file in files], variables).read()


def _read_document(file: DefinitionFile) -> Document:
    place = Place(file.name)
    if is_json(file):
        from builder.bake.json_file import read_json  # noqa: PLC0415  (only with such a file)

        return read_json(file.data, place)
    from builder.bake.hcl_file import read_hcl  # noqa: PLC0415  (its library is slow to load)

    return read_hcl(file.data, place)


class _Reader:
    def __init__(self, documents: Sequence[Document], variables: Variables) -> None:
        self._documents = documents
        self._variables = variables
        self._blocks: dict[str, list[Block]] = {}
        self._attributes: dict[str, Attribute] = {}
        self._functions: dict[str, Block] = {}
        for document in documents:
            self._attributes.update(document.attributes)
            for name, block in document.variables:
                self._blocks.setdefault(name, []).append(block)
            self._functions.update(document.functions)
        self._values: dict[str, Any] = {
            "BAKE_CMD_CONTEXT": variables.given.get("BAKE_CMD_CONTEXT", ""),
            "BAKE_LOCAL_PLATFORM": variables.given.get("BAKE_LOCAL_PLATFORM", variables.local_platform),
        }
        self._asked: list[str] = []
        self._scope = Scope(self._find, self._call)

    def read(self) -> Definitions:
        declared = {name: self._declare(name, blocks) for name, blocks in self._blocks.items()}
        several = [self._read_blocks(document) for document in self._documents]
        return join_definitions((Definitions(variables=declared), *several))

    def _read_blocks(self, document: Document) -> Definitions:
        groups: dict[str, tuple[str, ...]] = {}
        descriptions: dict[str, str] = {}
        for name, block in document.groups:
            members, description = self._group(check_name(name, block.place), block)
            groups[name] = tuple(dict.fromkeys((*groups.get(name, ()), *members)))
            descriptions[name] = description
        targets: dict[str, Target] = {}
        for name, block in document.targets:
            made = [self._target(made_name, values, block) for made_name, values in self._variants(name, block)]
            for target in made:
                targets[target.name] = merge_targets(targets[target.name], target) if target.name in targets else target
            if [target.name for target in made] != [name]:
                groups[name] = tuple(dict.fromkeys((*groups.get(name, ()), *(target.name for target in made))))
        return Definitions(targets=targets, groups=groups, descriptions=descriptions)

    # Blocks

    def _declare(self, name: str, blocks: Sequence[Block]) -> Variable:
        description = ""
        for block in blocks:
            for key, attribute in block.attributes.items():
                if key not in _VARIABLE_KEYS:
                    raise unknown_key(key, _VARIABLE_KEYS, block.place)
                if key == "description":
                    description = read_text(self._value(attribute), attribute.place)
        try:
            value = self._find(name)
        except EvaluationError as error:
            raise blocks[0].place.error(error.reason, hint=error.hint) from error
        for block in blocks:
            for validation in block.validations:
                self._validate(validation)
        shown = None if value is None else value if isinstance(value, str) else json.dumps(value)
        return Variable(shown, description)

    def _validate(self, block: Block) -> None:
        condition, message = block.attributes.get("condition"), block.attributes.get("error_message")
        if condition is None:
            raise block.place.error("a condition is missing")
        if self._value(condition) is not True:
            said = "" if message is None else f", {read_text(self._value(message), message.place).rstrip(chr(46))}"
            raise block.place.error(f"the value is not valid{said}")

    def _group(self, name: str, block: Block) -> tuple[tuple[str, ...], str]:
        for key in block.attributes:
            if key not in _GROUP_KEYS:
                raise unknown_key(key, _GROUP_KEYS, block.place)
        targets, told = block.attributes.get("targets"), block.attributes.get("description")
        if targets is None:
            raise block.place.error(f"group {name} has no targets")
        members = read_texts(self._value(targets), targets.place)
        return members, "" if told is None else read_text(self._value(told), told.place)

    def _variants(self, name: str, block: Block) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the name of each target that a block makes, with the values of its matrix."""
        matrix, named = block.attributes.get("matrix"), block.attributes.get("name")
        if matrix is None:
            if named is not None:
                raise named.place.error("only a target with a matrix has a name of its own")
            yield check_name(name, block.place), {}
            return
        axes = read_object(self._value(matrix), matrix.place)
        count = 1
        for axis, values in axes.items():
            if not isinstance(values, list):
                raise matrix.place.at(axis).error("expected a list of values")
            count *= len(values)
        if count > MOST_TARGETS:
            raise matrix.place.error(f"more than {MOST_TARGETS} targets")
        seen: set[str] = set()
        for combination in product(*axes.values()):  # type: ignore[call-overload]  # they are lists
            values = dict(zip(axes, combination, strict=True))
            made = name if named is None else read_text(self._value(named, values), named.place)
            if made in seen:
                raise block.place.error(
                    f"two targets of the matrix are called {made}", hint="name them by all its values"
                )
            seen.add(made)
            yield check_name(made, block.place), values

    def _target(self, name: str, local: Mapping[str, Any], block: Block) -> Target:
        fields: dict[str, Any] = {}
        for key, attribute in block.attributes.items():
            if key in {"matrix", "name"}:
                continue
            if key not in KEYS and key not in {"inherits", "policy", "resources"}:
                raise unknown_key(key, (*KEYS, "inherits", "matrix", "name"), block.place)
            fields[key] = self._value(attribute, local)
        return read_target(name, fields, block.place)

    # Values

    def _value(self, attribute: Attribute, local: Mapping[str, Any] | None = None) -> Any:
        try:
            return attribute.expression.evaluate(self._scope.within(local) if local else self._scope)
        except EvaluationError as error:
            raise attribute.place.error(error.reason, hint=error.hint) from error
        except RecursionError as error:
            raise attribute.place.error("nested too deeply") from error

    def _find(self, name: str) -> Any:
        """Return the value of a variable, worked out once."""
        if name not in self._values:
            if name in self._asked:
                raise EvaluationError(f"variables need each other in a circle, {' -> '.join((*self._asked, name))}")
            self._asked.append(name)
            try:
                self._values[name] = self._work_out(name)
            finally:
                self._asked.pop()
        return self._values[name]

    def _work_out(self, name: str) -> Any:
        if name in self._attributes:
            return self._attributes[name].expression.evaluate(self._scope)
        if name not in self._blocks:
            near = nearest(name, (*self._blocks, *self._attributes))
            raise EvaluationError(f"no such variable, {name}", hint=f"did you mean {near}?" if near else "declare it")
        defaults = [block.attributes["default"] for block in self._blocks[name] if "default" in block.attributes]
        default = defaults[-1].expression.evaluate(self._scope) if defaults else None
        typed = any("type" in block.attributes for block in self._blocks[name])
        for source in (self._variables.given, self._variables.variables):
            if name in source:
                return _convert(name, source[name], default, typed=typed)
            if f"{name}_JSON" in source and (typed or isinstance(default, list | dict)):
                return _parse_json(f"{name}_JSON", source[f"{name}_JSON"])
        return default

    def _call(self, name: str, arguments: list[Any]) -> Any:
        if name not in self._functions:
            return call_function(name, arguments, now=self._variables.now, more=self._functions)
        block = self._functions[name]
        if f"{name}()" in self._asked:
            raise EvaluationError(f"function {name} calls itself")
        for key in block.attributes:
            if key not in _FUNCTION_KEYS:
                raise unknown_key(key, _FUNCTION_KEYS, block.place)
        if "result" not in block.attributes:
            raise block.place.error("a result is missing")
        values = _bind(name, self._parameters(block), arguments)
        self._asked.append(f"{name}()")
        try:
            return block.attributes["result"].expression.evaluate(self._scope.within(values))
        finally:
            self._asked.pop()

    def _parameters(self, block: Block) -> tuple[list[str], str | None]:
        """Return the names of parameters, and of the one that takes the rest; names without quotes name themselves."""
        themselves = Scope(lambda name: name, self._call)
        params, rest = block.attributes.get("params"), block.attributes.get("variadic_params")
        names = [] if params is None else list(read_texts(params.expression.evaluate(themselves), params.place))
        return names, None if rest is None else read_text(rest.expression.evaluate(themselves), rest.place)


def _bind(name: str, parameters: tuple[list[str], str | None], arguments: list[Any]) -> dict[str, Any]:
    names, rest = parameters
    if len(arguments) < len(names) or (len(arguments) > len(names) and rest is None):
        raise EvaluationError(f"function {name} takes {len(names)} arguments, not {len(arguments)}")
    values = dict(zip(names, arguments, strict=False))
    return values if rest is None else {**values, rest: arguments[len(names) :]}


def _convert(name: str, text: str, default: Any, *, typed: bool) -> Any:
    """Return the value of a variable of the environment in the kind that its default has."""
    match default:
        case bool():
            if text.lower() not in _SWITCHES:
                raise EvaluationError(f"variable {name} is true or false, not {text}")
            return _SWITCHES[text.lower()]
        case int() | float():
            try:
                return int(text) if text.lstrip("-").isdigit() else float(text)
            except ValueError as error:
                raise EvaluationError(f"variable {name} is a number, not {text}") from error
        case list():
            return next(csv.reader([text]), [])
        case dict():
            raise EvaluationError(f"variable {name} is an object", hint=f"set {name}_JSON to one in JSON")
        case _:
            if default is None and typed and text[:1] in {"[", "{"}:
                return _parse_json(name, text)
            return text


def _parse_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"variable {name} is not JSON") from error
