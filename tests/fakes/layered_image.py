"""Images whose layers are real tars, with any diff_ids in their config."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from registry.content.compression import Compression
from registry.content.layer_sink import LayerSink
from registry.oci.image_config import ImageConfig
from registry.oci.platform import Platform
from runtime.layers.archive import ArchiveWriter
from runtime.layers.entry import Entry, EntryKind
from tests.fakes.image import compose_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.content.image import Image
    from registry.content.layer_sink import LayerBlob
    from registry.content.local import LocalBlobStore
    from registry.oci.digest import Digest
    from registry.oci.media_types import CompressionKind


def make_layer(store: LocalBlobStore, files: Mapping[str, str], kind: CompressionKind = "gzip") -> LayerBlob:
    """Put a layer with these files, of the user that runs the tests, into a store."""
    with LayerSink(store.writer(), Compression(kind)) as sink:
        writer = ArchiveWriter(sink.write)
        for name, text in sorted(files.items()):
            content = text.encode()
            entry = Entry(name.encode(), EntryKind.FILE, 0o644, os.getuid(), os.getgid(), 0, len(content))
            writer.add(entry, content or None)
        writer.finish()
        return sink.finish()


def make_image(
    store: LocalBlobStore, layers: Sequence[LayerBlob], *, diff_ids: Sequence[Digest] | None = None
) -> Image:
    """Put an image of layers into a store.

    Args:
        store: has the layers.
        layers: base first.
        diff_ids: what its config says they are; None for the truth.
    """
    said = tuple(layer.diff_id for layer in layers) if diff_ids is None else tuple(diff_ids)
    config = ImageConfig(platform=Platform("linux", "amd64"), diff_ids=said)
    return compose_image(config, [layer.descriptor for layer in layers], store)
