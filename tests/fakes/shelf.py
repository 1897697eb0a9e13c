"""Stores filled by hand: every part of a size and of a last use that the test wants."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.cache.state import Record
from builder.context.remote import UrlRow
from registry.content.local import LocalBlobStore
from registry.oci.chain_id import chain_id
from registry.oci.descriptor import Descriptor
from registry.oci.digest import Digest, digest_hex, digest_of
from registry.oci.image_config import ImageConfig
from registry.oci.media_types import OCI_LAYER_GZIP
from registry.oci.platform import Platform
from registry.oci.reference import parse_reference
from tests.fakes.image import compose_image

if TYPE_CHECKING:
    from builder.store import Store

KIB = 1024
SECOND = 1_000_000_000


class Shelf:
    """Puts things into a store as processes did that are gone. Times are seconds, sizes bytes on disk.

    Args:
        store: takes them; it holds nothing of them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._blobs = LocalBlobStore(store.root / "images", temporary=store.temporary)

    def blob(self, name: str, *, size: int = 4 * KIB, used: float = 0) -> Digest:
        """Put a blob that nothing needs."""
        digest = self._blobs.put(name.encode().ljust(size, b".")).digest
        self.use(digest, used)
        return digest

    def use(self, blob: Digest, used: float) -> None:
        """Note a use of a blob."""
        os.utime(self._blobs.path(blob), ns=(int(used * SECOND), int(used * SECOND)))

    def layer(self, name: str, *, size: int = 4 * KIB, used: float = 0) -> Digest:
        """Put the blob of a layer; return its diff_id."""
        diff_id = digest_of(f"layer {name}".encode())
        blob = self.blob(name, size=size, used=used)
        self.store.state.put_blob(diff_id, Descriptor(media_type=OCI_LAYER_GZIP, digest=blob, size=size))
        return diff_id

    def blob_of(self, layer: Digest) -> Digest:
        """Return the first blob of a layer."""
        return self.store.state.find_blobs(layer)[0].digest

    def record(self, key: str, layer: Digest, *, below: tuple[Digest, ...] = (), used: float = 0) -> None:
        """Put the record of a step on layers, base first."""
        base = digest_hex(chain_id(below)) if below else "empty"
        self.store.state.put_record(
            Record(key=key, op=key, diff_id=layer, created="", name=f"RUN {key}", ingredients=(("below", base),))
        )
        with self.store.state.writing() as connection:
            connection.execute("UPDATE record SET used = ? WHERE key = ?", (used, key))

    def image(self, *layers: Digest, name: str | None = None, used: float = 0) -> Digest:
        """Put an image with or without a name; return the digest of its manifest."""
        blobs = [self.store.state.find_blobs(layer)[0] for layer in layers]
        config = ImageConfig(platform=Platform("linux", "amd64"), author=name, diff_ids=layers)
        image = compose_image(config, blobs, self._blobs)
        self.store.layout.put(image.descriptor, parse_reference(name) if name else None)
        for document in (image.descriptor.digest, image.manifest.config.digest):
            self.use(document, used)
        return image.descriptor.digest

    def snapshot(self, *layers: Digest, size: int = 4 * KIB, used: float = 0) -> str:
        """Put the snapshot of a file system; *size* is without its directory."""
        name = digest_hex(chain_id(layers))
        folder = self.store.root / "snapshots" / name
        folder.mkdir()
        (folder / "file").write_bytes(b"." * size)
        note = self.store.root / "snapshots" / ".sizes" / name
        note.parent.mkdir(exist_ok=True)
        note.touch()
        os.utime(note, ns=(int(used * SECOND), int(used * SECOND)))
        return name

    def mount(self, key: str, *, size: int = 4 * KIB, used: float = 0) -> None:
        """Put a cache mount."""
        folder = self.store.root / "mounts" / key
        (folder / "tree-0").mkdir(parents=True)
        (folder / "tree-0" / "file").write_bytes(b"." * size)
        (folder / "id").write_text(f"cache {key}")
        (folder / "lock-0").touch()
        os.utime(folder / "lock-0", ns=(int(used * SECOND), int(used * SECOND)))

    def download(self, url: str, *, size: int = 4 * KIB, used: float = 0) -> Digest:
        """Put the body of an address."""
        body = self.blob(url, size=size, used=used)
        self.store.state.put_url(url, UrlRow(etag="", modified="", digest=body))
        return body
