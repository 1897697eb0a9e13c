"""The `created_by` text of history entries, to the letter as BuildKit writes it.

Tools show and compare this text, so Go's ways of printing values are reproduced.

Source: BuildKit, `dockerfile2llb/convert.go` (dispatch functions); Go, package fmt, verbs %q and %v.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from registry.oci.image_config import HealthCheck

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}
_NANOSECONDS = 1_000_000_000
_UNITS = (("h", 3600 * _NANOSECONDS), ("m", 60 * _NANOSECONDS))


def quote(text: str) -> str:
    """Quote as Go's %q does."""
    return '"' + "".join(_quote_character(character) for character in text) + '"'


def quote_list(words: Iterable[str]) -> str:
    """Print a list of strings as Go's %q does: `["a" "b"]`."""
    return "[" + " ".join(quote(word) for word in words) + "]"


def plain_list(words: Iterable[str]) -> str:
    """Print a list of strings as Go's %v does: `[a b]`."""
    return "[" + " ".join(words) + "]"


def health_check(check: HealthCheck) -> str:
    """Print a health check as Go's %q does with a pointer to the struct."""
    durations = (check.interval_ns, check.timeout_ns, check.start_period_ns, check.start_interval_ns)
    printed = " ".join(quote(duration(value)) for value in durations)
    return f"&{{{quote_list(check.test)} {printed} '{_quote_rune(check.retries)}'}}"


def duration(nanoseconds: int) -> str:
    """Print a duration as Go does: `1m30s`, `1.5s`, `250ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest < _NANOSECONDS:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if rest >= size:
                return f"{sign}{_decimal(rest, size)}{unit}"
    text = ""
    for unit, size in _UNITS:
        if rest >= size or text:
            text += f"{rest // size}{unit}"
            rest %= size
    return f"{sign}{text}{_decimal(rest, _NANOSECONDS)}s"


def run_command(args: Sequence[str], build_args: Sequence[tuple[str, str]]) -> str:
    """Print a RUN: the ARGs in scope, each once at its first place with its last value, then the words."""
    values = dict(build_args)
    if not values:
        return " ".join(args)
    return " ".join([f"|{len(values)}", *(f"{name}={value}" for name, value in values.items()), *args])


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = str(fraction).rjust(len(str(unit)) - 1, "0").rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)


def _quote_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return _escape_unprintable(character)


def _quote_rune(value: int) -> str:
    character = chr(value) if 0 <= value <= 0x10FFFF else "\ufffd"
    if character == "'":
        return "\\'"
    if character in _ESCAPES and character != '"':
        return _ESCAPES[character]
    return _escape_unprintable(character)


def _escape_unprintable(character: str) -> str:
    code = ord(character)
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
