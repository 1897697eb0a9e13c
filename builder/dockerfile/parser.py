r"""From text to nodes: comments, continuations, keywords, flags, here-documents.

A *physical line* is what ends with a newline. A *logical line* is an instruction with its continuations joined and
the comments between them dropped. A *node* is a logical line cut into keyword, flags and rest, with the bodies of its
*heredocs*; it knows no instruction in particular except which of them take heredocs. A *word* is a piece of a logical
line with its offsets, from which `LogicalLine.span` finds line and column in the file.

Time and memory are linear in the length of the file.

Source: Dockerfile reference; moby/buildkit, frontend/dockerfile/parser/{parser,split_command}.go.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache

from builder.dockerfile.directives import BYTE_ORDER_MARK, parse_directives
from builder.errors import DockerfileError
from builder.source import Span
from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.dockerfile.directives import Directives
    from builder.source import SourceFile

MAX_LINE_BYTES = 65535
"""Bytes of the longest physical line, its newline not counted."""

BLANKS = " \t\v\f\r"
"""What separates words."""

_KEYWORD = re.compile(r"[^ \t\v\f\r]++")
_BLANKS = re.compile(r"[ \t\v\f\r]*+")
_PLAIN_WORD = re.compile(r"[^ \t\v\f\r]++")
_HEREDOC_HEAD = r"(\d*+)<<(-?)[ \t\v\f\r]*+"
_HEREDOC_KEYWORDS = frozenset({"run", "copy", "add"})


@frozen(kw_only=False)
class Word:
    """A piece of a logical line: its text, perhaps without quotes, and its offsets (end exclusive)."""

    text: str
    start: int
    end: int


@frozen(kw_only=False)
class Piece:
    """Where a physical line begins in the logical one, and the line and column (from 1) of that character."""

    offset: int
    line: int
    column: int


@frozen(kw_only=False)
class LogicalLine:
    """The text of an instruction in one line, and the way back to the file."""

    source: SourceFile = field(repr=False)
    text: str
    escape: str
    pieces: tuple[Piece, ...]

    def span(self, start: int, end: int) -> Span:
        """Return the place of the characters from *start* to *end* (exclusive); cut at the end of the first line."""
        index = max(0, bisect_right(self.pieces, start, key=lambda piece: piece.offset) - 1)
        piece = self.pieces[index]
        if index + 1 < len(self.pieces):
            end = min(end, self.pieces[index + 1].offset)
        column = piece.column + start - piece.offset
        return Span(
            source=self.source,
            line=piece.line,
            end_line=piece.line,
            column=column,
            end_column=max(column, piece.column + end - piece.offset - 1),
        )

    def span_of(self, word: Word) -> Span:
        """Return the place of *word*."""
        return self.span(word.start, word.end)


@frozen
class Heredoc:
    r"""A here-document: `[fd]<<[-]name` in the line, the body below it.

    *body* is as in the file: it ends with a newline unless it is empty, and keeps its tabs. *expand* is False when a
    part of the delimiter was quoted. *word* is the marker in the logical line.
    """

    name: str
    body: str
    expand: bool = True
    strip_tabs: bool = False
    fd: int | None = None
    word: Word

    @property
    def text(self) -> str:
        """The body without leading tabs if the marker was `<<-`, else the body."""
        return re.sub(r"(?m)^\t++", "", self.body) if self.strip_tabs else self.body


@frozen
class Node:
    """An instruction before its meaning.

    *keyword* is in lower case. *original* is the logical line without heredoc bodies. *flags* are the words that
    start with `--`, quotes and escapes resolved. *rest* is what follows, without blanks around it; *rest_start* its
    offset. *comments* are the comment lines directly above, without the `#`. *empty_lines* are the numbers of
    blank lines inside the instruction. *trigger* is the instruction inside an ONBUILD.
    """

    keyword: str
    original: str
    flags: tuple[Word, ...]
    rest: str
    rest_start: int
    heredocs: tuple[Heredoc, ...] = ()
    span: Span
    line: LogicalLine = field(repr=False)
    keyword_word: Word
    comments: tuple[str, ...] = ()
    empty_lines: tuple[int, ...] = ()
    trigger: Node | None = None

    @property
    def end(self) -> int:
        """The offset behind the last character of `rest`."""
        return self.rest_start + len(self.rest)


def parse_nodes(source: SourceFile, *, directives: Directives | None = None) -> tuple[Node, ...]:
    """Cut a Dockerfile into nodes, in the order of the file.

    Args:
        source: the file; line ends are newline or carriage return and newline, a byte order mark is dropped.
        directives: those of the file, when they are known already.

    Raises:
        DockerfileError: a line is too long, a heredoc has no end, the text holds a zero byte.
    """
    known = directives if directives is not None else parse_directives(source)
    return _Reader(source, known).read()


def split_words(node: Node) -> tuple[Word, ...]:
    """Split the rest of *node* at blanks; quotes and escapes have no meaning here."""
    return tuple(
        Word(match[0], match.start(), match.end())
        for match in _PLAIN_WORD.finditer(node.line.text, node.rest_start, node.end)
    )


def split_quoted_words(node: Node) -> tuple[Word, ...]:
    r"""Split the rest of *node* at blanks outside quotes. Quotes and escapes stay in the words.

    An escape character at the very end is dropped. A quote that is not closed takes all that follows.

    Source: moby/buildkit, parser/line_parsers.go, parseWords.
    """
    text, words = node.line.text, []
    pattern = _quoted_word(node.line.escape)
    for match in pattern.finditer(text, node.rest_start, node.end):
        word, end = match[0], match.end()
        if end == node.end and _ends_with_lone_escape(word, node.line.escape):
            word = word[:-1]
        if word:
            words.append(Word(word, match.start(), end))
    return tuple(words)


def narrow(span: Span, text: str) -> Span:
    """Return the place of *text* inside *span*, or *span* itself when it does not stand there in one line.

    For faults found after parsing, when only the text of a word is at hand.
    """
    if not text:
        return span
    for number in range(span.line, min(span.end_line, len(span.source.lines)) + 1):
        column = span.source.lines[number - 1].find(text) + 1
        if column:
            return Span(
                source=span.source, line=number, end_line=number, column=column, end_column=column + len(text) - 1
            )
    return span


class _Reader:
    """Walks over the physical lines of one file."""

    def __init__(self, source: SourceFile, directives: Directives) -> None:
        self.source = source
        self.escape = directives.escape
        self.lines = source.text.removeprefix(BYTE_ORDER_MARK).split("\n")
        self.next = directives.line_count

    def read(self) -> tuple[Node, ...]:
        self._check_text()
        nodes: list[Node] = []
        comments: list[str] = []
        while self.next < len(self.lines):
            text = self.lines[self.next].strip()
            if text.startswith("#"):
                comments.append(text[1:].strip())
                self.next += 1
            elif not text:
                comments.clear()
                self.next += 1
            else:
                node = self._read_node(tuple(comments))
                comments.clear()
                if node is not None:
                    nodes.append(node)
        return tuple(nodes)

    def _check_text(self) -> None:
        if "\0" in self.source.text:
            number = self.source.text.count("\n", 0, self.source.text.index("\0")) + 1
            raise DockerfileError(
                "the file holds a zero byte and is no text",
                hint="save the file in UTF-8",
                span=Span(source=self.source, line=number, end_line=number),
            )
        for number, line in enumerate(self.lines, 1):
            if len(line) > MAX_LINE_BYTES // 4 and len(line.encode("utf-8", "replace")) > MAX_LINE_BYTES:
                raise DockerfileError(
                    f"dockerfile line greater than max allowed size of {MAX_LINE_BYTES}",
                    hint="break the line, or move the text to a file and COPY it",
                    span=Span(source=self.source, line=number, end_line=number),
                )

    def _read_node(self, comments: tuple[str, ...]) -> Node | None:
        first = self.next + 1
        pieces: list[Piece] = []
        texts: list[str] = []
        empty_lines: list[int] = []
        offset, continued = 0, True
        while continued and self.next < len(self.lines):
            text = self.lines[self.next].rstrip("\r")
            self.next += 1
            column = 1
            if not texts:
                column += len(text) - len(text.lstrip())
                text = text[column - 1 :]
            elif text.lstrip().startswith("#"):
                continue
            elif not text.strip():
                # The piece behind the last newline is the end of the file, not a line of it.
                if self.next < len(self.lines):
                    empty_lines.append(self.next)
                continue
            text, continued = _cut_continuation(text, self.escape)
            pieces.append(Piece(offset, self.next, column))
            texts.append(text)
            offset += len(text)
        line = LogicalLine(self.source, "".join(texts), self.escape, tuple(pieces))
        if not line.text.strip(BLANKS):
            return None
        return self._make_node(line, 0, first, comments, tuple(empty_lines))

    def _make_node(
        self, line: LogicalLine, start: int, first: int, comments: tuple[str, ...], empty_lines: tuple[int, ...]
    ) -> Node | None:
        match = _KEYWORD.search(line.text, start)
        if match is None:
            return None
        keyword = match[0].lower()
        flags, position = _cut_flags(line, match.end())
        rest = line.text[position:].rstrip()
        trigger = self._make_node(line, position, first, (), ()) if keyword == "onbuild" and start == 0 else None
        marks: tuple[_Mark, ...] = ()
        if keyword in _HEREDOC_KEYWORDS and "<<" in rest and not is_json_array(rest):
            marks = _find_marks(line, position, position + len(rest), shell=keyword == "run")
        heredocs = tuple([self._read_body(line, mark) for mark in marks])
        last = max(self.next if heredocs else 0, line.pieces[-1].line, trigger.span.end_line if trigger else 0)
        return Node(
            keyword=keyword,
            original=line.text[match.start() :].rstrip(),
            flags=flags,
            rest=rest,
            rest_start=position,
            heredocs=heredocs,
            span=Span(source=self.source, line=first, end_line=last),
            line=line,
            keyword_word=Word(match[0], match.start(), match.end()),
            comments=comments,
            empty_lines=empty_lines,
            trigger=trigger,
        )

    def _read_body(self, line: LogicalLine, mark: _Mark) -> Heredoc:
        start = self.next
        for number in range(start, len(self.lines)):
            candidate = self.lines[number].rstrip("\r")
            if (candidate.lstrip("\t") if mark.strip_tabs else candidate) == mark.name:
                self.next = number + 1
                body = "\n".join(self.lines[start:number])
                return Heredoc(
                    name=mark.name,
                    body=f"{body}\n" if number > start else "",
                    expand=mark.expand,
                    strip_tabs=mark.strip_tabs,
                    fd=mark.fd,
                    word=mark.word,
                )
        raise DockerfileError(
            f"unterminated heredoc: `{shorten(mark.name)}`",
            hint=f"end the text with a line that holds {shorten(mark.name)} and nothing else",
            span=line.span_of(mark.word),
        )


@frozen(kw_only=False)
class _Mark:
    name: str
    expand: bool
    strip_tabs: bool
    fd: int | None
    word: Word


def is_json_array(text: str) -> bool:
    """Tell whether *text* is a whole JSON array, of whatever."""
    return parse_json_array(text) is not None


def parse_json_array(text: str) -> list[object] | None:
    """Return the members of the JSON array that *text* is, or None when it is anything else.

    Source: RFC 8259; the extensions of Python (NaN, Infinity) are refused as Go does.
    """
    if not text.startswith("["):
        return None
    import json  # noqa: PLC0415  many Dockerfiles hold no array

    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def shorten(text: str, limit: int = 60) -> str:
    """Return *text*, cut to *limit* characters when longer, for messages."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _cut_continuation(text: str, escape: str) -> tuple[str, bool]:
    """Cut the escape character that ends a line, and tell whether there was one.

    A doubled escape character is an escaped one and continues nothing; neither does a tripled one.
    """
    body = text.rstrip(" \t")
    if not body.endswith(escape) or body.endswith(escape * 2):
        return text, False
    return body[:-1], True


