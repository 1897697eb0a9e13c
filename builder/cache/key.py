"""Cache keys: the question a step asks of the cache.

A key is the sha256 of what goes into a step, its *ingredients*: an ordered list of (name, value) pairs, written as JSON
so that no two lists read the same. The file system below a step enters by its content (chain_id), never by the key of
the step that made it: a step that was done again and gave the same bytes leaves everything after it cached. Ingredients
are kept with the record, so that a miss can be explained.

Source: what enters and what does not follows BuildKit's CacheMap of each op; spec, section 3.5.
"""

from __future__ import annotations

from json import JSONEncoder

from registry.hashing import small_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KEY_VERSION = b"pybuild-key-2"
"""Part of every key; changed when keys or the rules of layer making change, which empties the cache in effect."""

Ingredient = tuple[str, str]
"""Name and value of one thing that decides a step's result."""

_encode = JSONEncoder(separators=(",", ":")).encode


def derive_key(ingredients: Iterable[Ingredient]) -> str:
    """Hash *ingredients* to a key, as 64 hex digits."""
    return small_sha256(KEY_VERSION + _encode(list(ingredients)).encode("ascii")).hexdigest()
