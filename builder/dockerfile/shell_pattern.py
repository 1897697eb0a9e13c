"""Patterns in substitutions: `${name#pattern}`, `${name%pattern}`, `${name/pattern/text}`.

Source: moby/buildkit, frontend/dockerfile/shell/lex.go; Dockerfile reference, Environment replacement.
"""

from __future__ import annotations

import re
from functools import lru_cache

from builder.dockerfile.parser import shorten
from builder.errors import DockerfileError
from registry.value import frozen

_Run = tuple[str | None, ...]

_WILDCARD = r"[*?\\]"


@frozen(kw_only=False)
class ShellPattern:
    """A shell pattern of `*` and `?`: the runs between the stars, each a tuple of characters, None for `?`.

    Matched run by run, leftmost first, which needs no backtracking: `*a*a*a*b` costs no more than its length times
    that of the value.
    """

    runs: tuple[_Run, ...]

    @classmethod
    def parse(cls, text: str) -> ShellPattern:
        """Read a pattern.

        Raises:
            DockerfileError: something is escaped in it that has no meaning.
        """
        if not re.search(_WILDCARD, text):
            return cls((tuple(text),))
        runs: list[list[str | None]] = [[]]
        position = 0
        while position < len(text):
            character = text[position]
            position += 1
            if character == "*":
                runs.append([])
                continue
            if character == "?":
                runs[-1].append(None)
                continue
            if character == "\\":
                character = text[position : position + 1]
                position += 1
                if not character or character not in "*?\\}/":
                    raise DockerfileError(
                        f"invalid pattern ({shorten(text)}) in substitution: invalid escape '\\{character}'",
                        hint=r"only \* \? and \\ are escapes in a pattern",
                    )
            runs[-1].append(character)
        return cls(tuple([tuple(run) for run in runs]))

    def reverse(self) -> ShellPattern:
        """Give the pattern of the same from right to left."""
        return ShellPattern(tuple([run[::-1] for run in reversed(self.runs)]))

    def remove_prefix(self, value: str, *, longest: bool) -> str:
        """Remove the shortest or longest match at the beginning of a value, if there is one."""
        end = self._match_end(value, 0, longest=longest)
        return value if end is None else value[end:]

    def replace(self, value: str, replacement: str, *, every: bool) -> str:
        """Replace the leftmost and there longest match, or all that do not overlap."""
        if len(self.runs) == 1 and (literal := _literal(self.runs[0])) is not None:
            return value.replace(literal, replacement, -1 if every else 1)
        parts: list[str] = []
        position = 0
        while True:
            start = _find(self.runs[0], value, position)
            end = None if start is None else self._match_end(value, start, longest=True)
            if start is None or end is None:
                break
            parts += value[position:start], replacement
            position = end
            if not every or end == len(value):
                break
        parts.append(value[position:])
        return "".join(parts)

    def _match_end(self, value: str, start: int, *, longest: bool) -> int | None:
        """Return where a match that begins at *start* ends, or None."""
        if not _is_at(self.runs[0], value, start):
            return None
        position = start + len(self.runs[0])
        if len(self.runs) == 1:
            return position
        for run in self.runs[1:-1]:
            found = _find(run, value, position)
            if found is None:
                return None
            position = found + len(run)
        last = self.runs[-1]
        found = _find_last(last, value, position) if longest else _find(last, value, position)
        return None if found is None else found + len(last)


def _literal(run: _Run) -> str | None:
    return "".join([character for character in run if character]) if None not in run else None


def _is_at(run: _Run, value: str, position: int) -> bool:
    literal = _literal(run)
    if literal is not None:
        return value.startswith(literal, position)
    return _expression(run).match(value, position) is not None


def _find(run: _Run, value: str, start: int) -> int | None:
    literal = _literal(run)
    if literal is not None:
        found = value.find(literal, start)
        return found if found >= 0 else None
    match = _expression(run).search(value, start)
    return match.start() if match else None


def _find_last(run: _Run, value: str, start: int) -> int | None:
    literal = _literal(run)
    if literal is not None:
        found = value.rfind(literal, start)
        return found if found >= 0 else None
    expression = _expression(run)
    for position in range(len(value) - len(run), start - 1, -1):
        if expression.match(value, position):
            return position
    return None


@lru_cache(maxsize=128)
def _expression(run: _Run) -> re.Pattern[str]:
    return re.compile("".join(["." if character is None else re.escape(character) for character in run]), re.DOTALL)
