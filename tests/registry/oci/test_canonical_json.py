"""JSON: stable bytes out, nothing hostile in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError
from registry.oci.canonical_json import MAX_DEPTH, Fields, decode_json, encode_json

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=10
)  # fmt: skip


@given(values)
def test_json_written_is_read_back(value: object) -> None:
    """Every value survives."""
    assert decode_json(encode_json(value), subject="document") == value


def test_json_is_indented_by_two_spaces_and_has_no_escapes() -> None:
    """The form is BuildKit's, except that text stays readable."""
    assert encode_json({"b": ["ä<&"], "a": {}}) == '{\n  "b": [\n    "ä<&"\n  ],\n  "a": {}\n}'.encode()


def test_json_with_bytes_that_are_no_text_is_still_json() -> None:
    """A surrogate-escaped byte becomes an escape that is read back."""
    data = encode_json(["A=\udcff"])

    assert data.decode("utf-8") == '[\n  "A=\\udcff"\n]'
    assert json.loads(data) == ["A=\udcff"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"{", "not JSON", id="truncated"),
        pytest.param(b"\xff\xfe", "not JSON", id="not UTF-8"),
        pytest.param(b"[NaN]", "NaN is not a number", id="NaN"),
        pytest.param(b"[-Infinity]", "is not a number", id="Infinity"),
        pytest.param(b"[" + b"9" * 5000 + b"]", "not JSON", id="number of 5000 digits"),
        pytest.param(b"[" * 200_000, "nested too deeply", id="nesting that is open"),
        pytest.param(b"[" * 200_000 + b"]" * 200_000, "nested too deeply", id="nesting"),
        pytest.param(b'{"a":' * 150 + b"1" + b"}" * 150, "nested too deeply", id="nesting that Python takes"),
        pytest.param(b"{}{}", "not JSON", id="two documents"),
    ],
)
def test_json_that_is_hostile_is_refused(data: bytes, reason: str) -> None:
    """Nothing but the package's own error comes out."""
    with pytest.raises(ManifestInvalidError, match=reason):
        decode_json(data, subject="document")


def test_json_nested_to_the_limit_is_read_and_written() -> None:
    """The limit itself is allowed, and writing copes with it."""
    data = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH

    assert json.loads(encode_json(decode_json(data, subject="document"))) == json.loads(data)


@pytest.mark.parametrize("value", [None, [], "x", 1, True, 1.5], ids=repr)
def test_fields_of_something_else_are_refused(value: object) -> None:
    """Only an object has fields."""
    with pytest.raises(ManifestInvalidError, match=r"expected an object, found .*: `config`"):
        Fields(value, subject="document", path="config")


def test_fields_name_the_path_of_a_wrong_value() -> None:
    """The error leads to the place."""
    inner = Fields({"a": {"b": ["x", 1]}}, subject="document").take_object("a")

    assert inner is not None
    with pytest.raises(ManifestInvalidError, match="expected a string, found a number") as caught:
        inner.take_texts("b")
    assert caught.value.path == "a.b[1]"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(-1, "out of range", id="negative"),
        pytest.param(2**63, "out of range", id="huge"),
        pytest.param(True, "found a boolean", id="boolean"),
        pytest.param(1.0, "found a number", id="float"),
        pytest.param("1", "found a string", id="text"),
    ],
)
def test_fields_integer_of_wrong_shape_is_refused(value: object, reason: str) -> None:
    """Sizes are whole numbers that Go's int64 holds."""
    with pytest.raises(ManifestInvalidError, match=reason):
        Fields({"size": value}, subject="document").take_integer("size", minimum=0)
