"""Which files a key was made of, kept beside its record so that a later miss can name those that changed.

A *listing* is what the digests of one selection were made of (`builder.context.digest.ListedSource`), one source after
the other: name and prefix, each behind its length, then pieces of the records behind theirs, and a length of 0; all in
one zlib stream. It takes some 45 bytes a file, most of that digests.
"""

from __future__ import annotations

import stat
import zlib
from typing import TYPE_CHECKING

from builder.cache.spool import Spool
from builder.context.digest import FileRecord, ListedSource, read_records
from builder.events import CacheChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from registry.content.layer_sink import Deflater

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


class Listing:
    """A listing in the making, which takes little memory; implements `builder.context.digest.Listed`.

    Args:
        folder: where it lies while it is long.
    """

    def __init__(self, folder: Path) -> None:
        self._spool = Spool(folder)
        self._plain: list[bytes] = []
        self._plain_size = 0
        self._compressor: Deflater | None = None
        self._is_open = False

    def begin(self, name: bytes, prefix: bytes) -> None:
        """Begin a source."""
        self._end_source()
        self._is_open = True
        self._put(_framed(name) + _framed(prefix))

    def add(self, records: bytes) -> None:
        """Take further records of the source."""
        if records:
            self._put(_framed(records))

    def pack(self) -> Spool:
        """Give the listing as it is stored; of nothing it is empty. Nothing can be added any more."""
        self._end_source()
        if self._compressor is not None:
            self._flush()
            self._spool.add(self._compressor.finish())
            self._compressor = None
        elif self._plain:
            self._spool.add(zlib.compress(b"".join(self._plain), 1))
        self._plain = []
        return self._spool

    def sources(self) -> tuple[ListedSource, ...]:
        """Give all that was listed. Nothing can be added any more."""
        return unpack_listing(b"".join(self.pack()))

    def _end_source(self) -> None:
        if self._is_open:
            self._is_open = False
            self._put(bytes(_LENGTH))

    def _put(self, data: bytes) -> None:
        self._plain.append(data)
        self._plain_size += len(data)
        if self._plain_size >= _SMALL:
            if self._compressor is None:
                from registry.content.layer_sink import Deflater  # noqa: PLC0415  only for large selections

                self._compressor = Deflater()
            self._flush()

    def _flush(self) -> None:
        if self._compressor is not None:
            self._spool.add(self._compressor.compress(b"".join(self._plain)))
        self._plain, self._plain_size = [], 0


def unpack_listing(listing: bytes) -> tuple[ListedSource, ...]:
    """Read a stored listing."""
    data = zlib.decompress(listing) if listing else b""
    sources: list[ListedSource] = []
    at = 0

    def read() -> bytes:
        nonlocal at
        end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "big")
        part, at = data[at + _LENGTH : end], end
        return part

    while at < len(data):
        name, prefix = read(), read()
        sources.append(ListedSource(name, prefix, b"".join(iter(read, b""))))
    return tuple(sources)


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH, "big") + part


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
