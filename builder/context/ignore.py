r"""The language of `.dockerignore`: which paths of a build context a build does not see.

A *rule* is one line: a pattern, or `!` and a pattern. A pattern is anchored at the root of the context and matches a
path or any directory above it; the last rule that matches decides, `!` meaning that the path is kept. `*` and `?` stay
inside one name, `**` spans any number of directories, `[a-c]` and `[^a-c]` are classes, `\` takes the next character
literally. `COPY --exclude` and `COPY --parents` use the same patterns.

Two readings differ from moby/patternmatcher, where it hands text to a regular expression by accident: `*`, `?` and `.`
inside a class, and letters after a backslash (`\\d`), mean themselves.

Source: moby/patternmatcher, patternmatcher.go and ignorefile/ignorefile.go; spec, section 1.16.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from builder.errors import ContextError
from builder.source import SourceFile, Span
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""What Go's strings.TrimSpace takes off; str.strip also takes the separators 1c to 1f."""

_NOT_BYTES = "[\ud800-\udc7f\udd00-\udfff]"
"""Surrogates that do not stand for a byte; only an escape in JSON can bring one here."""

_NOTHING = -1


@frozen(kw_only=False)
class IgnoreRule:
    """One line of an ignore file.

    Attributes:
        pattern: cleaned, without `!`.
        keeps: whether the rule takes paths out of the ignored ones.
        span: the line it was read from, or None for a pattern of a flag.
    """

    pattern: str
    keeps: bool
    span: Span | None

    def __str__(self) -> str:
        return f"!{self.pattern}" if self.keeps else self.pattern


class IgnoreRules:
    """The rules of one ignore file, compiled.

    Answers are remembered by directory, so asking for the paths of a walk in any order costs about a microsecond each.
    Safe to use from several threads.

    Args:
        rules: in the order of the file.

    Raises:
        ContextError: a pattern cannot be read.
    """

    def __init__(self, rules: Sequence[IgnoreRule]) -> None:
        self.rules = tuple(rules)
        self._paths: dict[bytes, int] = {}
        self._names: dict[bytes, int] = {}
        top: list[tuple[int, str]] = []
        anywhere: list[tuple[int, str]] = []
        general: list[tuple[int, str]] = []
        self._reopening: list[tuple[int, tuple[re.Pattern[str] | None, ...]]] = []
        for number, rule in enumerate(self.rules):
            pattern, anywhere_below = rule.pattern, rule.pattern.startswith("**/")
            name = pattern[3:] if anywhere_below else pattern
            single = "/" not in name and "**" not in name and "[^" not in name
            if not _has_magic(name) and (single or not anywhere_below):
                literals = self._names if anywhere_below else self._paths
                literals[name.encode("utf-8", "surrogateescape")] = number
            elif single:
                (anywhere if anywhere_below else top).append((number, _translate(name, rule)))
            else:
                general.append((number, _translate(pattern, rule)))
            if rule.keeps:
                parts = tuple(_compile_part(part, rule) for part in pattern.split("/"))
                self._reopening.append((number, parts))
        self._top = _alternatives(top)
        self._anywhere = _alternatives(anywhere)
        self._general = _alternatives(general)
        self._folders: dict[bytes, int] = {b"": _NOTHING}

    def __bool__(self) -> bool:
        return bool(self.rules)

    def matches(self, path: bytes) -> bool:
        """Tell whether *path*, relative to the root of the context, is ignored. The root itself never is."""
        number = self._deciding(path)
        return number != _NOTHING and not self.rules[number].keeps

    def explain(self, path: bytes) -> IgnoreRule | None:
        """Find the rule that decides about *path*; None if no rule matches it."""
        number = self._deciding(path)
        return None if number == _NOTHING else self.rules[number]

    def may_reopen(self, path: bytes) -> bool:
        """Tell whether something below the ignored directory *path* could be kept by a later `!` rule."""
        if not self._reopening:
            return False
        decided = self._deciding(path)
        names = path.decode("utf-8", "surrogateescape").split("/")
        return any(number > decided and _may_match_below(parts, names) for number, parts in self._reopening)

    def hides_source(self, path: str) -> bool:
        """Tell whether a source of COPY and everything below it is ignored; wildcards in it are plain text."""
        name = posixpath.normpath(f"/{path}").lstrip("/").encode("utf-8", "surrogateescape")
        return self.matches(name) and not self.may_reopen(name)

    def _deciding(self, path: bytes) -> int:
        """Find the number of the last rule that matches *path* or a directory above it."""
        slash = path.rfind(b"/")
        if slash < 0:
            return self._of_path(path, path, _NOTHING) if path else _NOTHING
        parent = path[:slash]
        inherited = self._folders.get(parent)
        if inherited is None:
            inherited = self._of_folders(parent)
        return self._of_path(path, path[slash + 1 :], inherited)

    def _of_folders(self, path: bytes) -> int:
        known = self._folders
        missing = []
        while (inherited := known.get(path)) is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for folder in reversed(missing):
            inherited = self._of_path(folder, folder.rpartition(b"/")[2], inherited)
            known[folder] = inherited
        return inherited

    def _of_path(self, path: bytes, name: bytes, found: int) -> int:
        number = self._paths.get(path, found)
        found = max(found, number)
        number = self._names.get(name, found)
        found = max(found, number)
        if self._anywhere is not None:
            found = self._anywhere.last(name.decode("utf-8", "surrogateescape"), found)
        if self._top is not None and len(name) == len(path):
            found = self._top.last(name.decode("utf-8", "surrogateescape"), found)
        if self._general is not None:
            found = self._general.last(path.decode("utf-8", "surrogateescape"), found)
        return found