def _cut_flags(line: LogicalLine, position: int) -> tuple[tuple[Word, ...], int]:
    """Return the flags from *position* on and the offset of what follows them."""
    text, flags = line.text, list[Word]()
    while True:
        position = _end_of_blanks(text, position)
        if not text.startswith("--", position):
            return tuple(flags), position
        start, parts, token = position, [], _flag_token(line.escape)
        while match := token.match(text, position):
            position = match.end()
            plain, escaped, single, double = match.groups()
            if plain is not None:
                parts.append(plain)
            elif escaped is not None:
                parts.append(escaped)
            elif (quoted := single if single is not None else double) is not None:
                parts.append(_escaped(line.escape).sub(r"\1", quoted))
        word = "".join(parts)
        if word == "--":
            return tuple(flags), _end_of_blanks(text, position)
        flags.append(Word(word, start, position))


def _find_marks(line: LogicalLine, start: int, end: int, *, shell: bool) -> tuple[_Mark, ...]:
    """Find the heredoc markers in a part of a logical line.

    A marker stands at the start of a word and outside quotes. In shell text, `((` to `))` is arithmetic, where `<<`
    shifts, and the delimiter ends at an operator of the shell. A quote that is not closed means that there is none.

    Source: moby/buildkit, parser/parser_heredoc.go (which takes `$((1 << 2))` for a heredoc).
    """
    text, position, marks = line.text, start, []
    heads, tokens = re.compile(_HEREDOC_HEAD), re.compile(_SHELL_PART, re.DOTALL)
    last_closing = text.rfind("))", start, end) if shell else -1
    while position < end:
        position = _end_of_blanks(text, position)
        head = heads.match(text, position, end)
        if head is not None and (found := _read_delimiter(line, head, end, shell=shell)):
            mark, position = found
            marks.append(mark)
            continue
        while position < end and text[position] not in BLANKS:
            if position < last_closing and text.startswith("((", position):
                position = text.find("))", position, end)
                continue
            token = tokens.match(text, position, end)
            if token is None:
                return ()
            position = token.end()
    return tuple(marks)


