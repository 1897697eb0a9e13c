"""Digests: the names of blobs.

A digest is the text `<algorithm>:<lower-case hex>`. sha256 is what everything here writes; sha512 is read as well.

Source: image-spec, descriptor.md, section Digests.
"""

from __future__ import annotations

from registry.errors import DigestInvalidError
from registry.hashing import new_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NewType

    Digest = NewType("Digest", str)
else:
    Digest = str
"""Checked text of a digest. Only `parse_digest` and `digest_of` make one, so it is safe as a part of a path."""

HEX_LENGTHS: Final = {"sha256": 64, "sha512": 128}
"""Algorithms that are understood, with the number of hex digits each has."""

HEX_DIGITS: Final = "0123456789abcdef"


def parse_digest(text: str) -> Digest:
    """Check the text of a digest.

    Raises:
        DigestInvalidError: not `algorithm:hex`, an unknown algorithm, or hex of the wrong length or in upper case.
    """
    fault = _find_fault(text)
    if fault is not None:
        raise DigestInvalidError(_shorten(text), fault)
    return Digest(text)


def digest_of(data: bytes, algorithm: str = "sha256") -> Digest:
    """Return the digest of *data* by an algorithm, a key of `HEX_LENGTHS`."""
    state = new_hash(algorithm, len(data))
    state.update(data)
    return Digest(f"{algorithm}:{state.hexdigest()}")


def digest_hex(digest: Digest) -> str:
    """Return the hex digits of *digest*."""
    return digest.partition(":")[2]


def digest_algorithm(digest: Digest) -> str:
    """Return the algorithm of *digest*, a key of `HEX_LENGTHS` that `hashlib.new` knows."""
    return digest.partition(":")[0]


def _find_fault(text: str) -> str | None:
    algorithm, colon, digits = text.partition(":")
    if not colon:
        return "no colon between algorithm and hex"
    length = HEX_LENGTHS.get(algorithm)
    if length is None:
        return "algorithm is neither sha256 nor sha512"
    if len(digits) != length:
        return f"{algorithm} has {length} hex digits, not {len(digits)}"
    return "hex digits are 0-9 and a-f in lower case" if digits.strip(HEX_DIGITS) else None


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"
