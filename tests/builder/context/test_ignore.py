"""The language of `.dockerignore`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.context.ignore import compile_patterns, parse_ignore
from builder.errors import ContextError

CASES = Path(__file__).parents[2] / "conformance" / "ignore" / "patterns.txt"


def _cases():
    for line in CASES.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            verdict, path, *patterns = line.split("\t")
            yield pytest.param(verdict == "ignored", path, patterns, id=f"{verdict}-{path}-{patterns}")


@pytest.mark.parametrize(("ignored", "path", "patterns"), list(_cases()))
def test_rules_decide_as_the_table_says(ignored, path, patterns):
    """Each case of the conformance table has its verdict."""
    rules = parse_ignore("\n".join(patterns), ".dockerignore")

    assert rules.matches(path.encode()) is ignored


@pytest.mark.parametrize(
    "pattern",
    ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a[]", "[z-a]", "**/[", "a/[/b"],
)
def test_wrong_pattern_is_refused_with_its_line(pattern):
    """A pattern that Go's filepath.Match refuses is an error that names the line."""
    with pytest.raises(ContextError, match="syntax error in pattern") as caught:
        parse_ignore(f"# comment\nfoo\n{pattern}\n", ".dockerignore")

    assert caught.value.span is not None
    assert caught.value.span.location == ".dockerignore:3"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("line", ["!", "  !  ", "!/", "! "])
def test_lone_exclamation_mark_is_refused(line):
    """A `!` without a pattern is an error."""
    with pytest.raises(ContextError, match='illegal exclusion pattern: "!"'):
        parse_ignore(line, ".dockerignore")


def test_comments_count_only_in_the_first_column():
    """An indented `#` begins a pattern, one in the first column a comment."""
    rules = parse_ignore("#a\n #b\n", ".dockerignore")

    assert [rule.pattern for rule in rules.rules] == ["#b"]


def test_byte_order_mark_blanks_and_line_ends_are_dropped():
    """A BOM, blank lines, blanks around a pattern and carriage returns do not matter."""
    rules = parse_ignore("\ufeff foo \r\n\r\n\t\n!foo/bar\r\n", ".dockerignore")

    assert [str(rule) for rule in rules.rules] == ["foo", "!foo/bar"]


def test_explain_names_the_line_that_decides():
    """The deciding rule is the last that matches, also one of a directory above."""
    rules = parse_ignore("a\n!a/b\na/b/c\n", "context/.dockerignore")

    assert rules.explain(b"other") is None
    assert rules.explain(b"a/x").span.location == "context/.dockerignore:1"
    assert rules.explain(b"a/b/d").span.line == 2
    assert rules.explain(b"a/b/c/d").span.line == 3


def test_root_is_never_ignored():
    """Not even `**` hides the context itself."""
    assert not parse_ignore("**\n.\n", ".dockerignore").matches(b"")


@pytest.mark.parametrize(
    ("patterns", "path", "opens"),
    [
        (["node_modules"], "node_modules", False),
        (["node_modules", "!node_modules/keep"], "node_modules", True),
        (["node_modules", "!src/keep"], "node_modules", False),
        (["!a/keep", "a"], "a", False),
        (["*", "!**/keep"], "a", True),
        (["*", "!a/b*/keep"], "a/bcd", True),
        (["*", "!a/b*/keep"], "a/c", False),
        (["a", "!a/b/c"], "a/b/c/d", False),
    ],
)
def test_ignored_directory_is_entered_only_when_a_later_rule_may_keep_something(patterns, path, opens):
    """An excluded directory is skipped unless a later `!` rule can match below it."""
    assert compile_patterns(patterns).may_reopen(path.encode()) is opens


def test_names_that_are_no_text_are_matched():
    """Bytes that are not UTF-8 count as characters."""
    rules = parse_ignore("a?b\n*.\udcff\n", ".dockerignore")

    assert rules.matches(b"a\xffb")
    assert rules.matches(b"x.\xff")
    assert not rules.matches(b"a\xff\xffb")


_names = st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
_paths = st.lists(_names, min_size=1, max_size=4).map("/".join)


def _is_easy(pattern):
    """Tell whether a pattern is no such one as `test_pattern_that_needs_too_much_trying_is_refused` is about."""
    try:
        compile_patterns([pattern])
    except ContextError as error:
        return "every length" not in error.message
    return True


_pieces = st.sampled_from(["a", "b", ".", "*", "?", "**", "[ab]", "[^a]", "\\a", "\\*"])
_pattern_names = st.lists(_pieces, min_size=1, max_size=6).map("".join)
_patterns = st.builds(
    lambda sign, parts: sign + "/".join(parts),
    st.sampled_from(["", "!"]),
    st.lists(_pattern_names, min_size=1, max_size=4),
).filter(_is_easy)


