"""Modes as `--chmod` gives them: octal, or a change of each file's own.

Source: spec, section 1.13, and its corrections in section 6; symbolic modes are in `symbolic_mode`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import DockerfileError
from builder.plan.symbolic_mode import apply_symbolic_mode, parse_symbolic_mode

if TYPE_CHECKING:
    from builder.plan.symbolic_mode import Change
    from builder.source import Span

_MAXIMUM_MODE = 0o7777


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
        self._changes: tuple[Change, ...] = ()
        self._known: dict[tuple[int, bool], int] = {}
        if re.fullmatch("[0-9]+", text):
            self._octal = _parse_octal(text, span)
            return
        changes = parse_symbolic_mode(text)
        if changes is None:
            raise _mode_error(text, span)
        self._changes = changes

    def apply(self, mode: int, *, is_directory: bool) -> int:
        """Give the twelve bits a file gets that has *mode*; links are never asked about."""
        if self._octal is not None:
            return self._octal
        answer = self._known.get((mode, is_directory))
        if answer is None:
            answer = apply_symbolic_mode(self._changes, mode, is_directory=is_directory)
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


def _mode_error(text: str, span: Span | None) -> DockerfileError:
    return DockerfileError(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
        hint="write an octal mode such as 0644, or a symbolic one such as u=rwX,go=rX",
        span=span,
    )
