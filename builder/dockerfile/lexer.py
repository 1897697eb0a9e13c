"""The lexer of words that hold variables, quotes or escapes.

Source: moby/buildkit, frontend/dockerfile/shell/lex.go; Dockerfile reference, Environment replacement.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from builder.dockerfile.parser import shorten
from builder.dockerfile.shell_pattern import ShellPattern
from builder.dockerfile.words import Expansion, Fragment
from builder.errors import DockerfileError

if TYPE_CHECKING:
    from builder.dockerfile.words import Lookup

MAX_NESTING = 100
"""How deep `${…${…}…}` may go. Deeper is no text a person wrote, and the limit keeps time and stack bounded."""

_NAME = r"\d++|[@*#?\-$!]|\w*+"


class Lexer:
    """One pass over one text.

    Args:
        text: one word or several, or the body of a here-document.
        lookup: gives the values of variables.
        escape: the escape character.
        keep_quotes: leave quotes where they are.
        keep_unset: leave variables that are unset as they are written.
        quotes: whether quotes have a meaning.
    """

    def __init__(
        self, text: str, lookup: Lookup, escape: str, *, keep_quotes: bool, keep_unset: bool, quotes: bool
    ) -> None:
        self.text = text
        self.position = 0
        self.lookup = lookup
        self.escape = escape
        self.keep_quotes = keep_quotes
        self.keep_unset = keep_unset
        self.quotes = quotes
        self.depth = 0
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def run(self) -> Expansion:
        """Expand the text.

        Raises:
            DockerfileError: as `words.expand`.
        """
        try:
            fragments = self._until("", keep_escapes=False)
        except DockerfileError as error:
            raise DockerfileError(
                f'failed to process "{shorten(self.text)}": {error.message}', hint=error.hint
            ) from error
        return Expansion(
            text="".join([fragment.text for fragment in fragments]),
            matched=frozenset(self.matched),
            unmatched=frozenset(self.unmatched),
            _fragments=tuple(fragments),
        )

    def _until(self, stop: str, *, keep_escapes: bool) -> list[Fragment]:
        """Read up to the character *stop* and past it, or to the end when *stop* is empty."""
        text, fragments = self.text, list[Fragment]()
        plain = _plain(self.escape + stop + ("'\"" if self.quotes else ""))
        while self.position < len(text):
            match = plain.match(text, self.position)
            if match is not None:
                self.position = match.end()
                fragments.append(Fragment(match[0], splits=True))
                continue
            character = text[self.position]
            if character == stop:
                self.position += 1
                return fragments
            if character == "$":
                fragments.append(Fragment(self._dollar(), splits=True))
            elif character == "'":
                fragments.append(Fragment(self._single_quotes(), splits=False))
            elif character == '"':
                fragments.append(Fragment(self._double_quotes(keep_escapes=keep_escapes), splits=False))
            else:
                kept = character if keep_escapes else ""
                fragments.append(Fragment(kept + text[self.position + 1 : self.position + 2], splits=False))
                self.position += 2
        if stop:
            message = "syntax error: missing '/' in ${}" if stop == "/" else "syntax error: missing '}'"
            raise DockerfileError(message, hint=f"close the substitution with `{stop}`")
        return fragments

    def _single_quotes(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise DockerfileError(
                "unexpected end of statement while looking for matching single-quote",
                hint="close the quote, or escape it to mean an apostrophe",
            )
        start, self.position = self.position, end + 1
        return self.text[start : end + 1] if self.keep_quotes else self.text[start + 1 : end]

    def _double_quotes(self, *, keep_escapes: bool) -> str:
        text, parts = self.text, list[str]()
        plain = _plain(self.escape + '"')
        quote = '"' if self.keep_quotes else ""
        self.position += 1
        while self.position < len(text):
            match = plain.match(text, self.position)
            if match is not None:
                parts.append(match[0])
                self.position = match.end()
                continue
            character = text[self.position]
            if character == '"':
                self.position += 1
                return f"{quote}{''.join(parts)}{quote}"
            if character == "$":
                parts.append(self._dollar())
                continue
            following = text[self.position + 1 : self.position + 2]
            if following in {'"', "$", self.escape}:
                parts.append(character + following if keep_escapes else following)
                self.position += 2
            else:
                parts.append(character)
                self.position += 1
        raise DockerfileError(
            "unexpected end of statement while looking for matching double-quote",
            hint="close the quote, or escape it to mean the character",
        )

    def _dollar(self) -> str:
        text = self.text
        self.position += 1
        if not text.startswith("{", self.position):
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            return f"${name}" if value is None and self.keep_unset else value or ""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise DockerfileError(
                f"bad substitution: nested deeper than {MAX_NESTING}", hint="use an ARG for the inner part"
            )
        self.position += 1
        value = self._braces()
        self.depth -= 1
        return value

    def _braces(self) -> str:
        text = self.text
        first = text[self.position : self.position + 1]
        if not first:
            raise DockerfileError("syntax error: missing '}'", hint="close the substitution with `}`")
        if first in "{}:":
            raise DockerfileError("syntax error: bad substitution", hint="write a name behind `${`, or escape the `$`")
        name = self._name()
        operator = text[self.position : self.position + 1]
        self.position += 1
        if operator == "}":
            value = self._get(name)
            return f"${{{name}}}" if value is None and self.keep_unset else value or ""
        if operator == "/":
            return self._replace(name)
        if operator == ":":
            operator += text[self.position : self.position + 1]
            self.position += 1
        if not operator or operator == ":":
            raise DockerfileError("syntax error: missing '}'", hint="close the substitution with `}`")
        if operator not in {"-", ":-", "+", ":+", "?", ":?", "#", "%"}:
            raise DockerfileError(
                f"unsupported modifier ({operator}) in substitution",
                hint="known are - + ? (also after :), # ## % %% / //",
            )
        word = "".join([fragment.text for fragment in self._until("}", keep_escapes=operator in {"#", "%"})])
        value = self._get(name)
        if value is None and self.keep_unset:
            return f"${{{name}{operator}{word}}}"
        return _apply(name, operator, word, value)

    def _replace(self, name: str) -> str:
        every = self.text.startswith("/", self.position)
        self.position += every
        pattern = "".join([fragment.text for fragment in self._until("/", keep_escapes=True)])
        replacement = "".join([fragment.text for fragment in self._until("}", keep_escapes=True)])
        value = self._get(name)
        if value is None and self.keep_unset:
            return f"${{{name}/{'/' * every}{pattern}/{replacement}}}"
        return ShellPattern.parse(pattern).replace(value or "", replacement, every=every)

    def _name(self) -> str:
        match = re.compile(_NAME).match(self.text, self.position)
        name = match[0] if match else ""
        self.position += len(name)
        return name

    def _get(self, name: str) -> str | None:
        value = self.lookup(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value


def _apply(name: str, operator: str, word: str, value: str | None) -> str:
    present = value is not None and not (operator.startswith(":") and not value)
    match operator[-1]:
        case "-":
            return value or "" if present else word
        case "+":
            return word if present else ""
        case "?":
            if present:
                return value or ""
            reason = word or f"is not allowed to be {'unset' if value is None else 'empty'}"
            raise DockerfileError(
                f"{name}: {reason}", hint=f"give {shorten(name)} a value, for instance with --build-arg"
            )
        case side:
            longest = word.startswith(side)
            pattern = ShellPattern.parse(word[longest:])
            if side == "#":
                return pattern.remove_prefix(value or "", longest=longest)
            return pattern.reverse().remove_prefix((value or "")[::-1], longest=longest)[::-1]


@lru_cache(maxsize=32)
def _plain(specials: str) -> re.Pattern[str]:
    """Match a run of characters without a meaning."""
    return re.compile(rf"[^${re.escape(specials)}]++", re.DOTALL)
