"""Modes as `--chmod` gives them: octal, or a change of each file's own.

Source: spec, section 1.13, and its corrections in section 6; chmod(1) for symbolic modes.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from builder.errors import DockerfileError

if TYPE_CHECKING:
    from builder.source import Span

_MAXIMUM_MODE = 0o7777
_CLAUSE = re.compile(r"([ugoa]*)((?:[+\-=](?:[ugo]|[rwxXst]*))+)\Z")
_ACTION = re.compile(r"([+\-=])([ugo]|[rwxXst]*)")
_WHO = {"u": 0o700, "g": 0o070, "o": 0o007}
_PERMISSION = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_Action = tuple[str, str, str]
"""Who (of u, g, o), operator, permissions or one of u, g, o to copy from."""


class Mode:
    """The value of `--chmod`: an octal mode, or a change of modes.

    Args:
        text: as it is written, expanded.
        span: the instruction, for errors.

    Raises:
        DockerfileError: it is neither.
    """

    def __init__(self, text: str, *, span: Span | None = None) -> None:
        self._octal: int | None = None
        self._actions: list[_Action] = []
        self._known: dict[tuple[int, bool], int] = {}
        if re.fullmatch("[0-9]+", text):
            self._octal = _parse_octal(text, span)
        else:
            self._actions = _parse_symbolic(text, span)

    def apply(self, mode: int, *, is_directory: bool) -> int:
        """Give the twelve bits a file gets that has *mode*; links are never asked about."""
        if self._octal is not None:
            return self._octal
        answer = self._known.get((mode, is_directory))
        if answer is None:
            answer = mode & _MAXIMUM_MODE
            for action in self._actions:
                answer = _act(answer, action, is_directory=is_directory)
            self._known[mode, is_directory] = answer
        return answer

    def of_made_directory(self) -> int:
        """Give the mode of a directory that is made because the destination lacks it.

        Source: observed of BuildKit, spec section 6: a symbolic mode leaves it alone, an octal one loses its upper bits.
        """
        return 0o755 if self._octal is None else self._octal & 0o777


def _parse_octal(text: str, span: Span | None) -> int:
    if not re.fullmatch("[0-7]+", text) or int(text, 8) > _MAXIMUM_MODE:
        raise _mode_error(text, span)
    return int(text, 8)


def _parse_symbolic(text: str, span: Span | None) -> list[_Action]:
    actions: list[_Action] = []
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            raise _mode_error(text, span)
        who = match[1] if match[1] and "a" not in match[1] else "ugo"
        actions += [(who, operator, permissions) for operator, permissions in _ACTION.findall(match[2])]
    return actions


def _mode_error(text: str, span: Span | None) -> DockerfileError:
    return DockerfileError(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
        hint="write an octal mode such as 0644, or a symbolic one such as u=rwX,go=rX",
        span=span,
    )


def _act(mode: int, action: _Action, *, is_directory: bool) -> int:
    who, operator, permissions = action
    bits = 0
    reach = 0
    for one in who:
        reach |= _WHO[one]
    if permissions in _SHIFT:
        copied = mode >> _SHIFT[permissions] & 0o7
        bits = (copied * 0o111) & reach
    else:
        for permission in permissions:
            if permission in _PERMISSION:
                bits |= _PERMISSION[permission] & reach
            elif permission == "X" and (is_directory or mode & 0o111):
                bits |= 0o111 & reach
            elif permission == "s":
                bits |= (stat.S_ISUID if "u" in who else 0) | (stat.S_ISGID if "g" in who else 0)
            elif permission == "t":
                bits |= stat.S_ISVTX
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    special = (stat.S_ISUID if "u" in who else 0) | (stat.S_ISGID if "g" in who else 0)
    if is_directory:
        special = 0  # as chmod(1) of GNU: `=` keeps the set-id bits of directories unless they are named
    return mode & ~(reach | special) | bits