def parse_ignore(text: str, name: str) -> IgnoreRules:
    """Read an ignore file.

    Args:
        text: of the file, decoded with surrogateescape.
        name: what the user knows it by, for messages.

    Raises:
        ContextError: a pattern cannot be read; it carries the line.
    """
    source = SourceFile(name, text)
    rules = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.startswith("#"):
            continue
        pattern = line.strip(_BLANKS)
        if not pattern:
            continue
        span = Span(source=source, line=number, end_line=number)
        rules.append(_parse_rule(pattern, span))
    return IgnoreRules(rules)


def compile_patterns(patterns: Iterable[str], *, span: Span | None = None) -> IgnoreRules:
    """Read the patterns of flags: one a rule, no comments.

    Args:
        patterns: in order.
        span: the instruction they stand in, for errors.

    Raises:
        ContextError: a pattern cannot be read.
    """
    trimmed = (pattern.strip(_BLANKS) for pattern in patterns)
    return IgnoreRules([_parse_rule(pattern, span) for pattern in trimmed if pattern])


def _parse_rule(pattern: str, span: Span | None) -> IgnoreRule:
    keeps = pattern.startswith("!")
    if re.search(_NOT_BYTES, pattern):
        raise ContextError(f"pattern cannot be a path: `{pattern!a}`", span=span)
    cleaned = _clean(pattern[1:].strip(_BLANKS) if keeps else pattern)
    if keeps and cleaned in {"", "/"}:
        raise ContextError(
            'illegal exclusion pattern: "!"', hint="write a pattern after the `!`, or remove the line", span=span
        )
    if len(cleaned) > 1 and cleaned.startswith("/"):
        cleaned = cleaned[1:]
    return IgnoreRule(cleaned, keeps, span)


def _clean(path: str) -> str:
    """Clean a path as Go's filepath.Clean does, except that the empty path stays empty."""
    if not path:
        return ""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in {"", "."}:
            continue
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".." or not rooted:
            parts.append(part)
    cleaned = "/".join(parts)
    return "/" + cleaned if rooted else cleaned or "."


def _has_magic(pattern: str) -> bool:
    return any(character in pattern for character in "*?[\\")


class _Alternatives:
    """Patterns tried at once; the highest number of those that match is found first."""

    __slots__ = ("_match", "_numbers")

    def __init__(self, numbered: list[tuple[int, str]]) -> None:
        numbered = sorted(numbered, reverse=True)
        self._numbers = (_NOTHING, *(number for number, _ in numbered))
        # Groups are counted from 1, and lastindex names the one alternative that took part.
        self._match = re.compile("|".join(f"({regex})\\Z" for _, regex in numbered), re.DOTALL).match

    def last(self, text: str, found: int) -> int:
        """Find the highest number of a pattern that matches all of *text*; *found* if that is higher or none does."""
        match = self._match(text)
        if match is None:
            return found
        number = self._numbers[match.lastindex or 0]
        return max(found, number)


def _alternatives(numbered: list[tuple[int, str]]) -> _Alternatives | None:
    return _Alternatives(numbered) if numbered else None


def _may_match_below(parts: tuple[re.Pattern[str] | None, ...], names: list[str]) -> bool:
    """Tell whether a pattern could match a path that begins with *names*; None in *parts* stands for anything."""
    for part, name in zip(parts, names, strict=False):
        if part is None:
            return True
        if part.match(name) is None:
            return False
    return len(parts) > len(names)


def _compile_part(part: str, rule: IgnoreRule) -> re.Pattern[str] | None:
    """Compile one name of a pattern; None if it may span directories."""
    if "**" in part or "[" in part:
        return None
    return re.compile(_translate(part, rule) + r"\Z", re.DOTALL)


