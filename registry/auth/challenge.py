"""Challenges: what a server says in `WWW-Authenticate` about how to prove who we are.

Source: RFC 9110, section 11; distribution, docs/spec/auth/token.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATOR = re.compile(r"[\s,]*")
_SCHEME = re.compile(rf"({_WORD})(?:[ \t]+|(?=,)|$)")
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))[ \t]*(?=,|$)')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")


@frozen(kw_only=False)
class Challenge:
    """One way to prove who we are: a *scheme* in lower case, and parameters with names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(value: str) -> tuple[Challenge, ...]:
    """Read the value of the header, several headers joined by commas.

    Whatever comes after the first thing that breaks the grammar is left out: servers send odd things, and the
    challenges before it may do.
    """
    challenges: list[Challenge] = []
    position = _skip(value, 0)
    while position < len(value):
        scheme = _SCHEME.match(value, position)
        if scheme is None:
            break
        parameters: dict[str, str] = {}
        challenges.append(Challenge(scheme[1].lower(), parameters))
        position = scheme.end()
        while parameter := _PARAMETER.match(value, position):
            quoted, plain = parameter[2], parameter[3]
            text = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(parameter[1].lower(), text)
            position = _skip(value, parameter.end())
        if not parameters and (opaque := _TOKEN68.match(value, position)) and position > scheme.end(1):
            position = opaque.end()
        position = _skip(value, position)
    return tuple(challenges)


def _skip(value: str, position: int) -> int:
    match = _SEPARATOR.match(value, position)
    return match.end() if match else position
