"""pybuild import: an image from the tar of a root file system."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO, cast

from builder.cli.option_values import parse_platform_option
from builder.errors import UsageError
from builder.image.apply_changes import config_from_changes
from builder.store import Store
from registry.content.compression import Compression
from registry.content.layer_sink import LayerBlob, LayerSink
from registry.content.layer_stream import open_archive
from registry.oci.descriptor import Descriptor
from registry.oci.image_config import History
from registry.oci.manifest import Manifest
from registry.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from registry.oci.platform import host_platform
from registry.oci.reference import parse_reference
from registry.value import replace
from runtime.layers.read import read_archive

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager

    from builder.cli.environment import Environment
    from runtime.layers.entry import Entry

READ_SIZE = 1 << 20


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Read a tar, plain or compressed, as the only layer of a new image; print the image id."""
    name = parse_reference(arguments.name) if arguments.name else None
    platform = parse_platform_option(arguments.platform, environment) or host_platform()
    with Store(environment.root(arguments.root)) as store:
        with _open(arguments.file, environment) as file:
            blob = _store_layer(store, file)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        history = History(
            created=created, created_by="", comment=arguments.message or f"Imported from {arguments.file}"
        )
        config = config_from_changes(platform, arguments.change)
        config = replace(config, created=created, diff_ids=(blob.diff_id,), history=(history,))
        stored = store.blobs.put(config.to_bytes())
        manifest = Manifest(
            config=Descriptor(media_type=OCI_CONFIG, digest=stored.digest, size=stored.size),
            layers=(blob.descriptor,),
            media_type=OCI_MANIFEST,
        )
        identifier = stored.digest
        stored = store.blobs.put(manifest.to_bytes())
        descriptor = Descriptor(media_type=OCI_MANIFEST, digest=stored.digest, size=stored.size, platform=platform)
        store.layout.put(descriptor, name)
    sys.stdout.write(f"{identifier}\n")
    return 0


def _open(text: str, environment: Environment) -> AbstractContextManager[BinaryIO]:
    if text == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return open(environment.path(text), "rb")
    except OSError as error:
        raise UsageError(f"archive cannot be read, {error.strerror}: `{text}`") from error


def _store_layer(store: Store, file: BinaryIO) -> LayerBlob:
    """Store the archive as a layer, byte by byte as it is once decompressed, and index its tree on the way."""
    entries: list[Entry] = []
    with LayerSink(store.blobs.writer(), Compression()) as sink:
        stream = cast("BinaryIO", _Tee(open_archive(file), sink))  # readers of archives only call `read`
        entries.extend(member.entry for member in read_archive(stream))
        while stream.read(READ_SIZE):
            pass
        blob = sink.finish()
    store.index.put(blob.diff_id, entries)
    store.state.put_blob(blob.diff_id, blob.descriptor)
    return blob


class _Tee:
    """A stream that gives a copy of what is read from it to a layer."""

    def __init__(self, stream: BinaryIO, sink: LayerSink) -> None:
        self._stream = stream
        self._sink = sink

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._sink.write(data)
        return data
