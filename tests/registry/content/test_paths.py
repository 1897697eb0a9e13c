"""Paths: the tree, and what cannot enter it."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.content.paths import blob_file, index_file, layout_file
from registry.errors import DigestInvalidError
from registry.oci.digest import Digest, digest_hex, digest_of


def test_paths_are_those_of_an_image_layout() -> None:
    """Other tools find what we write."""
    digest = digest_of(b"")

    assert blob_file(Path("/i"), digest) == Path(f"/i/blobs/sha256/{digest_hex(digest)}")
    assert (layout_file(Path("/i")), index_file(Path("/i"))) == (Path("/i/oci-layout"), Path("/i/index.json"))


@pytest.mark.parametrize("text", ["../../etc/passwd", "sha256:../../x", "sha256:" + "/" * 64, "..:" + "a" * 64, ""])
def test_path_of_an_unchecked_text_is_refused(text: str) -> None:
    """A cast is no check."""
    with pytest.raises(DigestInvalidError, match="invalid digest"):
        blob_file(Path("/i"), Digest(text))
