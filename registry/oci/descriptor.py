"""Descriptors: media type, digest and size of a blob, which is all that manifests say about other content.

Source: image-spec, descriptor.md; image-index.md for *platform*.
"""

from __future__ import annotations

from registry.oci.canonical_json import Fields, set_present
from registry.oci.platform import Platform
from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from registry.oci.digest import Digest


@frozen
class Descriptor:
    """What a blob is, how it is named and how long it is in bytes.

    *platform* is only set in the entries of an index. *urls* are other places that have the blob. *extra* holds the
    fields this package does not know, as decoded JSON (`artifactType`, `data` and whatever comes later).
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, *, subject: str, path: str = "") -> Descriptor:
        """Read a decoded JSON object.

        Args:
            value: what stands at *path*.
            subject: what is being read, for errors.
            path: where in it, e.g. `layers[2]`.

        Raises:
            ManifestInvalidError: a required field is missing or a value has the wrong shape.
        """
        fields = Fields(value, subject=subject, path=path)
        size = fields.take_integer("size", minimum=0)
        if size is None:
            raise fields.error("size", "required field is missing")
        return cls(
            media_type=fields.require_text("mediaType"),
            digest=fields.take_digest("digest"),
            size=size,
            annotations=fields.take_mapping("annotations"),
            platform=_take_platform(fields),
            urls=fields.take_texts("urls") or (),
            extra=fields.rest(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, keys in the specification's order and unknown ones last."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        set_present(value, {"urls": list(self.urls), "annotations": dict(self.annotations)})
        if self.platform is not None:
            value["platform"] = _platform_to_json(self.platform)
        # A field this package knows wins over one of the same name in extra.
        return {**value, **{name: item for name, item in self.extra.items() if name not in value}}


def _take_platform(fields: Fields) -> Platform | None:
    platform = fields.take_object("platform")
    if platform is None:
        return None
    # os.features and the reserved features are the only other fields; nothing on Linux uses them.
    return Platform(
        platform.take_text("os") or "",
        platform.take_text("architecture") or "",
        platform.take_text("variant") or "",
        platform.take_text("os.version") or "",
    )


def _platform_to_json(platform: Platform) -> dict[str, Any]:
    value: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    set_present(value, {"os.version": platform.os_version, "variant": platform.variant})
    return value
