"""Expansion of variables, against the shared table and by its laws."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.lexer import MAX_NESTING
from builder.dockerfile.words import expand, expand_heredoc
from builder.errors import DockerfileError

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE = Path(__file__).parents[2] / "conformance" / "words" / "expansion.json"
CASES: list[dict[str, Any]] = json.loads(TABLE.read_text())
ENVIRONMENT = {"FOO": "xxx", "BAR": ""}

texts = st.text(st.sampled_from("${}:-+?#%/*\\'\"`<ab_1 \t\n\u00e4"), max_size=60) | st.text()
environments = st.dictionaries(st.sampled_from(["a", "b", "ab", "1", "_"]), st.text(max_size=20), max_size=4)


def environment(case: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a case."""
    return {**ENVIRONMENT, **case.get("env", {})}


@pytest.mark.parametrize("case", [case for case in CASES if "error" not in case], ids=lambda case: case["id"])
def test_expand_gives_the_text_of_the_table(case: dict[str, Any]) -> None:
    """Every operator gives what BuildKit gives, and reports the names it asked for."""
    expansion = expand(case["text"], environment(case).get, escape=case.get("escape", "\\"))

    assert expansion.text == case["result"]
    if "matched" in case:
        assert expansion.matched == frozenset(case["matched"])
    if "unmatched" in case:
        assert expansion.unmatched == frozenset(case["unmatched"])
    if "words" in case:
        assert expansion.words == tuple(case["words"])


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case], ids=lambda case: case["id"])
def test_expand_fails_with_the_message_of_the_table(case: dict[str, Any]) -> None:
    """A wrong substitution says what is wrong, what to do, and leaves the place to the caller."""
    with pytest.raises(DockerfileError, match=re.escape(case["error"])) as caught:
        expand(case["text"], environment(case).get)

    assert caught.value.span is None
    assert caught.value.hint


def test_expand_keeps_quotes_and_unset_variables_for_display() -> None:
    """With both kept, only variables that are set change."""
    expansion = expand("\"$FOO\" '$FOO' $BAZ ${BAZ} ${BAZ:-x}", ENVIRONMENT.get, keep_quotes=True, keep_unset=True)

    assert expansion.text == "\"xxx\" '$FOO' $BAZ ${BAZ} ${BAZ:-x}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('v=$FOO \\$FOO "q" it\'s\n', 'v=xxx $FOO "q" it\'s\n'),
        ("a\\\\b \\n\n", "a\\b n\n"),
        ('${BAZ:-"x"}\n', '"x"\n'),
        ("no change\n", "no change\n"),
    ],
    ids=["quotes stay", "backslash drops", "operand keeps quotes", "plain"],
)
def test_expand_heredoc_keeps_quotes(body: str, expected: str) -> None:
    """In a heredoc body variables are replaced, backslashes dropped and quotes left alone."""
    assert expand_heredoc(body, ENVIRONMENT.get).text == expected


def test_expand_refuses_deep_nesting() -> None:
    """A substitution nested deeper than the limit is an error of the text, whatever its length."""
    with pytest.raises(DockerfileError, match="nested deeper"):
        expand("${a:-" * 200_000, ENVIRONMENT.get)


def test_expand_reads_nesting_up_to_the_limit() -> None:
    """A substitution nested as deep as the limit is expanded."""
    text = '"${a:-' * (MAX_NESTING - 1) + "$FOO" + '}"' * (MAX_NESTING - 1)

    assert expand(text, ENVIRONMENT.get).text == "xxx"


@given(text=texts, variables=environments, escape=st.sampled_from("\\`"))
def test_expand_raises_nothing_but_dockerfile_errors(text: str, variables: dict[str, str], escape: str) -> None:
    """Any text either expands or is refused with a message."""
    for run in (lambda: expand(text, variables.get, escape=escape), lambda: expand_heredoc(text, variables.get)):
        try:
            expansion = run()
        except DockerfileError:
            continue
        assert re.sub(r"\s", "", "".join(expansion.words)) == re.sub(r"\s", "", expansion.text)


@given(value=st.text())
def test_expand_of_a_variable_is_its_value(value: str) -> None:
    """A value comes out as it is, in quotes and outside."""
    assert expand("${x}", {"x": value}.get).text == value
    assert expand('"$x"', {"x": value}.get).text == value


@given(word=st.text(st.characters(exclude_characters="'\0", exclude_categories=["Cs"])))
def test_expand_of_single_quotes_is_what_they_hold(word: str) -> None:
    """Single quotes protect everything but themselves."""
    assert expand(f"'{word}'", ENVIRONMENT.get).text == word


patterns = st.text(st.sampled_from("ab*?"), max_size=8)
values = st.text(st.sampled_from("ab"), max_size=12)


def expression(pattern: str) -> str:
    """Translate a shell pattern to a regular expression."""
    return "".join({"*": ".*", "?": "."}.get(character, character) for character in pattern)


@given(pattern=patterns, value=values)
def test_prefix_and_suffix_removal_agree_with_all_splits(pattern: str, value: str) -> None:
    """Removal takes the shortest or longest of all prefixes or suffixes that match, found by trying each."""
    ends = [end for end in range(len(value) + 1) if re.fullmatch(expression(pattern), value[:end])]
    starts = [start for start in range(len(value) + 1) if re.fullmatch(expression(pattern), value[start:])]
    lookup = {"v": value, "p": pattern}.get

    assert expand("${v#$p}", lookup).text == (value[ends[0] :] if ends else value)
    assert expand("${v##$p}", lookup).text == (value[ends[-1] :] if ends else value)
    assert expand("${v%$p}", lookup).text == (value[: starts[-1]] if starts else value)
    assert expand("${v%%$p}", lookup).text == (value[: starts[0]] if starts else value)


@given(pattern=patterns.filter(lambda text: bool(text.strip("*"))), value=values)
def test_replacement_agrees_with_regular_expressions(pattern: str, value: str) -> None:
    """The first match, or all, are replaced at the leftmost place and there the longest."""
    lookup = {"v": value, "p": pattern}.get

    assert expand("${v/$p/_}", lookup).text == re.sub(expression(pattern), "_", value, count=1)
    assert expand("${v//$p/_}", lookup).text == re.sub(expression(pattern), "_", value)
