"""SHA-256 of what is small.

`hashlib` loads OpenSSL, which takes a tenth of the time in which a build that is cached has ended, and hashes several
times as fast. Below some kilobytes CPython's own function is as good; its `random` takes that in the same way.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash as HASH
    from hashlib import sha256 as small_sha256
    from typing import Final
else:
    try:
        from _sha2 import sha256 as small_sha256  # from CPython 3.12 on
    except ImportError:
        try:
            from _sha256 import sha256 as small_sha256
        except ImportError:  # no promise that one of them is there
            from hashlib import sha256 as small_sha256

__all__ = ["new_hash", "small_sha256"]

_SMALL: Final = 64 * 1024


def new_hash(algorithm: str, size: int | None) -> HASH:
    """Return what hashes so many bytes soonest.

    Args:
        algorithm: as `hashlib.new` knows it.
        size: about how many bytes it will be given, None for many.
    """
    if algorithm == "sha256" and size is not None and size <= _SMALL:
        return small_sha256()
    import hashlib  # noqa: PLC0415  takes longer than to hash what is small

    return hashlib.new(algorithm)
