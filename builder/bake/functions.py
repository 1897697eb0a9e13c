"""Functions of bake files.

Those of buildx that need nothing but their arguments. Left out are those that read the machine (`homedir`), those with
regular expressions of another language than ours, and those for numbers beyond the usual.

Source: docker/buildx, docs/bake-stdlib.md; go-cty, function/stdlib.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import posixpath
import re
import time
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

from builder.bake.document import LARGEST_TEXT, EvaluationError, scalar_text
from builder.dockerfile.suggest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_MOST_ITEMS: Final = 100_000
_VERB = re.compile(r"%(%|[-+0 #]*\d{0,3}(?:\.\d{1,3})?[svdqtf])")


def call_function(name: str, arguments: list[Any], *, now: float, more: Iterable[str]) -> Any:
    """Return the value of a function.

    Args:
        name: of the function.
        arguments: what it is given.
        now: the time, in seconds since 1970.
        more: functions of the file, for near names.

    Raises:
        EvaluationError: there is no such function, or it cannot do with these arguments.
    """
    if name == "timestamp" and not arguments:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    function = FUNCTIONS.get(name)
    if function is None:
        near = nearest(name, (*FUNCTIONS, *more))
        hint = f"did you mean {near}?" if near else "let `docker buildx bake --print > docker-bake.json` work it out"
        raise EvaluationError(f"no such function, {name}", hint=hint)
    try:
        value = function(*arguments)
    except EvaluationError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise EvaluationError(f"function {name} cannot do with these arguments") from error
    if isinstance(value, str | list) and len(value) > LARGEST_TEXT:
        raise EvaluationError(f"function {name} gives too much")
    return value


def to_text(value: Any) -> str:
    """Return a value as text, as a template has it.

    Raises:
        EvaluationError: it is null, a list or an object.
    """
    text = scalar_text(value)
    if text is None:
        kind = "null" if value is None else "a list" if isinstance(value, list) else "an object"
        raise EvaluationError(f"{kind} is no text")
    return text


def is_equal(left: Any, right: Any) -> bool:
    """Tell whether two values are the same; true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _format(form: str, *values: Any) -> str:
    left = list(values)

    def put_in(found: re.Match[str]) -> str:
        verb = found[1]
        if verb == "%":
            return "%"
        value = left.pop(0)
        match verb[-1]:
            case "d":
                return f"%{verb}" % int(value)
            case "f":
                return f"%{verb}" % float(value)
            case "q":
                return json.dumps(to_text(value), ensure_ascii=False)
            case _:
                text = json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else to_text(value)
                return f"%{verb[:-1]}s" % text

    return _VERB.sub(put_in, form)


def _contains(items: list[Any], value: Any) -> bool:
    return any(is_equal(item, value) for item in _list(items))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _distinct(items: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for item in _list(items):
        if not _contains(kept, item):
            kept.append(item)
    return kept


def _flatten(items: list[Any]) -> list[Any]:
    return [inner for item in _list(items) for inner in (_flatten(item) if isinstance(item, list) else [item])]


def _merge(*objects: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for each in objects for name, value in each.items()}


def _coalesce(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _substr(text: str, start: int, length: int) -> str:
    start = max(0, len(text) + start) if start < 0 else start
    return text[start:] if length < 0 else text[start : start + length]


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > _MOST_ITEMS:
        raise EvaluationError("a range of too many numbers")
    return list(numbers)


def _of_numbers(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation that takes numbers only; a whole result is an int."""

    def checked(*values: Any) -> Any:
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise TypeError
        result = operation(*values)
        return int(result) if isinstance(result, float) and result.is_integer() else result

    return checked


def negate_switch(value: Any) -> bool:
    """Return what a value that is true or false is not."""
    if not isinstance(value, bool):
        raise EvaluationError("only true and false can be negated")
    return not value


def _digest(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()


def _repeatable(text: str, old: str, new: str) -> str:
    if len(text) * (len(new) + 1) > LARGEST_TEXT:
        raise EvaluationError("function replace gives too much")
    return text.replace(old, new)


def _indent(spaces: int, text: str) -> str:
    return text.replace("\n", "\n" + " " * min(spaces, 100))


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "add": _of_numbers(operator.add),
    "and": lambda left, right: left is True and right is True,
    "base64decode": lambda text: b64decode(text, validate=True).decode(),
    "base64encode": lambda text: b64encode(text.encode()).decode(),
    "basename": posixpath.basename,
    "ceil": math.ceil,
    "chomp": lambda text: text.rstrip("\r\n"),
    "coalesce": _coalesce,
    "compact": lambda items: [item for item in _list(items) if item not in (None, "")],
    "concat": lambda *lists: [item for items in lists for item in _list(items)],
    "contains": _contains,
    "dirname": posixpath.dirname,
    "distinct": _distinct,
    "divide": _of_numbers(operator.truediv),
    "element": lambda items, index: _list(items)[index % len(items)],
    "equal": is_equal,
    "flatten": _flatten,
    "floor": math.floor,
    "format": _format,
    "greaterthan": _of_numbers(operator.gt),
    "hasindex": lambda items, index: index in items if isinstance(items, dict) else 0 <= index < len(_list(items)),
    "indent": _indent,
    "index": lambda items, index: items[index],
    "int": int,
    "join": lambda separator, *lists: separator.join(to_text(item) for items in lists for item in _list(items)),
    "jsondecode": json.loads,
    "jsonencode": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True),
    "keys": sorted,
    "length": len,
    "lessthan": _of_numbers(operator.lt),
    "lookup": lambda fields, name, *default: fields.get(name, *default),
    "lower": lambda text: text.lower(),
    "max": max,
    "md5": _digest("md5"),
    "merge": _merge,
    "min": min,
    "modulo": _of_numbers(math.fmod),
    "multiply": _of_numbers(operator.mul),
    "negate": _of_numbers(operator.neg),
    "not": negate_switch,
    "notequal": lambda left, right: not is_equal(left, right),
    "or": lambda left, right: left is True or right is True,
    "range": _range,
    "replace": _repeatable,
    "reverse": lambda text: text[::-1],
    "reverselist": lambda items: _list(items)[::-1],
    "sanitize": lambda text: re.sub(r"[^a-zA-Z0-9_-]", "_", text),
    "sha1": _digest("sha1"),
    "sha256": _digest("sha256"),
    "sha512": _digest("sha512"),
    "slice": lambda items, start, end: _list(items)[start:end],
    "sort": lambda items: sorted(_list(items)),
    "split": lambda separator, text: text.split(separator) if separator else list(text),
    "strlen": len,
    "substr": _substr,
    "subtract": _of_numbers(operator.sub),
    "title": lambda text: text.title(),
    "trim": lambda text, characters: text.strip(characters),
    "trimprefix": lambda text, prefix: text.removeprefix(prefix),
    "trimspace": lambda text: text.strip(),
    "trimsuffix": lambda text, suffix: text.removesuffix(suffix),
    "upper": lambda text: text.upper(),
    "urlencode": quote_plus,
    "values": lambda fields: [fields[name] for name in sorted(fields)],
    "zipmap": lambda names, values: dict(zip(names, values, strict=True)),
}
"""The functions by name."""
