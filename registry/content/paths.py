"""Where content lies on disk.

    images/                        an OCI image layout, which other tools read as well
    ├── oci-layout                 the layout's version
    ├── index.json                 the names of images
    ├── .lock                      taken while index.json is rewritten
    └── blobs/sha256/<hex>         every blob, under its digest; whole or not there
    <temporary>/blob-<random>      a blob being written; renamed into blobs/ when complete

*temporary* has to be on the same filesystem as *images*.

Source: image-spec, image-layout.md.
"""

from __future__ import annotations

import errno

from registry.oci.digest import Digest, digest_algorithm, digest_hex, parse_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Final


_BLOBS: Final = "blobs"

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of the kernel that mean that the store is full."""


def layout_file(images: Path) -> Path:
    """Return the path of the file that makes *images* an image layout."""
    return images / "oci-layout"


def index_file(images: Path) -> Path:
    """Return the path of the list of images."""
    return images / "index.json"


def lock_file(images: Path) -> Path:
    """Return the path of the file that writers of the list lock."""
    return images / ".lock"


def blobs_directory(images: Path, algorithm: str) -> Path:
    """Return the directory of the blobs that are named by *algorithm*."""
    return images.joinpath(_BLOBS, algorithm)


def blob_file(images: Path, digest: Digest) -> Path:
    """Return the path of a blob, whether it exists or not.

    Raises:
        DigestInvalidError: *digest* is not one, so it is no part of a path either.
    """
    digest = parse_digest(digest)
    return images.joinpath(_BLOBS, digest_algorithm(digest), digest_hex(digest))
