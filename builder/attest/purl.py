"""Package URLs of images: `pkg:docker/alpine@3.20?platform=linux%2Famd64`.

Source: package-url specification, PURL-TYPES, types docker and oci; BuildKit, util/purl/image.go.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from registry.errors import ReferenceInvalidError
from registry.oci.reference import parse_reference

if TYPE_CHECKING:
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference


def image_purl(reference: Reference, platform: Platform) -> str:
    """Return the package URL of an image for a platform."""
    return _purl("docker", reference.familiar_name(), reference.tag, reference.digest, platform)


def source_purl(text: str, platform: Platform) -> str:
    """Return the package URL of an image that a Dockerfile or a named context names.

    Of an OCI layout, which is an absolute path, only the name of the folder is told.
    """
    try:
        return image_purl(parse_reference(text), platform)
    except ReferenceInvalidError:
        path, at, digest = text.partition("@")
        name, colon, tag = PurePosixPath(path).name.partition(":")
        return _purl("oci", name, tag if colon else None, digest if at else None, platform)


def _purl(type_: str, name: str, tag: str | None, digest: str | None, platform: Platform) -> str:
    namespace, slash, last = name.rpartition("/")
    parts = [f"pkg:{type_}/", *(quote(part, safe="") + "/" for part in namespace.split("/") if slash), quote(last)]
    qualifiers = {"digest": digest, "platform": str(platform.normalized())}
    return (
        "".join(parts)
        + (f"@{quote(tag, safe='')}" if tag else "")
        + "?"
        + "&".join(f"{key}={quote(value, safe=':')}" for key, value in qualifiers.items() if value)
    )
