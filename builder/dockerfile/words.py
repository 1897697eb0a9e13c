r"""Variable expansion and quote removal in the words of an instruction.

A *lookup* gives the value of a variable, or None when it is unset. *Expansion* replaces `$name` and `${name…}`, removes
quotes and escape characters, and says which names were asked for. Values put in are not read again.

Source: moby/buildkit, frontend/dockerfile/shell/lex.go; Dockerfile reference, Environment replacement.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from builder.dockerfile.parser import shorten
from builder.errors import DockerfileError
from registry.value import field, frozen

Lookup = Callable[[str], str | None]
"""The value of a variable; None means unset, which differs from empty."""

MAX_NESTING = 100
"""How deep `${…${…}…}` may go. Deeper is no text a person wrote, and the limit keeps time and stack bounded."""

_Run = tuple[str | None, ...]

_NAME = r"\d++|[@*#?\-$!]|\w*+"
_WILDCARD = r"[*?\\]"


@frozen(kw_only=False)
class _Fragment:
    """A part of the result. *splits* tells that blanks in it separate words: it is not quoted or escaped."""

    text: str
    splits: bool


@frozen
class Expansion:
    """The result of an expansion: the text, the names found set (*matched*) and unset (*unmatched*)."""

    text: str
    matched: frozenset[str] = frozenset()
    unmatched: frozenset[str] = frozenset()
    _fragments: tuple[_Fragment, ...] = field(default=(), repr=False, compare=False)

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
    if not _special(escape).search(text):
        return Expansion(text=text, _fragments=(_Fragment(text, splits=True),))
    return _Lexer(text, lookup, escape, keep_quotes=keep_quotes, keep_unset=keep_unset, quotes=True).run()


def expand_heredoc(text: str, lookup: Lookup) -> Expansion:
    r"""Expand the variables in the body of a here-document.

    Quotes have no meaning and stay. The escape character is always the backslash; it is dropped before any character,
    so `\$` gives `$`, `\\` gives `\` and `\n` gives `n`.

    Raises:
        DockerfileError: as `expand`.
    """
    if "$" not in text and "\\" not in text:
        return Expansion(text=text, _fragments=(_Fragment(text, splits=True),))
    return _Lexer(text, lookup, "\\", keep_quotes=False, keep_unset=False, quotes=False).run()


class _Lexer:
    """One pass over one text."""

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

    def _until(self, stop: str, *, keep_escapes: bool) -> list[_Fragment]:
        """Read up to the character *stop* and past it, or to the end when *stop* is empty."""
        text, fragments = self.text, list[_Fragment]()
        plain = _plain(self.escape + stop + ("'\"" if self.quotes else ""))
        while self.position < len(text):
            match = plain.match(text, self.position)
            if match is not None:
                self.position = match.end()
                fragments.append(_Fragment(match[0], splits=True))
                continue
            character = text[self.position]
            if character == stop:
                self.position += 1
                return fragments
            if character == "$":
                fragments.append(_Fragment(self._dollar(), splits=True))
            elif character == "'":
                fragments.append(_Fragment(self._single_quotes(), splits=False))
            elif character == '"':
                fragments.append(_Fragment(self._double_quotes(keep_escapes=keep_escapes), splits=False))
            else:
                kept = character if keep_escapes else ""
                fragments.append(_Fragment(kept + text[self.position + 1 : self.position + 2], splits=False))
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
        return _Pattern.parse(pattern).replace(value or "", replacement, every=every)

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
            pattern = _Pattern.parse(word[longest:])
            if side == "#":
                return pattern.remove_prefix(value or "", longest=longest)
            return pattern.reverse().remove_prefix((value or "")[::-1], longest=longest)[::-1]


@frozen(kw_only=False)
class _Pattern:
    """A shell pattern of `*` and `?`: the runs between the stars, each a tuple of characters, None for `?`.

    Matched run by run, leftmost first, which needs no backtracking: `*a*a*a*b` costs no more than its length times
    that of the value.
    """

    runs: tuple[_Run, ...]

    @classmethod
    def parse(cls, text: str) -> _Pattern:
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

    def reverse(self) -> _Pattern:
        return _Pattern(tuple([run[::-1] for run in reversed(self.runs)]))

    def remove_prefix(self, value: str, *, longest: bool) -> str:
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


@lru_cache(maxsize=4)
def _special(escape: str) -> re.Pattern[str]:
    return re.compile(rf"['\"${re.escape(escape)}]")


@lru_cache(maxsize=32)
def _plain(specials: str) -> re.Pattern[str]:
    """Match a run of characters without a meaning."""
    return re.compile(rf"[^${re.escape(specials)}]++", re.DOTALL)
