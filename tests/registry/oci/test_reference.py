"""References: the table shared with other tools, and the laws of the two written forms."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ReferenceInvalidError
from registry.oci.digest import Digest, digest_of
from registry.oci.reference import Reference, parse_reference

CASES = json.loads((Path(__file__).parents[2] / "conformance" / "references.json").read_text(encoding="utf-8"))
VALID = [pytest.param(case["text"], case["canonical"], case["familiar"], id=case["text"]) for case in CASES["valid"]]
INVALID = [
    pytest.param(case["text"], case["reason"], case.get("hint"), id=case["text"] or "empty")
    for case in CASES["invalid"]
]

words = st.from_regex(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda word: len(word) < 60)
repositories = st.lists(words, min_size=1, max_size=3).map("/".join)
registries = st.sampled_from(
    ["docker.io", "ghcr.io", "localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "UPPER", "a.b-c.d:1"]
)
tags = st.none() | st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=128).filter(
    lambda tag: tag[0] not in ".-"
)
digests: st.SearchStrategy[Digest | None] = st.none() | st.binary(max_size=4).map(digest_of)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    """References with every combination of parts."""
    registry, repository = draw(registries), draw(repositories)
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, draw(tags), draw(digests))


@pytest.mark.parametrize(("text", "canonical", "familiar"), VALID)
def test_reference_is_read_as_other_tools_read_it(text: str, canonical: str, familiar: str) -> None:
    """A text gives the canonical and familiar forms of the shared table."""
    reference = parse_reference(text)

    assert (str(reference), reference.familiar()) == (canonical, familiar)


@pytest.mark.parametrize(("text", "reason", "hint"), INVALID)
def test_reference_that_breaks_the_grammar_is_refused(text: str, reason: str, hint: str | None) -> None:
    """The error says which part is wrong, and shows a near spelling where there is one."""
    with pytest.raises(ReferenceInvalidError) as caught:
        parse_reference(text)

    assert reason in caught.value.message
    assert hint is None or hint in str(caught.value.hint)
    assert caught.value.exit_code == 2


@given(references())
def test_reference_written_in_either_form_is_read_back(reference: Reference) -> None:
    """Both forms of a reference are read back as that reference."""
    assert parse_reference(str(reference), default_tag=None) == reference
    assert parse_reference(reference.familiar(), default_tag=None) == reference


@given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9./:@_-]{0,60}"))
def test_reference_text_is_read_or_refused_with_its_own_error(text: str) -> None:
    """No text makes the parser fail in another way, and what it reads is stable."""
    try:
        reference = parse_reference(text)
    except ReferenceInvalidError:
        return

    assert parse_reference(str(reference)) == reference


def test_reference_without_tag_keeps_none_when_no_default_is_wanted() -> None:
    """With default_tag None nothing is added."""
    assert parse_reference("alpine", default_tag=None).tag is None


def test_reference_with_digest_gets_no_default_tag() -> None:
    """A digest says which image, so `latest` would be a lie."""
    assert parse_reference(f"alpine@{digest_of(b'')}").tag is None


def test_reference_with_tag_drops_the_digest() -> None:
    """A new tag names something else than the old digest."""
    reference = parse_reference(f"alpine:1@{digest_of(b'')}")

    assert reference.with_tag("2") == Reference("docker.io", "library/alpine", "2")


def test_reference_with_tag_refuses_what_is_no_tag() -> None:
    """with_tag checks as the parser does."""
    with pytest.raises(ReferenceInvalidError, match="a tag has letters"):
        parse_reference("alpine").with_tag("a/b")


def test_reference_with_digest_keeps_the_tag() -> None:
    """The tag stays for people."""
    assert parse_reference("alpine:1").with_digest(digest_of(b"")).familiar() == f"alpine:1@{digest_of(b'')}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("a" * 256, "at most 255", id="repository"),
        pytest.param("a:" + "t" * 129, "at most 128", id="tag"),
    ],
)
def test_reference_part_that_is_too_long_is_refused(text: str, reason: str) -> None:
    """Lengths are those registries accept."""
    with pytest.raises(ReferenceInvalidError, match=reason):
        parse_reference(text)
