"""Digests: what is one, and what never becomes a part of a path."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import DigestInvalidError
from registry.oci.digest import digest_algorithm, digest_hex, digest_of, parse_digest

HEX = hashlib.sha256(b"").hexdigest()


@given(st.binary(max_size=100))
def test_digest_of_bytes_is_read_back(data: bytes) -> None:
    """The digest of any bytes is a valid text that falls apart into algorithm and hex."""
    digest = digest_of(data)

    assert parse_digest(digest) == digest
    assert (digest_algorithm(digest), digest_hex(digest)) == ("sha256", hashlib.sha256(data).hexdigest())


def test_digest_sha512_is_read() -> None:
    """The specification's other algorithm is accepted."""
    text = "sha512:" + hashlib.sha512(b"").hexdigest()

    assert parse_digest(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "no colon", id="empty"),
        pytest.param(HEX, "no colon", id="bare hex"),
        pytest.param("md5:d41d8cd98f00b204e9800998ecf8427e", "algorithm is neither", id="other algorithm"),
        pytest.param("sha256:" + HEX[:-1], "64 hex digits, not 63", id="short"),
        pytest.param("sha512:" + HEX, "128 hex digits, not 64", id="length of the other algorithm"),
        pytest.param("sha256:" + HEX.upper(), "lower case", id="upper case"),
        pytest.param("sha256:" + HEX + "\n", "64 hex digits, not 65", id="newline"),
        pytest.param("sha256:" + "../" * 21 + "x", "lower case", id="path"),
        pytest.param("../sha256:" + HEX, "algorithm is neither", id="path before"),
        pytest.param("sha256:" + "٣" * 64, "lower case", id="digits of another script"),
        pytest.param("sha256:" + "a" * 10**6, "not 1000000", id="huge"),
    ],
)
def test_digest_that_is_malformed_is_refused(text: str, reason: str) -> None:
    """The error says what is wrong and stays short."""
    with pytest.raises(DigestInvalidError, match=reason) as caught:
        parse_digest(text)

    assert len(caught.value.message) < 400


@given(st.text(max_size=100))
def test_digest_text_is_valid_or_refused_with_its_own_error(text: str) -> None:
    """No text makes the parser fail in another way."""
    try:
        digest = parse_digest(text)
    except DigestInvalidError:
        return

    assert digest_hex(digest).isalnum()
