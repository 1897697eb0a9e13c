"""Who owns what a COPY makes, and with which mode: `--chown`, `--chmod` and the USER of a WORKDIR.

Source: spec, sections 1.9 and 1.13, and its corrections in section 6; chmod(1) for symbolic modes.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from builder.errors import CopyError
from builder.tree import resolve

if TYPE_CHECKING:
    from builder.source import Span
    from builder.tree import Tree

Owner = tuple[int, int]
"""uid and gid."""

MAXIMUM_ID = 0xFFFF_FFFE
"""The largest id the kernel takes; -1 means "unchanged". Source: chown(2)."""

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
        CopyError: it is neither.
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


def resolve_owner(text: str, tree: Tree, *, span: Span | None = None) -> Owner:
    """Find the ids that `user[:group]` names in the image *tree*.

    A user alone: by name its primary group, by number the group of the same number. Numbers need no files.

    Args:
        text: of `--chown` or USER, expanded.
        tree: the image; its etc/passwd and etc/group are read for names.
        span: the instruction, for errors.

    Raises:
        CopyError: a name is unknown. BuildKit silently takes root.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise CopyError(f"owner is not of the form user[:group]: `{text}`", span=span)
    if user.isascii() and user.isdigit():
        uid = gid = _parse_id(user, span)
    else:
        fields = _find_line(tree, b"etc/passwd", user, "user", span)
        uid, gid = _parse_field(fields, 2, user, span), _parse_field(fields, 3, user, span)
    if colon:
        if group.isascii() and group.isdigit():
            gid = _parse_id(group, span)
        else:
            gid = _parse_field(_find_line(tree, b"etc/group", group, "group", span), 2, group, span)
    return uid, gid


def _parse_id(text: str, span: Span | None) -> int:
    if len(text) > len(str(MAXIMUM_ID)) or int(text) > MAXIMUM_ID:
        raise CopyError(f"id is larger than {MAXIMUM_ID}: `{text}`", span=span)
    return int(text)


def _find_line(tree: Tree, path: bytes, name: str, what: str, span: Span | None) -> list[bytes]:
    data = tree.read(resolve(tree, path, follow_last=True))
    shown = f"/{path.decode()}"
    hint = f"write the number of the {what}, or make the {what} in an earlier RUN"
    if data is None:
        raise CopyError(f"unable to find {what}, the image has no {shown}: `{name}`", hint=hint, span=span)
    wanted = name.encode("utf-8", "surrogateescape")
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if fields[0] == wanted:
            return fields
    raise CopyError(f"unable to find {what}, no matching entry in {shown}: `{name}`", hint=hint, span=span)


def _parse_field(fields: list[bytes], at: int, name: str, span: Span | None) -> int:
    text = fields[at].strip().decode("ascii", "replace") if len(fields) > at else ""
    if not (text.isascii() and text.isdigit()):
        raise CopyError(f"the line of the image's passwd or group file holds no id: `{name}`", span=span)
    return _parse_id(text, span)


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


def _mode_error(text: str, span: Span | None) -> CopyError:
    return CopyError(
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
