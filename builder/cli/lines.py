"""What steps and servers wrote, made fit for showing: whole lines, no hidden control.

A *line* ends at a newline. A carriage return moves back to its beginning, so what follows overwrites what stood
there, as on a terminal: of a progress bar the last state is left.
"""

from __future__ import annotations

import re

LONGEST_LINE = 1 << 20
"""Bytes without a newline after which a line is given out in parts, so that memory stays bounded."""

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))}
_ESCAPES |= {
    code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_ESCAPES |= {0x2028: "\\u2028", 0x2029: "\\u2029"}
_TEXT_ESCAPES = {code: escape for code, escape in _ESCAPES.items() if code not in {0x09, 0x0A}}
_SURROGATE = "[\udc80-\udcff]"
_SEQUENCE = (
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-OQ-WYZ\\`-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_ERASE = rb"\x1b\[[02]?K"


def escape_controls(text: str) -> str:
    r"""Return *text* with control characters and those that reorder text written as `\x1b`, `\u202e`.

    Undecodable bytes that came in as surrogates are written as `\xff`. Newlines and tabs stay.
    """
    return text if text.isprintable() else _escape(text, _TEXT_ESCAPES)


def escape_line(text: str) -> str:
    r"""Return *text* as one line: as `escape_controls`, with newlines and tabs written as `\x0a` and `\x09`."""
    return text if text.isprintable() else _escape(text, _ESCAPES)


def strip_controls(text: str) -> str:
    """Return one line of output without colours and other terminal sequences; tabs become blanks."""
    if text.isprintable():
        return text
    return escape_line(re.sub(_SEQUENCE, "", text).expandtabs(8))


def decode_line(data: bytes) -> str:
    r"""Return one line as text: carriage returns are carried out, bytes that are not UTF-8 become `\xff`."""
    if b"\r" in data:
        data = _overwrite(data)
    return data.decode("utf-8", "backslashreplace")


class LineAssembler:
    """Cuts what one stream wrote into lines; the rest waits for its newline."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Take *data* and return the lines that are complete now."""
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = self._rest + complete[0]
            self._rest = b""
        rest = self._rest + rest
        if b"\r" in rest:
            # What stands after the last return may go on, so it is not yet carried out.
            before, _, after = rest.rpartition(b"\r")
            rest = _overwrite(before) + b"\r" + after
        while len(rest) > LONGEST_LINE:
            cut = _find_boundary(rest, LONGEST_LINE)
            complete.append(rest[:cut])
            rest = rest[cut:]
        self._rest = rest
        return [decode_line(line) for line in complete]

    def peek(self) -> str:
        """Return the line under way as it looks now; it stays."""
        return decode_line(self._rest)

    def finish(self) -> list[str]:
        """Return the line that has no newline, if there is one."""
        rest, self._rest = self._rest, b""
        return [decode_line(rest)] if rest.rstrip(b"\r") else []


def _escape(text: str, escapes: dict[int, str]) -> str:
    if text.isascii():
        return text.translate(escapes)
    return re.sub(_SURROGATE, lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text.translate(escapes))


def _overwrite(data: bytes) -> bytes:
    """Carry out carriage returns, and the erasing of lines that goes with them."""
    shown = ""
    for part in data.split(b"\r"):
        if not part:
            continue
        text = re.sub(_ERASE, b"", part)
        decoded = text.decode("utf-8", "surrogateescape")
        shown = decoded + shown[len(decoded) :] if len(text) == len(part) else decoded
    return shown.encode("utf-8", "surrogateescape")


def _find_boundary(data: bytes, limit: int) -> int:
    for cut in range(limit, limit - 4, -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return limit