def _translate(pattern: str, rule: IgnoreRule) -> str:
    """Turn a pattern into a regular expression without capturing groups.

    Raises:
        ContextError: a class that is not closed or empty, or a backslash with nothing after it.
    """
    try:
        regex = translate_pattern(pattern)
        re.compile(regex)
    except (ValueError, re.error) as error:
        raise ContextError(
            f"syntax error in pattern, {error}: `{rule}`",
            hint="close a class with `]`, put a backslash before a `[` that is meant literally, write `**` as a whole name",
            span=rule.span,
        ) from error
    return regex


def translate_pattern(pattern: str) -> str:
    """Turn a cleaned pattern of the ignore language into a regular expression for the whole path.

    Raises:
        ValueError: the pattern breaks the syntax of Go's filepath.Match, or needs too much trying.

    Source: moby/patternmatcher, Pattern.compile: how `**` reads depends on what was met before it.
    """
    tokens: list[_Token] = []
    at, end = 0, len(pattern)
    leading: _Token | None = None
    plain = True  # no wildcard so far, except a `**` at the beginning
    while at < end:
        character = pattern[at]
        at += 1
        if character == "*" and pattern.startswith("*", at):
            first = at == 1
            at += 1
            if pattern.startswith("/", at):
                at += 1
                slash = True
            else:
                slash = False
            if at == end:
                plain = plain and first
                tokens.append(_ANYTHING)
            elif first:
                leading = _FOLDERS if slash else _ANYTHING
            else:
                plain = False
                tokens.append(_FOLDERS)
        elif character == "*":
            plain = False
            tokens.append(_STAR)
        elif character == "?":
            plain = False
            tokens.append(_Token("[^/]"))
        elif character == "[":
            plain = False
            text, at = _translate_class(pattern, at)
            tokens.append(_Token(text, may_be_slash=re.match(text, "/") is not None))
        elif character == "\\":
            if at == end:
                raise ValueError("nothing after the backslash")
            plain = False
            tokens.append(_literal(pattern[at]))
            at += 1
        else:
            tokens.append(_literal(character))
    if leading is not None:
        # With a wildcard after it, a leading `**` only ends at a slash, even where none is written.
        tokens.insert(0, leading if plain else _FOLDERS)
    return _join(tokens)


@frozen(kw_only=False)
class _Token:
    """A part of a pattern as a regular expression: one character, or a wildcard of any length."""

    text: str
    may_be_slash: bool = False


_STAR = _Token("[^/]*")
_FOLDERS = _Token("(?:.*/)?", may_be_slash=True)
_ANYTHING = _Token(".*", may_be_slash=True)
_SLASH = _Token("/", may_be_slash=True)

_TRIALS = 3
"""Wildcards of one pattern for which every length has to be tried."""


def _literal(character: str) -> _Token:
    return _SLASH if character == "/" else _Token(re.escape(character))


def _join(tokens: Sequence[_Token]) -> str:
    """Join tokens so that matching tries few things twice.

    Between two stars of one name the first place that fits will do: from there the second star reaches all that it
    reaches from a later one. The same holds of whole names between two `**`. Such a part is an atomic group; without,
    a pattern like `*a*a*a*a*b` takes time that grows with a power of the length of a name, as high as there are stars.

    Raises:
        ValueError: too many wildcards are left for which this does not hold.
    """
    joined: list[str] = []
    at, trials = 0, 0
    while at < len(tokens):
        token = tokens[at]
        if token is not _STAR and token is not _FOLDERS:
            joined.append(token.text)
            at += 1
            continue
        stop = next((number for number in range(at + 1, len(tokens)) if tokens[number] is token), None)
        between = tokens[at + 1 : stop]
        if stop is None or (token is _STAR and _SLASH in between):
            joined.append(token.text)
            at += 1
        elif token is _STAR and not any(one.may_be_slash for one in between):
            joined += ("(?>[^/]*?", *(one.text for one in between), ")")
            at = stop
        elif token is _FOLDERS and not between:
            at = stop
        elif token is _FOLDERS and between[-1] is _SLASH and _has_whole_names(between):
            joined += ("(?>(?:.*?/)??", _join(between), ")")
            at = stop
        else:
            trials += 1
            joined.append(token.text)
            at += 1
    if trials > _TRIALS:
        raise ValueError(f"more than {_TRIALS} wildcards of which every length has to be tried")
    return "".join(joined)


def _has_whole_names(tokens: Sequence[_Token]) -> bool:
    return all(token is _SLASH or not token.may_be_slash for token in tokens)


def _translate_class(pattern: str, at: int) -> tuple[str, int]:
    """Read a class whose `[` stands before *at*; returns its regular expression and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while True:
        if pattern.startswith("]", at) and ranges:
            return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1
        low, at = _class_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if high != low else re.escape(low))


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern):
        raise ValueError("a class is not closed")
    character = pattern[at]
    if character in "-]":
        raise ValueError(f"unexpected {character} in a class")
    if character == "\\":
        at += 1
        if at >= len(pattern):
            raise ValueError("nothing after the backslash")
        character = pattern[at]
    return character, at + 1
