"""The cache of a build as it is exported: which keys give which layers.

An exported cache is an OCI image manifest. Its `layers` are the layers as the store has them; its config says what they
answer:

    {"version": 1,
     "records": [{"key": 64 hex digits, "created": RFC 3339, "diff_id": ..., "layer": digest of the blob}],
     "mounts": [{"key": 64 hex digits, "diff_id": ..., "layer": digest of the blob}]}

A key is all there is of a step: neither its text nor the ingredients of the key are exported, since these hold build
arguments and file contents. Who imports a record has made the same key and knows both. So it is with `mounts`, which
are the contents of cache mounts as tars (`builder.solve.moved_mounts`); readers that do not know them pass them by.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from registry.errors import ManifestInvalidError
from registry.oci.canonical_json import Fields, decode_json, encode_json
from registry.oci.descriptor import Descriptor
from registry.oci.media_types import is_layer, is_nondistributable
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from registry.oci.digest import Digest

CACHE_CONFIG: Final = "application/vnd.pybuild.cache.config.v1+json"
"""The media type of the config."""

VERSION: Final = 1

_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z)?", re.ASCII)


@frozen
class CachedLayer:
    """What a key resolves to: a layer, its stored form, and the RFC 3339 time it was made, empty if nobody knows."""

    key: str
    created: str
    diff_id: Digest
    blob: Descriptor


@frozen
class CachedMount:
    """What a cache mount holds: the key it is found by, its content as tar, and the stored form of that."""

    key: str
    diff_id: Digest
    blob: Descriptor


@frozen
class ExportedCache:
    """What is in one exported cache."""

    records: tuple[CachedLayer, ...]
    mounts: tuple[CachedMount, ...] = ()

    def layers(self) -> tuple[Descriptor, ...]:
        """List the layers of its manifest, each once."""
        blobs = [record.blob for record in self.records] + [mount.blob for mount in self.mounts]
        return tuple({blob.digest: blob for blob in blobs}.values())

    def to_bytes(self) -> bytes:
        """Return the config; the same cache gives the same bytes."""
        value: dict[str, Any] = {
            "version": VERSION,
            "records": [
                {"key": record.key, "created": record.created, "diff_id": record.diff_id, "layer": record.blob.digest}
                for record in self.records
            ],
        }
        if self.mounts:
            value["mounts"] = [
                {"key": mount.key, "diff_id": mount.diff_id, "layer": mount.blob.digest} for mount in self.mounts
            ]
        return encode_json(value)

    @staticmethod
    def from_bytes(data: bytes, layers: Sequence[Descriptor], *, subject: str) -> ExportedCache:
        """Read the config of an exported cache.

        Args:
            data: the whole config.
            layers: those of the manifest; nothing but media type, digest and size of them counts.
            subject: whose config it is, for errors.

        Raises:
            ManifestInvalidError: not such a config, or it names a layer that the manifest lacks.
        """
        fields = Fields(decode_json(data, subject=subject), subject=subject)
        if fields.take_integer("version") != VERSION:
            raise fields.error("version", f"expected {VERSION}")
        known = stored_layers(layers)

        def take(name: str) -> Iterator[Fields]:
            return (Fields(value, subject=subject, path=path) for path, value in fields.take_values(name))

        return ExportedCache(
            records=tuple(_read_record(record, known) for record in take("records")),
            mounts=tuple(_read_mount(mount, known) for mount in take("mounts")),
        )


def stored_layers(layers: Iterable[Descriptor]) -> dict[Digest, Descriptor]:
    """Give, by digest, those of some descriptors that are layers a registry keeps, reduced to what names them."""
    return {
        layer.digest: Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        for layer in layers
        if is_layer(layer.media_type) and not is_nondistributable(layer.media_type)
    }


def read_key(fields: Fields) -> str:
    """Take the key of a record.

    Raises:
        ManifestInvalidError: it is none.
    """
    key = fields.require_text("key")
    if not _KEY.fullmatch(key):
        raise fields.error("key", "expected 64 hex digits")
    return key


def read_time(text: str) -> str:
    """Give a time of an image config as records have it; the empty text if it is not in UTC."""
    return text if _TIME.fullmatch(text) else ""


def _read_record(fields: Fields, layers: Mapping[Digest, Descriptor]) -> CachedLayer:
    key, created = read_key(fields), fields.require_text("created")
    if created != read_time(created):
        raise fields.error("created", "expected a time in UTC")
    blob = _read_blob(fields, layers)
    return CachedLayer(key=key, created=created, diff_id=fields.take_digest("diff_id"), blob=blob)


def _read_mount(fields: Fields, layers: Mapping[Digest, Descriptor]) -> CachedMount:
    blob = _read_blob(fields, layers)
    return CachedMount(key=read_key(fields), diff_id=fields.take_digest("diff_id"), blob=blob)


def _read_blob(fields: Fields, layers: Mapping[Digest, Descriptor]) -> Descriptor:
    blob = layers.get(fields.take_digest("layer"))
    if blob is None:
        raise fields.error("layer", "the manifest has no such layer")
    return blob


def check_config(config: Descriptor, *, subject: str) -> None:
    """Refuse what is no exported cache.

    Raises:
        ManifestInvalidError: the config is that of something else.
    """
    if config.media_type != CACHE_CONFIG:
        reason = f"not a cache of pybuild but {config.media_type}"
        raise ManifestInvalidError(subject=subject, path="config.mediaType", reason=reason)
