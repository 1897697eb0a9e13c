"""Manifests and indexes.

A manifest names the config and the layers, base first, of one platform's image; an index names manifests. Both are
read in OCI's and in Docker's schema 2 form. Bytes that were read are stored as they came: their digest is the name of
the image, so nothing here rewrites a document it did not make.

Source: image-spec, manifest.md and image-index.md; CVE-2021-41190 for documents that are both.
"""

from __future__ import annotations

from registry.errors import ManifestInvalidError
from registry.oci.canonical_json import Fields, decode_json, encode_json
from registry.oci.descriptor import Descriptor
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST, is_index, is_manifest, is_schema_1
from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

MAX_DOCUMENT_SIZE: Final = 4 * 1024 * 1024
"""Longest manifest, index or config that is read, in bytes. Source: distribution-spec, Pushing Manifests."""


@frozen
class Manifest:
    """One platform's image.

    *layers* are base first. *extra* holds unknown fields and those nothing here acts on (`artifactType`, `subject`).
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_bytes(data: bytes, *, subject: str) -> Manifest:
        """Read a manifest; null counts as no layers.

        Raises:
            ManifestInvalidError: not a manifest, or one that breaks the specification.
        """
        return _manifest_from_json(decode_json(data, subject=subject), OCI_MANIFEST, subject=subject)

    def to_bytes(self) -> bytes:
        """Return the document, keys in the specification's order."""
        extra = dict(self.extra)
        value: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if "artifactType" in extra:
            value["artifactType"] = extra.pop("artifactType")
        value["config"] = self.config.to_json()
        value["layers"] = [layer.to_json() for layer in self.layers]
        return _encode_document(value, extra, self.annotations)


@frozen
class Index:
    """A list of manifests, one per platform, most wanted first; attestations and further indexes may be among them."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_bytes(data: bytes, *, subject: str) -> Index:
        """Read an index; null counts as no manifests.

        Raises:
            ManifestInvalidError: not an index, or one that breaks the specification.
        """
        return _index_from_json(decode_json(data, subject=subject), OCI_INDEX, subject=subject)

    def to_bytes(self) -> bytes:
        """Return the document, keys in the specification's order."""
        extra = dict(self.extra)
        value: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if "artifactType" in extra:
            value["artifactType"] = extra.pop("artifactType")
        value["manifests"] = [manifest.to_json() for manifest in self.manifests]
        return _encode_document(value, extra, self.annotations)


def parse_manifest(data: bytes, media_type: str | None, *, subject: str) -> Manifest | Index:
    """Read a document that is a manifest or an index.

    Args:
        data: the whole document.
        media_type: what the descriptor or the registry's answer says it is. None, or a media type that names neither,
            leaves it to the document: its `mediaType`, else which of `manifests` and `config` it has.
        subject: whose document it is, for errors.

    Raises:
        ManifestInvalidError: not JSON, Docker schema 1, both manifest and index, another media type inside than
            outside, or a broken field.
    """
    value = decode_json(data, subject=subject)
    outside = (media_type or "").partition(";")[0].strip()
    if is_schema_1(outside):
        raise _schema_1_error(subject)
    if not isinstance(value, dict):
        raise ManifestInvalidError(subject=subject, path="", reason="expected an object")
    inside = value.get("mediaType")
    known = is_manifest(outside) or is_index(outside)
    if known and inside and inside != outside:
        raise ManifestInvalidError(subject=subject, path="mediaType", reason=f"announced as {outside}, says otherwise")
    kind = outside if known else inside
    if is_index(kind) if isinstance(kind, str) and kind else value.get("manifests") is not None:
        return _index_from_json(value, outside if known else OCI_INDEX, subject=subject)
    return _manifest_from_json(value, outside if known else OCI_MANIFEST, subject=subject)


def _manifest_from_json(value: object, assumed: str, *, subject: str) -> Manifest:
    fields = _open_document(value, subject=subject)
    media_type = fields.take_text("mediaType") or assumed
    if not is_manifest(media_type):
        raise fields.error("mediaType", "not the media type of a manifest")
    return Manifest(
        config=Descriptor.from_json(fields.take_value("config"), subject=subject, path="config"),
        layers=_take_descriptors(fields, "layers", subject=subject),
        media_type=media_type,
        annotations=fields.take_mapping("annotations"),
        extra=fields.rest(),
    )


def _index_from_json(value: object, assumed: str, *, subject: str) -> Index:
    fields = _open_document(value, subject=subject, as_index=True)
    media_type = fields.take_text("mediaType") or assumed
    if not is_index(media_type):
        raise fields.error("mediaType", "not the media type of an index")
    return Index(
        manifests=_take_descriptors(fields, "manifests", subject=subject),
        media_type=media_type,
        annotations=fields.take_mapping("annotations"),
        extra=fields.rest(),
    )


def _take_descriptors(fields: Fields, name: str, *, subject: str) -> tuple[Descriptor, ...]:
    return tuple(Descriptor.from_json(item, subject=subject, path=path) for path, item in fields.take_values(name))


def _open_document(value: object, *, subject: str, as_index: bool = False) -> Fields:
    fields = Fields(value, subject=subject)
    present = fields.rest()
    version = fields.take_integer("schemaVersion")
    if version == 1:
        raise _schema_1_error(subject)
    if version != 2:
        raise fields.error("schemaVersion", "expected 2")
    if (as_index or "manifests" in present) and ("layers" in present or "config" in present):
        raise fields.error("manifests", "the document is a manifest and an index at once")
    if "fsLayers" in present:
        raise fields.error("fsLayers", "the document mixes Docker schema 1 and 2")
    return fields


def _schema_1_error(subject: str) -> ManifestInvalidError:
    reason = "Docker schema 1 is not supported, push the image again with a tool of this decade"
    return ManifestInvalidError(subject=subject, path="schemaVersion", reason=reason)


def _encode_document(value: dict[str, Any], extra: Mapping[str, Any], annotations: Mapping[str, str]) -> bytes:
    value.update((name, item) for name, item in extra.items() if name not in value)
    if annotations:
        value["annotations"] = dict(sorted(annotations.items()))
    return encode_json(value)
