"""Contents of cache mounts that go to another store and come from there: `mounts=true` of `--cache-to`.

A content is a tar of the mount's directory, that itself first, with true owners, whatever ids the namespace has. It is
as untrusted as a layer, and applied as one. Whatever goes wrong with it is a warning, since a step must do with an
empty cache mount anyway.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, cast

from builder.errors import BuildError
from builder.store import remove_folder
from registry.content.verify import VerifyingReader
from registry.errors import RegistryError
from runtime.errors import SandboxError
from runtime.layers.apply import apply_layer
from runtime.layers.archive import ArchiveWriter
from runtime.layers.diff import write_changes
from runtime.layers.entry import Entry, EntryKind
from runtime.ownership import Owners

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from builder.cache.document import CachedMount
    from builder.solve.cache_mounts import PlannedCache
    from builder.solve.imported_cache import ImportedCaches
    from registry.content.compression import Compression
    from registry.content.layer_sink import LayerBlob
    from registry.content.local import LocalBlobStore


def pack_mount(
    tree: Path, blobs: LocalBlobStore, compression: Compression, *, threads: int, limit: int | None
) -> LayerBlob:
    """Store the content of a cache mount. The same content always makes the same blob.

    Args:
        tree: its directory; nobody but those who share it uses it meanwhile.
        blobs: takes it.
        compression: of the blob.
        threads: how many compress it.
        limit: how many bytes its tar may have, None for any number.

    Raises:
        BuildError: it is larger.
        SandboxError: it cannot be read, changed meanwhile, or holds a name that no layer can have.
        ContentError: the blob cannot be written.
    """
    from registry.content.layer_sink import LayerSink  # noqa: PLC0415  not to restore one

    with LayerSink(blobs.writer(), compression, threads=threads) as sink:
        archive = ArchiveWriter(sink.write if limit is None else _limited(sink.write, limit))
        archive.add(_root_entry(tree))
        write_changes(tree, (), archive)
        archive.finish()
        return sink.finish()


def restore_mount(cache: PlannedCache, folder: Path, imported: ImportedCaches) -> bool:
    """Put what an imported cache has for a cache mount into its new, empty *folder*; False if there is none to be had."""
    while (mount := imported.find_mount(cache.moved_key)) is not None:
        blobs = imported.fetch_mount(mount)
        if blobs is None:
            continue
        try:
            _apply(mount, blobs, folder)
        except (RegistryError, SandboxError) as error:
            imported.drop_mount(mount, f"what cache mount `{cache.id}` held cannot be put in place, {error.message}")
            remove_folder(folder)
            folder.mkdir(mode=0o755)
        else:
            return True
        finally:
            blobs.delete(mount.blob.digest)
    return False


def _apply(mount: CachedMount, blobs: LocalBlobStore, folder: Path) -> None:
    """Apply a content and check it on the way; after an error anything may be in the folder."""
    from registry.content.layer_stream import open_layer  # noqa: PLC0415  only with a content

    blob = blobs.open_verified(mount.blob.digest, size=mount.blob.size)
    with open_layer(blob, media_type=mount.blob.media_type) as tar:
        reader = VerifyingReader(tar, mount.diff_id, subject=f"tar of cache mount {mount.blob.digest}")
        # A RawIOBase has every method of BinaryIO that a reader may call; typeshed does not relate the two.
        apply_layer(cast("BinaryIO", reader), folder)
        reader.verify()


def _root_entry(tree: Path) -> Entry:
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = Owners.here().true_status(os.fstat(fd), fd)
    finally:
        os.close(fd)
    return Entry(
        path=b"",
        kind=EntryKind.DIRECTORY,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=int(status.st_mtime),
    )


def _limited(write: Callable[[bytes], object], limit: int) -> Callable[[bytes], object]:
    """Give a *write* that refuses more than *limit* bytes in all."""
    left = limit

    def write_some(data: bytes) -> object:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise BuildError(f"it is larger than {limit} bytes")
        return write(data)

    return write_some
