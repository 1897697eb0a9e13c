"""In-toto statements: a predicate, and the subjects it is said of.

A *predicate* is a JSON object of a type that a URI names. A *subject* is a name with digests. An *attestation* is a
predicate that has no subjects yet, or its own, with the name of the file it is written to where there is no image.

Source: in-toto attestation framework, spec/v1/statement.md; BuildKit, exporter/attestation/make.go.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from builder.errors import AttestationError
from registry.oci.digest import digest_algorithm, digest_hex
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.oci.digest import Digest

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
READABLE_TYPES: Final = frozenset({STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1"})
"""Types of statements that generators may write; both have the same fields."""

SPDX: Final = "https://spdx.dev/Document"
PROVENANCE_PREFIX: Final = "https://slsa.dev/provenance/"

MAX_SIZE: Final = 40 << 20
"""Longest statement, in bytes. Source: BuildKit, exporter/attestation/make.go."""


@frozen
class Subject:
    """What a statement is about: a package URL, or a path in the result, with its digests by algorithm."""

    name: str
    digest: Mapping[str, str]

    @classmethod
    def of(cls, name: str, digest: Digest) -> Subject:
        """Return the subject of one digest."""
        return cls(name=name, digest={digest_algorithm(digest): digest_hex(digest)})


@frozen
class Attestation:
    """A predicate and its type. *subjects*, where it has its own, replace those it is given; *file* is a file name."""

    predicate_type: str
    predicate: Mapping[str, Any]
    file: str
    subjects: tuple[Subject, ...] = ()


def encode_statement(attestation: Attestation, subjects: Sequence[Subject], *, indent: int | None = None) -> bytes:
    """Return the bytes of a statement; the same values always give the same.

    Args:
        attestation: what is said.
        subjects: what of, unless the attestation has its own.
        indent: blanks a level, None for one line.

    Raises:
        AttestationError: it is longer than a statement may be.
    """
    value = {
        "_type": STATEMENT_TYPE,
        "predicateType": attestation.predicate_type,
        "subject": [{"name": one.name, "digest": dict(one.digest)} for one in attestation.subjects or subjects],
        "predicate": attestation.predicate,
    }
    separators = (",", ":") if indent is None else None
    data = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    encoded = data.encode("utf-8", "backslashreplace")
    if len(encoded) > MAX_SIZE:
        raise AttestationError(
            f"attestation {attestation.file} is larger than {MAX_SIZE >> 20} MiB",
            hint="attest less: --provenance=mode=min, or fewer stages to scan",
        )
    return encoded
