"""How small a layer becomes: bytes of gzip as the project makes it by default, beside zlib's level 6."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from benchmark.tools import PybuildTool

NAME = "localhost/size:1"
LEVEL = 6
READ_SIZE = 1 << 20
GZIP_WINDOW = 31
"""What makes zlib write gzip with the largest window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSizes:
    """Bytes of one layer: as *tar*, as gzip by the project and by zlib."""

    tar: int
    project: int
    zlib: int


def measure_layer(tool: PybuildTool, archive: Path) -> LayerSizes:
    """Import a root file system, and compress the tar that its layer holds once more."""
    tool.prepare({NAME: archive})
    layer = _find_layer(tool.folder / "store" / "images")
    tar, compressed = _compress(layer)
    return LayerSizes(tar=tar, project=layer.stat().st_size, zlib=compressed)


def _find_layer(layout: Path) -> Path:
    """Return the only layer of the only image."""

    def find(descriptor: dict[str, str]) -> Path:
        return layout / "blobs" / descriptor["digest"].replace(":", "/")

    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]
    return find(json.loads(find(manifest).read_text())["layers"][0])


def _compress(layer: Path) -> tuple[int, int]:
    """Return the bytes of a layer's tar, and of its gzip by zlib."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    tar = compressed = 0
    with gzip.open(layer) as file:
        while data := file.read(READ_SIZE):
            tar += len(data)
            compressed += len(compressor.compress(data))
    return tar, compressed + len(compressor.flush())
