"""Early cut-off beside times: a step that is done again and gives an earlier layer but for times after the epoch.

With SOURCE_DATE_EPOCH, times after it do not count. A layer that a command makes is then compared without them with the
layers that were made before; if one is the same, it takes the place of the new one, to the byte, and what was built on
it stays cached. Keys do not know of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from builder.cache.key import derive_key
from builder.cache.state import Record
from registry.value import replace

if TYPE_CHECKING:
    from builder.image.assemble import Layer
    from builder.solve.filesystem import FileSystems
    from builder.store import Store
    from registry.oci.digest import Digest

_NAME: Final = "same but for times"


def find_same_layer(layer: Layer, clamped: Digest, epoch: int, store: Store, file_systems: FileSystems) -> Layer | None:
    """Find a layer that was made before and differs in nothing but times after the epoch.

    Where there is none, the new one is it for the next time.

    Args:
        layer: was made just now.
        clamped: its diff_id with no times after the epoch.
        epoch: in seconds.
        store: has both.
        file_systems: tells which layers are there.

    Returns:
        The earlier layer, with the time at which the new one was made; None if there is none but the new one.
    """
    ingredients = (("op", _NAME), ("diff_id", str(clamped)), ("epoch", str(epoch)))
    key = derive_key(ingredients)
    known = store.state.find_answer(key)
    if known is not None and file_systems.find_blob(known[0]) is not None:
        store.state.touch_records([key])
        return None if known[0] == layer.diff_id else replace(layer, diff_id=known[0])
    record = Record(
        key=key, op=key, diff_id=layer.diff_id, created=layer.created or "", name=_NAME, ingredients=ingredients
    )
    store.state.put_record(record)
    return None
