"""Symbolic modes such as `u=rwX,go=rX`, as `--chmod` understands them.

BuildKit reads them by the rules of setmode(3) of BSD, which are not those of chmod(1) of GNU:

- `=` clears the set-id bits of those it names, on directories too;
- a copy from u, g or o moves the nine permission bits only;
- X looks at the mode before the first change, not at what earlier changes made of it;
- s and t for o alone mean nothing, and `=t` changes the sticky bit alone;
- without u, g, o or a everyone is meant, as there is no umask.

Source: observed of BuildKit 0.25, for modes of files and directories with every special bit; FreeBSD, setmode(3).
"""

from __future__ import annotations

import re
import stat
from typing import Final

Change = tuple[str, int, int]
"""Operator, bits, whom it reaches. The operators: `+` and `-`; `X` gives bits if there was an x before; u, g or o copies
with `=`, adds with `u+`, takes with `u-`."""

_CLAUSE: Final = re.compile(r"([ugoa]*)((?:[+\-=][rwxXstugo]*)+)\Z")
_ACTION: Final = re.compile(r"([+\-=])([rwxXstugo]*)")
_WHO: Final = {
    "u": stat.S_ISUID | stat.S_IRWXU,
    "g": stat.S_ISGID | stat.S_IRWXG,
    "o": stat.S_IRWXO,
}
_EVERYONE: Final = _WHO["u"] | _WHO["g"] | _WHO["o"]
_PERMISSION: Final = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT: Final = {"u": 6, "g": 3, "o": 0}


def parse_symbolic_mode(text: str) -> tuple[Change, ...] | None:
    """Read clauses separated by commas into changes, in order; None if the text is nothing of the kind."""
    changes: list[Change] = []
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            return None
        who = 0
        for letter in match[1]:
            who |= _EVERYONE if letter == "a" else _WHO[letter]
        for operator, permissions in _ACTION.findall(match[2]):
            _read_action(changes, who, operator, permissions)
    return tuple(changes)


def _read_action(changes: list[Change], who: int, operator: str, permissions: str) -> None:
    bits = conditional = 0
    is_taken = False
    for permission in permissions:
        if permission in _SHIFT:
            if bits:
                _add(changes, operator, who, bits)
                bits = 0
            changes.append((permission + operator, 0o777, who or _EVERYONE))
            is_taken = True
        elif permission == "X":
            conditional = 0o111
        elif permission in _PERMISSION:
            bits |= _PERMISSION[permission]
        elif who != _WHO["o"]:
            if permission == "t":
                who |= stat.S_ISVTX
            bits |= stat.S_ISVTX if permission == "t" else stat.S_ISUID | stat.S_ISGID
    if bits or (operator == "=" and not is_taken):
        _add(changes, operator, who, bits)
    if conditional:
        changes.append(("X", conditional & (who or _EVERYONE), 0))


def _add(changes: list[Change], operator: str, who: int, bits: int) -> None:
    if operator == "=":
        changes.append(("-", who or _EVERYONE, 0))
        operator = "+"
    changes.append((operator, bits & (who or _EVERYONE), 0))


def apply_symbolic_mode(changes: tuple[Change, ...], mode: int, *, is_directory: bool) -> int:
    """Give the twelve bits that *changes* make of *mode*."""
    mode &= 0o7777
    had_execution = is_directory or bool(mode & 0o111)
    for operator, bits, reach in changes:
        match operator:
            case "+":
                mode |= bits
            case "-":
                mode &= ~bits
            case "X":
                mode |= bits if had_execution else 0
            case _:
                mode = _copy(mode, operator, bits & reach)
    return mode


def _copy(mode: int, operator: str, reach: int) -> int:
    copied = (mode >> _SHIFT[operator[0]] & 0o7) * 0o111 & reach
    match operator[1]:
        case "+":
            return mode | copied
        case "-":
            return mode & ~copied
        case _:
            return mode & ~reach | copied
