"""A cache within an image: one more field of the image config, which answers the steps of this image.

    "vnd.pybuild.cache.v1": {"version": 1, "records": [{"key": 64 hex digits, "layer": position in diff_ids}]}

When a layer was made stands in the history. Configs hand unknown fields of their base on; a cache is not, since it is
that of the base. BuildKit's own field for the same is dropped as well.

Source: BuildKit, cache/remotecache/inline/inline.go, for `moby.buildkit.cache.v0`.
"""

from __future__ import annotations

from registry.errors import ManifestInvalidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Final

    from builder.cache.document import CachedLayer
    from registry.oci.descriptor import Descriptor
    from registry.oci.image_config import ImageConfig

FIELD: Final = "vnd.pybuild.cache.v1"

VERSION: Final = 1

_OF_A_BASE: Final = frozenset({FIELD, "moby.buildkit.cache.v0"})


def drop_inline_cache(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Give the unknown fields of a config without those that are a cache."""
    return {name: value for name, value in extra.items() if name not in _OF_A_BASE}


def inline_cache(keys: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """Give the field of some keys, each with the position of its layer; the same keys give the same value."""
    return {FIELD: {"version": VERSION, "records": [{"key": key, "layer": layer} for key, layer in sorted(keys)]}}


def read_inline_cache(config: ImageConfig, layers: Sequence[Descriptor], *, subject: str) -> tuple[CachedLayer, ...]:
    """Read the cache within an image.

    Args:
        config: of the image.
        layers: those of its manifest; nothing but media type, digest and size of them counts.
        subject: whose config it is, for errors.

    Raises:
        ManifestInvalidError: there is none in it, or it breaks the form, or config and layers differ in number.
    """
    from builder.cache.document import CachedLayer, read_key, read_time, stored_layers  # noqa: PLC0415  only to read
    from registry.oci.canonical_json import Fields  # noqa: PLC0415  as above

    if FIELD not in config.extra:
        raise ManifestInvalidError(subject=subject, path="", reason="the image has no cache of pybuild in it")
    fields = Fields(config.extra[FIELD], subject=subject, path=FIELD)
    if fields.take_integer("version") != VERSION:
        raise fields.error("version", f"expected {VERSION}")
    if len(layers) != len(config.diff_ids):
        raise ManifestInvalidError(subject=subject, path="layers", reason="not as many as the config has diff_ids")
    known = stored_layers(layers)
    times = [entry.created or "" for entry in config.history if not entry.empty_layer]
    if len(times) != len(layers):
        times = [""] * len(layers)
    found: list[CachedLayer] = []
    for path, value in fields.take_values("records"):
        record = Fields(value, subject=subject, path=path)
        position = record.take_integer("layer")
        if position is None or not 0 <= position < len(layers) or layers[position].digest not in known:
            raise record.error("layer", "the image has no such layer")
        found.append(
            CachedLayer(
                key=read_key(record),
                created=read_time(times[position]),
                diff_id=config.diff_ids[position],
                blob=known[layers[position].digest],
            )
        )
    return tuple(found)
