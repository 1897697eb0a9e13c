"""From text to nodes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.parser import MAX_LINE_BYTES, Node, narrow, parse_nodes, split_quoted_words, split_words
from builder.errors import DockerfileError
from builder.source import SourceFile, Span


def parse(text: str) -> tuple[Node, ...]:
    """Cut a text into nodes."""
    return parse_nodes(SourceFile("Dockerfile", text))


def only(text: str) -> Node:
    """Return the only node of a text."""
    (node,) = parse(text)
    return node


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("RUN echo a \\\n# x\nb > /out/f", "echo a b > /out/f"),
        ("RUN echo a \\\n  # x\nb", "echo a b"),
        ("RUN echo a \\\n\n\n b", "echo a  b"),
        ("RUN echo a \\  \t\nb", "echo a b"),
        ("RUN a\\\n  b", "a  b"),
        ("  \trUn\va\f b  ", "a\f b"),
        ("RUN echo a \\\\\n", "echo a \\\\"),
        ("RUN echo a \\\\\\\n", "echo a \\\\\\"),
        ("RUN echo \\", "echo"),
        ("RUN echo # no comment", "echo # no comment"),
        ("\ufeffRUN x\r\n\r\n# c\r\n", "x"),
        ("RUN a \\\r\n b\r\n", "a  b"),
        ("# escape=`\nRUN a `\nb \\", "a b \\"),
        ("\\\n\\\nRUN a", "a"),
    ],
    ids=[
        "comment inside", "indented comment inside", "blank lines inside", "blanks after the escape", "indentation kept",
        "keyword", "escaped escape", "three escapes", "escape at the end", "hash", "byte order mark and CRLF",
        "CRLF continuation", "backtick", "escapes first",
    ],
)  # fmt: skip
def test_lines_are_joined_to_one_instruction(text: str, rest: str) -> None:
    """Continuations are joined, comments and blank lines inside are dropped."""
    node = only(text)

    assert node.keyword == "run"
    assert node.rest == rest


def test_empty_continuation_lines_are_counted() -> None:
    """Blank lines inside an instruction are reported by number; the end of the file is none."""
    assert only("RUN a \\\n\n# c\n \nb").empty_lines == (2, 4)
    assert only("RUN a \\\n").empty_lines == ()


def test_comments_directly_above_belong_to_the_instruction() -> None:
    """A blank line parts comments from what follows, directives are none."""
    first, second = parse("# syntax=x\n# gone\n\n# one\n  #two \nFROM a\n# three\nRUN x\n")

    assert first.comments == ("one", "two")
    assert second.comments == ("three",)


def test_span_covers_all_lines_of_an_instruction() -> None:
    """The span goes from the keyword to the last continuation or heredoc line."""
    first, second, third = parse("\nRUN a \\\n # c\n b\nRUN <<A\nx\nA\nRUN y")

    assert [(node.span.line, node.span.end_line) for node in (first, second, third)] == [(2, 4), (5, 7), (8, 8)]


def test_span_of_a_word_finds_it_behind_continuations() -> None:
    """Lines and columns are those of the file, not of the joined line."""
    node = only("COPY a \\\n# x\n   bb\\\nc d")
    spans = [node.line.span_of(word) for word in split_words(node)]

    assert [(span.line, span.column, span.end_column) for span in spans] == [(1, 6, 6), (3, 4, 5), (4, 3, 3)]


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        ("RUN --a=b --c x --d", ["--a=b", "--c"], "x --d"),
        ("RUN --a='b c' x", ["--a=b c"], "x"),
        ('RUN --a="b \\"c" x', ['--a=b "c'], "x"),
        ("RUN --a=b\\ c x", ["--a=b c"], "x"),
        ("RUN --a -- --b", ["--a"], "--b"),
        ("RUN --a=b", ["--a=b"], ""),
        ("RUN -a", [], "-a"),
        ("RUN --a='b c", ["--a=b c"], ""),
        ("# escape=`\nRUN --a=C:\\x` y z", ["--a=C:\\x y"], "z"),
    ],
    ids=["two", "single", "double", "escaped blank", "lone dashes", "no rest", "one dash", "open quote", "backtick"],
)
def test_flags_are_cut_from_the_rest(text: str, flags: list[str], rest: str) -> None:
    """Words with two dashes before the first other word are flags, without their quotes and escapes."""
    node = only(text)

    assert [flag.text for flag in node.flags] == flags
    assert node.rest == rest


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("a=\"x y\" b='p q'r", ['a="x y"', "b='p q'r"]),
        ("a\\ b c\\", ["a\\ b", "c"]),
        ('a="x \\" y" b', ['a="x \\" y"', "b"]),
        ("a='x \\' y", ["a='x \\'", "y"]),
        ('a="x y', ['a="x y']),
        ("'' b", ["''", "b"]),
    ],
    ids=["blanks", "quotes", "escapes", "escape in quotes", "no escape in single quotes", "open quote", "empty"],
)
def test_quoted_words_keep_their_quotes(rest: str, words: list[str]) -> None:
    """Quotes protect blanks and stay for the expansion."""
    assert [word.text for word in split_quoted_words(only(f"ENV {rest}"))] == words


@pytest.mark.parametrize(
    ("line", "names", "expand", "strip", "fds"),
    [
        ("RUN <<EOF", ["EOF"], [True], [False], [None]),
        ("RUN 3<<-'E F'\"\"".replace(" F", "F"), ["EF"], [False], [True], [3]),
        ("RUN <<eo'f'", ["eof"], [False], [False], [None]),
        ("RUN <<eo\\'f", ["eo'f"], [True], [False], [None]),
        ("RUN <<'e'o\\'f", ["eo'f"], [False], [False], [None]),
        ("RUN <<$EOF", ["$EOF"], [True], [False], [None]),
        ("RUN <<  EOF  > foo", ["EOF"], [True], [False], [None]),
        ("RUN <<- EOF", ["EOF"], [True], [True], [None]),
        ("RUN << -EOF", ["-EOF"], [True], [False], [None]),
        ("RUN cat <<A - 2<<B > /x", ["A", "B"], [True, True], [False, False], [None, 2]),
        ("RUN (cat <<A) | sh", ["A"], [True], [False], [None]),
        ("RUN cat <<A>/x", ["A"], [True], [False], [None]),
        ("COPY <<file.txt /x", ["file.txt"], [True], [False], [None]),
        ("COPY <<a(1) /x", ["a(1)"], [True], [False], [None]),
        ("ADD <<X <<Y /x", ["X", "Y"], [True, True], [False, False], [None, None]),
        ("ONBUILD RUN <<EOF", ["EOF"], [True], [False], [None]),
    ],
    ids=str,
)
def test_heredoc_markers_are_found(
    line: str, names: list[str], expand: list[bool], strip: list[bool], fds: list[int | None]
) -> None:
    """Delimiters are read as a shell does; any quote in one means that nothing is expanded."""
    node = only(line + "\n" + "".join(f"body of {name}\n{name}\n" for name in names))
    heredocs = node.trigger.heredocs if node.trigger else node.heredocs

    assert [heredoc.name for heredoc in heredocs] == names
    assert [heredoc.body for heredoc in heredocs] == [f"body of {name}\n" for name in names]
    assert [heredoc.expand for heredoc in heredocs] == expand
    assert [heredoc.strip_tabs for heredoc in heredocs] == strip
    assert [heredoc.fd for heredoc in heredocs] == fds


@pytest.mark.parametrize(
    "line",
    [
        "RUN '<<EOF'", 'RUN "<<EOF"', 'RUN ["<<EOF"]', "RUN <<<EOF", "RUN <<", "RUN echo $((1 << 2))", "RUN ((x<<=1))",
        "RUN cat<<EOF", "RUN it's <<EOF", "USER <<EOF", "RUN <<''", "RUN echo \\<<EOF",
    ],
    ids=str,
)  # fmt: skip
def test_heredoc_markers_are_not_found_elsewhere(line: str) -> None:
    """Quoted text, here-strings, arithmetic and other instructions hold no heredocs."""
    assert only(line).heredocs == ()


@pytest.mark.parametrize(
    ("text", "body", "content"),
    [
        ("RUN <<E\nE", "", ""),
        ("RUN <<E\n\ta\n  \n# c \\\nE\n", "\ta\n  \n# c \\\n", "\ta\n  \n# c \\\n"),
        ("RUN <<-E\n\t\ta\n\n \tb\n\tE\n", "\t\ta\n\n \tb\n", "a\n\n \tb\n"),
        ("RUN <<E\r\na\r\nE\r\n", "a\r\n", "a\r\n"),
        ("RUN <<E\n E\nE \nE\n", " E\nE \n", " E\nE \n"),
    ],
    ids=["empty", "verbatim", "tabs", "CRLF", "terminator alone on its line"],
)
def test_heredoc_bodies_are_verbatim(text: str, body: str, content: str) -> None:
    """The body is as in the file; only the dash strips tabs."""
    (heredoc,) = only(text).heredocs

    assert heredoc.body == body
    assert heredoc.text == content


def test_several_heredocs_are_read_in_order() -> None:
    """A body may hold the delimiter of a later heredoc."""
    first, second = only("COPY <<X <<Y /dest\nY\nX\nX\nY\n").heredocs

    assert (first.body, second.body) == ("Y\n", "X\n")


def test_line_too_long_is_an_error() -> None:
    """The limit counts bytes of one physical line, also in a heredoc."""
    assert only("RUN " + "x" * (MAX_LINE_BYTES - 4)).rest
    with pytest.raises(DockerfileError, match="greater than max allowed size of 65535") as caught:
        parse("RUN <<E\n" + "\u00e4" * (MAX_LINE_BYTES // 2 + 1) + "\nE\n")

    assert caught.value.span is not None
    assert caught.value.span.location == "Dockerfile:2"


def test_narrow_finds_a_word_in_a_span() -> None:
    """Text found in the lines of a span gets its columns; other text leaves the span as it is."""
    source = SourceFile("Dockerfile", "FROM a\nENV A=${x \\\n B=2\n")
    span = Span(source=source, line=2, end_line=3)

    assert narrow(span, "B=2").location == "Dockerfile:3:2"
    assert narrow(span, "C=2") is span
    assert narrow(span, "") is span


pieces = st.sampled_from(
    ["RUN", "COPY", "ENV", "ONBUILD", "--a=b", "<<E", "<<-'E'", "E", "\n", "\r\n", "\\\n", " ", "\t", "#", "'", '"', "[", "]",
     "((", "))", "$", "\\", "`", "# escape=`\n", "x", "\ufeff", "\f", "\u2028"]
)  # fmt: skip
texts = st.lists(pieces, max_size=40).map("".join) | st.text()


@given(text=texts)
def test_parse_nodes_raises_nothing_but_dockerfile_errors(text: str) -> None:
    """Any text is cut into nodes whose spans lie in the file, or is refused at a place in it."""
    source = SourceFile("Dockerfile", text)
    nodes: tuple[Node, ...] = ()
    fault: Span | None = Span(source=source, line=1, end_line=1)
    try:
        nodes = parse_nodes(source)
    except DockerfileError as error:
        fault = error.span

    assert fault is not None
    assert 1 <= fault.line <= fault.end_line <= max(1, len(source.lines))
    for before, after in pairwise(nodes):
        assert before.span.end_line < after.span.line
    for node in nodes:
        assert node.span.end_line <= len(source.lines)
        for word in (*split_words(node), *split_quoted_words(node), *node.flags):
            place = node.line.span_of(word)
            assert node.span.line <= place.line <= node.span.end_line
            assert place.column <= place.end_column <= len(source.lines[place.line - 1])


@given(text=texts.filter(lambda text: "<<" not in text))
def test_words_are_found_where_their_span_says(text: str) -> None:
    """A word that stands in one line is that part of the line."""
    source = SourceFile("Dockerfile", text)
    try:
        nodes = parse_nodes(source)
    except DockerfileError:
        return
    for node in nodes:
        for word in split_words(node):
            place = node.line.span_of(word)
            shown = source.lines[place.line - 1][place.column - 1 : place.end_column]
            assert word.text.startswith(shown)
