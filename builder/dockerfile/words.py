r"""Variable expansion and quote removal in the words of an instruction.

A *lookup* gives the value of a variable, or None when it is unset. *Expansion* replaces `$name` and `${name…}`, removes
quotes and escape characters, and says which names were asked for. Values put in are not read again.

Source: moby/buildkit, frontend/dockerfile/shell/lex.go; Dockerfile reference, Environment replacement.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from registry.value import field, frozen

Lookup = Callable[[str], str | None]
"""The value of a variable; None means unset, which differs from empty."""


@frozen(kw_only=False)
class Fragment:
    """A part of the result. *splits* tells that blanks in it separate words: it is not quoted or escaped."""

    text: str
    splits: bool


@frozen
class Expansion:
    """The result of an expansion: the text, the names found set (*matched*) and unset (*unmatched*)."""

    text: str
    matched: frozenset[str] = frozenset()
    unmatched: frozenset[str] = frozenset()
    _fragments: tuple[Fragment, ...] = field(default=(), repr=False, compare=False)

    @property
    def words(self) -> tuple[str, ...]:
        """The text split at blanks outside quotes, those in values of variables included. Empty words vanish."""
        words: list[str] = []
        parts: list[str] = []
        for fragment in self._fragments:
            pieces = re.split(r"\s+", fragment.text) if fragment.splits else [fragment.text]
            for piece in pieces[:-1]:
                parts.append(piece)
                words.append("".join(parts))
                parts.clear()
            parts.append(pieces[-1])
        words.append("".join(parts))
        return tuple([word for word in words if word])


def expand(
    text: str, lookup: Lookup, *, escape: str = "\\", keep_quotes: bool = False, keep_unset: bool = False
) -> Expansion:
    r"""Expand the variables of a word, and remove its quotes and escapes.

    Args:
        text: one word or several.
        lookup: gives the values.
        escape: the escape character of the file, a backslash or a backtick.
        keep_quotes: leave quotes where they are, for showing the text to people.
        keep_unset: leave variables that are unset as they are written, for the same purpose.

    Raises:
        DockerfileError: a substitution or a quote has no end, a modifier is unknown, or `?` demands a value. It has
            no span: only the caller knows where the word stands.
    """
    if not ("$" in text or "'" in text or '"' in text or escape in text):
        return Expansion(text=text, _fragments=(Fragment(text, splits=True),))
    from builder.dockerfile.lexer import Lexer  # noqa: PLC0415  most words are plain

    return Lexer(text, lookup, escape, keep_quotes=keep_quotes, keep_unset=keep_unset, quotes=True).run()


def expand_heredoc(text: str, lookup: Lookup) -> Expansion:
    r"""Expand the variables in the body of a here-document.

    Quotes have no meaning and stay. The escape character is always the backslash; it is dropped before any character,
    so `\$` gives `$`, `\\` gives `\` and `\n` gives `n`.

    Raises:
        DockerfileError: as `expand`.
    """
    if "$" not in text and "\\" not in text:
        return Expansion(text=text, _fragments=(Fragment(text, splits=True),))
    from builder.dockerfile.lexer import Lexer  # noqa: PLC0415  as above

    return Lexer(text, lookup, "\\", keep_quotes=False, keep_unset=False, quotes=False).run()
