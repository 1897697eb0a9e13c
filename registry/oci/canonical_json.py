"""JSON as this package writes and reads it.

Written: two-space indentation, keys in the order given, UTF-8 without escapes, no trailing newline; the same value
always gives the same bytes, so its digest is stable. Read: field by field through `Fields`, which names the place
of a wrong value, takes null for absent, and keeps what it does not know.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8

from registry.errors import DigestInvalidError, ManifestInvalidError
from registry.oci.digest import Digest, parse_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Final

MAX_DEPTH: Final = 100
"""Deepest nesting that is read; nothing real goes beyond 10, and writers recurse once per level."""

MAX_INTEGER: Final = 2**63 - 1
"""Largest number; Go's int64, in which all other tools hold sizes and durations."""


def encode_json(value: Any) -> bytes:
    r"""Return the bytes of *value*.

    A lone surrogate (a byte that was not UTF-8) becomes a `\udcXX` escape, so that the result is UTF-8 in any case.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def decode_json(data: bytes, *, subject: str) -> Any:
    """Read *data* as one JSON value.

    Raises:
        ManifestInvalidError: not UTF-8, not JSON, NaN or Infinity, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(data.removeprefix(BOM_UTF8).decode(), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ManifestInvalidError(subject=subject, path="", reason="nested too deeply") from error
    except ValueError as error:
        raise ManifestInvalidError(subject=subject, path="", reason=f"not JSON ({error})") from error
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ManifestInvalidError(subject=subject, path="", reason="nested too deeply")
    return value


class Fields:
    """The fields of one JSON object, taken one by one.

    Every `take_` method removes its field; `rest` returns those nobody took. Null counts as absent everywhere.

    Args:
        value: the decoded JSON.
        subject: what is being read, for errors.
        path: where in it *value* stands, empty for the top.

    Raises:
        ManifestInvalidError: *value* is not an object; likewise all methods, for a value of the wrong shape.
    """

    __slots__ = ("_path", "_subject", "_values")

    def __init__(self, value: object, *, subject: str, path: str = "") -> None:
        self._subject = subject
        self._path = path
        if not isinstance(value, dict):
            raise ManifestInvalidError(subject=subject, path=path, reason=f"expected an object, found {_kind(value)}")
        self._values: dict[str, Any] = {name: item for name, item in value.items() if item is not None}

    def path(self, name: str) -> str:
        """Return the path of the field *name*."""
        return f"{self._path}.{name}" if self._path else name

    def error(self, name: str, reason: str) -> ManifestInvalidError:
        """Return the error that says *reason* about the field *name*."""
        return ManifestInvalidError(subject=self._subject, path=self.path(name), reason=reason)

    def rest(self) -> dict[str, Any]:
        """Return the fields that were not taken, in their order."""
        return self._values

    def take_value(self, name: str) -> Any:
        """Take a value of any shape."""
        return self._values.pop(name, None)

    def take_text(self, name: str) -> str | None:
        """Take a string."""
        value = self._values.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise self.error(name, f"expected a string, found {_kind(value)}")
        return value

    def require_text(self, name: str) -> str:
        """Take a string that must be there and not be empty."""
        value = self.take_text(name)
        if not value:
            raise self.error(name, "required field is missing")
        return value

    def take_boolean(self, name: str) -> bool:
        """Take a boolean; absent is false."""
        value = self._values.pop(name, False)
        if not isinstance(value, bool):
            raise self.error(name, f"expected true or false, found {_kind(value)}")
        return value

    def take_integer(self, name: str, *, minimum: int = -MAX_INTEGER) -> int | None:
        """Take a whole number between *minimum* and `MAX_INTEGER`."""
        value = self._values.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(name, f"expected a whole number, found {_kind(value)}")
        if not minimum <= value <= MAX_INTEGER:
            raise self.error(name, "number is out of range")
        return value

    def take_texts(self, name: str) -> tuple[str, ...] | None:
        """Take an array of strings; a null in it counts as the empty string, as Go reads it."""
        value = self._values.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(name, f"expected an array, found {_kind(value)}")
        for position, item in enumerate(value):
            if item is not None and not isinstance(item, str):
                raise self.error(f"{name}[{position}]", f"expected a string, found {_kind(item)}")
        return tuple(item or "" for item in value)

    def take_mapping(self, name: str) -> dict[str, str]:
        """Take an object of strings; absent is empty, a null in it counts as the empty string."""
        value = self._values.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(name, f"expected an object, found {_kind(value)}")
        for key, item in value.items():
            if item is not None and not isinstance(item, str):
                raise self.error(f"{name}.{key}", f"expected a string, found {_kind(item)}")
        return {key: item or "" for key, item in value.items()}

    def take_names(self, name: str) -> tuple[str, ...]:
        """Take a set, sorted, which Go writes as an object of empty objects; an array of strings is taken as well."""
        if isinstance(self._values.get(name), list):
            return tuple(sorted(set(self.take_texts(name) or ())))
        value = self._values.pop(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"expected an object, found {_kind(value)}")
        return tuple(sorted(value))

    def take_digest(self, name: str) -> Digest:
        """Take a digest that must be there."""
        return self._check_digest(name, self.require_text(name))

    def take_digests(self, name: str) -> tuple[Digest, ...]:
        """Take an array of digests; absent is empty."""
        return tuple(
            self._check_digest(f"{name}[{position}]", text) for position, text in enumerate(self.take_texts(name) or ())
        )

    def take_object(self, name: str) -> Fields | None:
        """Take an object, to be read in turn."""
        value = self._values.pop(name, None)
        return None if value is None else Fields(value, subject=self._subject, path=self.path(name))

    def take_values(self, name: str) -> Iterator[tuple[str, Any]]:
        """Take an array; yield the path and the value of each item."""
        value = self._values.pop(name, [])
        if not isinstance(value, list):
            raise self.error(name, f"expected an array, found {_kind(value)}")
        return ((self.path(f"{name}[{position}]"), item) for position, item in enumerate(value))

    def _check_digest(self, name: str, text: str) -> Digest:
        try:
            return parse_digest(text)
        except DigestInvalidError as error:
            raise self.error(name, f"invalid digest, {error.reason}") from error


def set_present(target: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Copy those of *fields* into *target* that say something: not None, false, 0 or empty (Go's omitempty)."""
    target.update((name, value) for name, value in fields.items() if value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _is_deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
