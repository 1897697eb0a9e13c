"""Which files a key was made of, kept beside its record so that a later miss can name those that changed.

A *listing* is what the digests of one selection were made of (`builder.context.digest.ListedSource`), one source after
the other: name, prefix and records, each behind its length, all in one zlib stream. It takes some 45 bytes a file, most of
that digests.
"""

from __future__ import annotations

import stat
import zlib
from typing import TYPE_CHECKING

from builder.context.digest import FileRecord, ListedSource, read_records
from builder.events import CacheChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LENGTH = 8
_SMALL = 1 << 16
"""Shorter listings are not worth loading a faster compressor for, in bytes."""
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}

_Listed = dict[tuple[bytes, int, bytes], tuple[bytes, FileRecord]]
"""Name of a source, its number among those of that name, name below it; to the path below the root and the record."""


def pack_listing(sources: Sequence[ListedSource]) -> bytes:
    """Make a listing to be stored; of nothing it is empty."""
    if not sources:
        return b""
    data = b"".join(len(part).to_bytes(_LENGTH, "big") + part for source in sources for part in source)
    if len(data) < _SMALL:
        return zlib.compress(data, 1)
    from registry.content.layer_sink import deflate  # noqa: PLC0415  only for large selections

    return deflate(data)


def unpack_listing(listing: bytes) -> tuple[ListedSource, ...]:
    """Read a stored listing."""
    data = zlib.decompress(listing) if listing else b""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "big")
        parts.append(data[at + _LENGTH : end])
        at = end
    return tuple(map(ListedSource, parts[::3], parts[1::3], parts[2::3]))


def compare_listings(
    before: Iterable[ListedSource], now: Iterable[ListedSource], *, root: str = ""
) -> Iterator[CacheChange]:
    """Give what differs between the files of two selections, in the order of their paths, which are put behind *root*."""
    old, new = _by_name(before), _by_name(now)
    differing = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    for key in sorted(differing, key=lambda key: (new.get(key) or old[key])[0]):
        path = root + ((new.get(key) or old[key])[0].decode("utf-8", "surrogateescape") or ".")
        if key not in old:
            yield CacheChange("file added", path)
        elif key not in new:
            yield CacheChange("file removed", path)
        else:
            yield from _compare(path, old[key][1], new[key][1])


def _compare(path: str, old: FileRecord, new: FileRecord) -> Iterator[CacheChange]:
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        yield CacheChange("file type", path, _kind(old), _kind(new))
        return
    if old.content != new.content:
        if stat.S_ISREG(new.mode):
            yield CacheChange("file content", path, f"sha256:{old.content.hex()}", f"sha256:{new.content.hex()}")
        else:
            then, here = (record.content.decode("utf-8", "surrogateescape") for record in (old, new))
            yield CacheChange("link target", path, then, here)
    if old.mode != new.mode:
        yield CacheChange("file mode", path, f"{stat.S_IMODE(old.mode):04o}", f"{stat.S_IMODE(new.mode):04o}")
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield CacheChange("file owner", path, f"{old.uid}:{old.gid}", f"{new.uid}:{new.gid}")
    if old.device != new.device:
        yield CacheChange("device number", path, str(old.device), str(new.device))


def _kind(record: FileRecord) -> str:
    return _KINDS[stat.S_IFMT(record.mode)]


def _by_name(sources: Iterable[ListedSource]) -> _Listed:
    listed: _Listed = {}
    numbers: dict[bytes, int] = {}
    for source in sources:
        number = numbers[source.name] = numbers.get(source.name, -1) + 1
        for record in read_records(source.records):
            listed[source.name, number, record.name] = (source.prefix + record.name, record)
    return listed
