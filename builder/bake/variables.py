"""Variables of compose files: `${NAME:-default}` in their values, and the `.env` file beside them.

Source: compose-spec, 12-interpolation.md; compose-go, template/template.go and dotenv/parser.go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATORS: Final = (":-", "-", ":?", "?", ":+", "+")
_DEEPEST: Final = 20
"""How deep defaults may lie in defaults."""

_LINE = re.compile(r"(?:export\s+)?([_a-zA-Z][_a-zA-Z0-9.-]*)\s*(?:=|:\s)[ \t]*", re.ASCII)
_BARE = re.compile(r"(?:export\s+)?([_a-zA-Z][_a-zA-Z0-9.-]*)[ \t]*(?=#|\n|$)", re.ASCII)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


class Variables(NamedTuple):
    """Where variables of files have their values from.

    *environ* is for compose files: everything, with what a `.env` file adds. Bake files know *given*, which is
    `--var`, and those of the *variables* of the environment that they declare. *local_platform* is this machine's,
    *now* the seconds since 1970.
    """

    environ: Mapping[str, str]
    given: Mapping[str, str]
    variables: Mapping[str, str]
    local_platform: str
    now: float


class SubstitutionError(Exception):
    """A variable cannot be put in: *reason* says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def substitute(text: str, find: Callable[[str], str | None], *, missing: Callable[[str], None] | None = None) -> str:
    """Return *text* with variables put in: `$NAME`, `${NAME}` and its forms with `-`, `?` and `+`; `$$` is a dollar.

    Args:
        text: what may name variables.
        find: gives the value of one, None if it is not set.
        missing: told of a variable that is not set and has no default, which counts as empty.

    Raises:
        SubstitutionError: what follows a dollar is no variable, or one that must be set is not.
    """
    return _substitute(text, find, missing, 0)


def _substitute(text: str, find: Callable[[str], str | None], missing: Callable[[str], None] | None, depth: int) -> str:
    if "$" not in text:
        return text
    if depth > _DEEPEST:
        raise SubstitutionError("variables lie too deep in each other")
    parts: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        after = text[dollar + 1 : dollar + 2]
        if after == "$":
            parts.append("$")
            position = dollar + 2
        elif after == "{":
            end = _find_end(text, dollar + 2)
            parts.append(_expand(text[dollar + 2 : end], find, missing, depth))
            position = end + 1
        elif name := _NAME.match(text, dollar + 1):
            parts.append(_value(name.group(), find, missing))
            position = name.end()
        else:
            raise SubstitutionError("a $ that names no variable; write $$ for a dollar")
    return "".join((*parts, text[position:]))


def _find_end(text: str, start: int) -> int:
    depth = 1
    position = start
    while position < len(text):
        if text.startswith("${", position):
            depth += 1
            position += 1
        elif text[position] == "}":
            depth -= 1
            if not depth:
                return position
        position += 1
    raise SubstitutionError("a ${ without its }")


def _expand(inner: str, find: Callable[[str], str | None], missing: Callable[[str], None] | None, depth: int) -> str:
    name = _NAME.match(inner)
    if name is None:
        raise SubstitutionError(f"no name of a variable in ${{{inner}}}")
    rest = inner[name.end() :]
    if not rest:
        return _value(name.group(), find, missing)
    operator = next((sign for sign in _OPERATORS if rest.startswith(sign)), None)
    if operator is None:
        raise SubstitutionError(f"unknown form ${{{inner}}}")
    word = rest[len(operator) :]
    value = find(name.group())
    is_there = bool(value) if operator.startswith(":") else value is not None
    match operator[-1]:
        case "+":
            return _substitute(word, find, missing, depth + 1) if is_there else ""
        case "-":
            return (value or "") if is_there else _substitute(word, find, missing, depth + 1)
        case _:
            if is_there:
                return value or ""
            said = _substitute(word, find, missing, depth + 1)
            raise SubstitutionError(f"variable {name.group()} has to be set" + (f", {said}" if said else ""))


def _value(name: str, find: Callable[[str], str | None], missing: Callable[[str], None] | None) -> str:
    value = find(name)
    if value is None and missing is not None:
        missing(name)
    return value or ""


def parse_dotenv(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a `.env` file; a name without a value takes the one of the environment, if it has one.

    Args:
        text: of the file.
        environ: variables that values may name, which count more than those of the file.

    Raises:
        SubstitutionError: a line is no variable, or a quote is not closed; the reason names the line.
    """
    values: dict[str, str] = {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    position = 0

    def find(name: str) -> str | None:
        return environ.get(name, values.get(name))

    while position < len(text):
        end = _end_of_line(text, position)
        line = text[position:end]
        start = position + len(line) - len(line.lstrip())
        if start == end or text[start] == "#":
            position = end + 1
            continue
        number = text.count("\n", 0, start) + 1
        if named := _LINE.match(text, start, end):
            try:
                values[named.group(1)], position = _read_dotenv_value(text, named.end(), find)
            except SubstitutionError as error:
                raise SubstitutionError(f"{error.reason}, in line {number}") from error
        elif bare := _BARE.match(text, start, end):
            if bare.group(1) in environ:
                values[bare.group(1)] = environ[bare.group(1)]
            position = end + 1
        else:
            raise SubstitutionError(f"not NAME=VALUE, in line {number}")
    return values


def _read_dotenv_value(text: str, start: int, find: Callable[[str], str | None]) -> tuple[str, int]:
    """Return a value and where the next line begins."""
    quote = text[start : start + 1]
    if quote not in {"'", '"'}:
        end = _end_of_line(text, start)
        value = re.split(r"\s#", text[start:end], maxsplit=1)[0]
        return substitute("" if value.startswith("#") else value.strip(), find), end + 1
    position = start + 1
    while (end := text.find(quote, position)) >= 0 and text[end - 1] == "\\" and end > start + 1:
        position = end + 1
    if end < 0:
        raise SubstitutionError("a quote that is not closed")
    value = text[start + 1 : end]
    following = _end_of_line(text, end) + 1
    if quote == "'":
        return value, following
    value = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], "$$" if found[1] == "$" else found[1]), value)
    return substitute(value, find), following


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