def _read_delimiter(line: LogicalLine, head: re.Match[str], end: int, *, shell: bool) -> tuple[_Mark, int] | None:
    text, position, parts, quoted = line.text, head.end(), [], False
    pattern = re.compile(_SHELL_DELIMITER_TOKEN if shell else _DELIMITER_TOKEN, re.DOTALL)
    while match := pattern.match(text, position, end):
        position = match.end()
        plain, escaped, single, double = match.groups()
        if plain is not None or escaped is not None:
            parts.append(plain if plain is not None else escaped)
        else:
            quoted = True
            parts.append(single if single is not None else re.sub(_IN_DOUBLE_QUOTES, r"\1", double))
    name = "".join(parts)
    if not name or text[position : position + 1] in {"<", "'", '"'} or text.startswith("\\", position, end):
        return None
    word = Word(text[head.start() : position], head.start(), position)
    if any(blank in name for blank in BLANKS):
        raise DockerfileError(
            f"heredoc delimiter must not hold blanks: `{shorten(name)}`",
            hint="choose a delimiter of one word",
            span=line.span_of(word),
        )
    return _Mark(name, not quoted, head[2] == "-", int(head[1][-9:]) if head[1] else None, word), position


# The escape character of heredocs is the backslash, whatever the directive says.
_SHELL_PART = r"""[^ \t\v\f\r'"\\(]++|\(|\\.?|'[^']*+'|"(?:[^"\\]++|\\.)*+\""""
_QUOTED = r"""|\\(.)|'([^']*+)'|"((?:[^"\\]++|\\.)*+)\""""
_DELIMITER_TOKEN = r"""([^ \t\v\f\r'"\\<]++)""" + _QUOTED
_SHELL_DELIMITER_TOKEN = r"""([^ \t\v\f\r'"\\<>|&;()]++)""" + _QUOTED
_IN_DOUBLE_QUOTES = r'\\(["$\\])'


def _end_of_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    return match.end() if match else position


def _ends_with_lone_escape(word: str, escape: str) -> bool:
    return (len(word) - len(word.rstrip(escape))) % 2 == 1


@lru_cache(maxsize=4)
def _escaped(escape: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(escape)}(.)", re.DOTALL)


@lru_cache(maxsize=4)
def _flag_token(escape: str) -> re.Pattern[str]:
    r"""Match a part of a flag word: plain text, an escaped character, a quoted string that may lack its end."""
    e = re.escape(escape)
    return re.compile(
        rf"""([^ \t\v\f\r'"{e}]++)|{e}(.)|'((?:[^'{e}]++|{e}.)*+){e}?'?|"((?:[^"{e}]++|{e}.)*+){e}?"?|{e}""",
        re.DOTALL,
    )


@lru_cache(maxsize=4)
def _quoted_word(escape: str) -> re.Pattern[str]:
    e = re.escape(escape)
    return re.compile(
        rf"""(?:[^ \t\v\f\r'"{e}]++|{e}.|{e}|'[^']*+(?:'|\Z)|"(?:[^"{e}]++|{e}.|{e})*+(?:"|\Z))++""", re.DOTALL
    )
