"""An image in an OCI archive as plain data: config, history, and the files of all its layers put together."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.LNKTYPE: "hard link",
}

UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar+gzip": gzip.decompress,
    "tar+zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
"""The end of the media type of a layer to what makes its tar of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """*config* is the whole image config, *manifest* the manifest; *tree* says of each path what is there.

    *last* says of each name in the last layer what its entry is, whiteouts and hard links as they are in the archive.
    """

    config: dict[str, Any]
    manifest: dict[str, Any]
    tree: dict[str, dict[str, Any]]
    last: dict[str, dict[str, Any]]

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.manifest["layers"] or [])


def read_archive(path: Path) -> Flat:
    """Read the only image of an OCI archive, with the standard library alone."""
    with tarfile.open(path) as archive:
        blobs = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]  # files only
    manifest = _document(blobs, json.loads(blobs["index.json"])["manifests"][0]["digest"])
    layers = manifest["layers"] or []
    tree: dict[str, dict[str, Any]] = {}
    data = b""
    for layer in layers:
        data = blobs[_name(layer["digest"])]
        data = UNPACK[layer["mediaType"].rpartition(".")[2]](data)
        _apply(tree, data)
    config = _document(blobs, manifest["config"]["digest"])
    return Flat(config=config, manifest=manifest, tree=tree, last=_list(data))


def _list(layer: bytes) -> dict[str, dict[str, Any]]:
    if not layer:
        return {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return {member.name: _describe(archive, member) for member in archive}


def _apply(tree: dict[str, dict[str, Any]], layer: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for member in archive:
            path = posixpath.normpath(f"/{member.name}")
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                _remove(tree, folder, itself=False)
            elif name.startswith(".wh."):
                _remove(tree, f"{folder}/{name.removeprefix('.wh.')}", itself=True)
            elif path != "/":
                if not member.isdir() and path in tree:
                    _remove(tree, path, itself=True)
                tree[path] = (
                    tree[posixpath.normpath(f"/{member.linkname}")] if member.islnk() else _describe(archive, member)
                )


def _describe(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    found = {"type": TYPES[member.type], "mode": f"{member.mode:04o}", "uid": member.uid, "gid": member.gid}
    found["mtime"] = int(member.mtime)
    found["capability"] = "SCHILY.xattr.security.capability" in member.pax_headers
    if member.issym() or member.islnk():
        found["link"] = member.linkname
    if member.isfile():
        data = archive.extractfile(member).read()  # type: ignore[union-attr]  # a file has content
        found |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "text": data.decode(errors="replace")}
    return found


def _remove(tree: dict[str, dict[str, Any]], path: str, *, itself: bool) -> None:
    if itself and path in tree and tree[path]["type"] != "directory":
        del tree[path]
        return
    for known in [known for known in tree if known.startswith(f"{path}/") or (itself and known == path)]:
        del tree[known]


def _document(blobs: dict[str, bytes], digest: str) -> Any:
    return json.loads(blobs[_name(digest)])


def _name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
