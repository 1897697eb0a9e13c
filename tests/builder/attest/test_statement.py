"""In-toto statements."""

import json

import pytest

from builder.attest.statement import MAX_SIZE, Attestation, Subject, encode_statement
from builder.errors import AttestationError
from registry.oci.digest import digest_of

SUBJECT = Subject.of("app", digest_of(b""))


def attestation(**fields):
    """Make an attestation."""
    return Attestation(**{"predicate_type": "https://example.com/p", "predicate": {"a": 1}, "file": "f.json", **fields})


def test_statement_has_the_subjects_it_is_given():
    """All four fields, in one line."""
    data = encode_statement(attestation(), [SUBJECT])

    assert b"\n" not in data
    assert json.loads(data) == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://example.com/p",
        "subject": [{"name": "app", "digest": {"sha256": digest_of(b"").partition(":")[2]}}],
        "predicate": {"a": 1},
    }


def test_subjects_of_its_own_win():
    """What says what it is about keeps that."""
    own = Subject(name="other", digest={"sha1": "12"})

    assert json.loads(encode_statement(attestation(subjects=(own,)), [SUBJECT]))["subject"] == [
        {"name": "other", "digest": {"sha1": "12"}}
    ]


def test_statement_for_people_is_indented():
    """Beside files it is to be read."""
    assert b'\n  "_type"' in encode_statement(attestation(), [SUBJECT], indent=2)


def test_statement_has_a_limit():
    """A longer one is refused with what would help."""
    with pytest.raises(AttestationError, match=r"attestation f\.json is larger than 40 MiB"):
        encode_statement(attestation(predicate={"a": "x" * MAX_SIZE}), [SUBJECT])