def _slow_matches(patterns, path):
    """Decide by trying every pattern on the path and every directory above it, one after the other."""
    ignored = False
    parts = path.split("/")
    candidates = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for rule in compile_patterns(patterns).rules:
        if any(_slow_match(rule.pattern, candidate) for candidate in candidates):
            ignored = not rule.keeps
    return ignored


def _slow_match(pattern, path):
    """Match by walking both texts, following the cases of patternmatcher one by one."""
    plain_head = not any(character in pattern.rstrip("*") for character in "*?[\\")
    if pattern.endswith("**") and plain_head and pattern != "**":
        return path.startswith(pattern[:-2].rstrip("*") if pattern[:-2].endswith("*") else pattern[:-2])
    rest = pattern[2:]
    if pattern.startswith("**") and not any(character in rest for character in "*?[\\"):
        return path.endswith(rest) or (rest.startswith("/") and path == rest[1:])
    return _tokens_match(tuple(re.findall(r"\*\*/?|\*|\?|\[[^\]]*\]|\\.|.", pattern, re.DOTALL)), path)


@cache
def _tokens_match(tokens, text):
    if not tokens:
        return not text
    token, rest = tokens[0], tokens[1:]
    if token.startswith("**"):
        if not rest:
            return True
        return _tokens_match(rest, text) or any(
            _tokens_match(rest, text[at + 1 :]) for at, character in enumerate(text) if character == "/"
        )
    if token == "*":
        stop = text.find("/")
        stop = len(text) if stop < 0 else stop
        return any(_tokens_match(rest, text[at:]) for at in range(stop + 1))
    if not text:
        return False
    if token == "?":
        return text[0] != "/" and _tokens_match(rest, text[1:])
    if token.startswith("[^"):
        return text[0] not in token[2:-1] and _tokens_match(rest, text[1:])
    if token.startswith("["):
        return text[0] in token[1:-1] and _tokens_match(rest, text[1:])
    return text[0] == token[-1] and _tokens_match(rest, text[1:])


@given(st.lists(_patterns, max_size=5), st.lists(_paths, max_size=8))
def test_rules_agree_with_a_slow_reference(patterns, paths):
    """Compiled rules decide as trying each pattern on each directory does, whatever was asked before."""
    rules = compile_patterns(patterns)

    assert [rules.matches(path.encode()) for path in paths] == [_slow_matches(patterns, path) for path in paths]


@given(st.lists(_patterns, max_size=5), _paths)
def test_directory_that_is_not_entered_holds_nothing_kept(patterns, path):
    """If an ignored directory cannot be reopened, everything below it is ignored."""
    rules = compile_patterns(patterns)
    folders = path.split("/")
    for count in range(1, len(folders)):
        folder = "/".join(folders[:count]).encode()
        if rules.matches(folder) and not rules.may_reopen(folder):
            assert rules.matches(path.encode())


@given(st.text())
def test_any_text_is_read_or_refused_as_a_context_error(text):
    """No ignore file gives a traceback."""
    try:
        rules = parse_ignore(text, ".dockerignore")
    except ContextError:
        return

    assert rules.matches(b"some/path") in {True, False}


def test_pattern_that_cannot_be_a_path_is_refused():
    """A surrogate from a JSON escape is an error, not a traceback."""
    with pytest.raises(ContextError, match="pattern cannot be a path"):
        compile_patterns(["a\ud800"])


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 40 + "b", "**/a*/" * 40 + "b", "**/" * 500 + "b", "*" * 500 + "b", "x/" + "*a?[ac]" * 40 + "b"],
    ids=["stars", "folders", "nothing but folders", "nothing but stars", "classes"],
)
def test_wildcards_of_a_pattern_are_not_multiplied(pattern):
    """Trying every length of each star would take longer than there is time; a long path is answered nevertheless."""
    rules = compile_patterns([pattern, "!" + pattern + "c"])

    assert not rules.matches(b"/".join([b"a" * 200] * 40))
    assert not rules.matches(b"x/" + b"a" * 250)


@pytest.mark.parametrize("pattern", ["a**a**a**a**a**b", "*[^a]*[^b]*[^c]*[^d]*[^e]*f"])
def test_pattern_that_needs_too_much_trying_is_refused(pattern):
    """Only wildcards that meet in the middle of a name have to be tried in every length."""
    with pytest.raises(ContextError, match="more than 3 wildcards of which every length has to be tried"):
        compile_patterns([pattern])
