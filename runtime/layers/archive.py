"""Write tar archives: the same entries give the same bytes, on every machine.

The format is ustar, with a PAX extended header in front of the entries that ustar cannot say: names over 100 bytes or
outside ASCII, numbers too large or negative, xattrs. Names stay bytes. That is what Go's archive/tar writes for
containerd, so layers look as those of other builders. No user names, no access times, no padding to a record size.

`tarfile` takes 15 times as long for small files; the shape of this code (one formatted block, one join) is for speed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, Final
from zlib import adler32

from runtime.errors import LayerError
from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE: Final = 1 << 20
"""Bytes of large content read at once, and bytes gathered before the sink is called."""

XATTR_PREFIX: Final = b"SCHILY.xattr."

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_NAME_LIMIT: Final = 100
_SMALL_LIMIT: Final = 0o7777777
_LARGE_LIMIT: Final = 0o77777777777
_NOT_ASCII: Final = bytes(range(128, 256))
_FILE: Final = EntryKind.FILE
_DIRECTORY: Final = EntryKind.DIRECTORY
_FLAGS: Final[dict[EntryKind, bytes]] = {kind: kind.value for kind in EntryKind}

# The end of a header without link name and device: link name, magic and version, user and group name, device numbers,
# prefix, padding. Go writes the device numbers of every entry as zeros in octal.
_MAGIC: Final = b"ustar\x0000"
_NO_DEVICE: Final = b"0000000\x000000000\x00"
_PLAIN_TAIL: Final = bytes(100) + _MAGIC + bytes(64) + _NO_DEVICE + bytes(167)
_PLAIN_TAIL_SUM: Final = sum(_PLAIN_TAIL)
_CHECKSUM_AS_SPACES: Final = 8 * 0x20


class ArchiveWriter:
    """Writes entries in the order in which they are given.

    Not safe for use by several threads. After an error the archive is unusable, and `finish` says so.

    Args:
        write: takes the bytes of the archive in pieces of about 1 MiB; they may be kept.
        latest: seconds since the epoch, for `write_clamped`.
        write_clamped: takes, in small pieces, the bytes that the archive would have with no time later than `latest`.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        latest: int = 0,
        write_clamped: Callable[[bytes], object] | None = None,
    ) -> None:
        self._write = write
        self._latest = latest
        self._write_clamped = write_clamped
        self._pieces: list[bytes] = []
        self._pending = 0
        self._broken = False
        self._finished = False

    def add(self, entry: Entry, content: int | bytes | BinaryIO | None = None) -> None:
        """Append an entry and its content.

        Args:
            entry: of any kind; only files have a size.
            content: bytes, an open descriptor (read from where it stands, closed by the caller), or a stream with
                exactly `entry.size` bytes left; None for an empty file and for everything that is no file.

        Raises:
            LayerError: the content is shorter or longer than the entry says, as when a file changes while it is read;
                or the entry cannot be said in a tar.
        """
        if self._broken or self._finished:
            raise LayerError("nothing can be added to an archive that has ended", entry=_shown(entry.path))
        self._broken = True
        self._add(entry, content)
        self._broken = False

    def _add(self, entry: Entry, content: int | bytes | BinaryIO | None) -> None:
        size = entry.size
        header = _header(entry)
        if self._write_clamped is not None:
            later = entry.mtime > self._latest
            self._write_clamped(_header(entry._replace(mtime=self._latest)) if later else header)
        if not size:
            if content is not None:
                _check_end(entry, content)
            self._append(header)
            return
        if entry.kind is not _FILE:
            raise LayerError("only files have content", entry=_shown(entry.path))
        if isinstance(content, bytes):
            if len(content) != size:
                raise _changed(entry)
            self._append_content(header, content, _ZEROS[: -size % _BLOCK])
        elif content is None:
            raise _changed(entry)
        elif size < READ_SIZE:
            self._append_content(header, _read_small(entry, content), _ZEROS[: -size % _BLOCK])
        else:
            self._append(header)
            self._flush()
            self._copy(entry, content)

    def finish(self) -> None:
        """Write the two empty blocks that end an archive, and everything still held back.

        Raises:
            LayerError: an earlier entry failed.
        """
        if self._broken:
            raise LayerError("an archive with a failed entry cannot be finished")
        if not self._finished:
            self._finished = True
            self._append_content(b"", _ZEROS + _ZEROS)
            self._flush()

    def _append_content(self, header: bytes, data: bytes, padding: bytes = b"") -> None:
        self._pieces += (header, data, padding)
        self._pending += len(header) + len(data) + len(padding)
        if self._pending >= READ_SIZE:
            self._flush()
        if self._write_clamped is not None:
            self._write_clamped(data + padding)

    def _append(self, data: bytes) -> None:
        self._pieces.append(data)
        self._pending += len(data)
        if self._pending >= READ_SIZE:
            self._flush()

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._pending = 0
            self._write(data)

    def _copy(self, entry: Entry, content: int | BinaryIO) -> None:
        left = entry.size
        while left:
            data = _read(content, min(left, READ_SIZE))
            if not data:
                raise _changed(entry)
            left -= len(data)
            self._write(data)
            if self._write_clamped is not None:
                self._write_clamped(data)
        _check_end(entry, content)
        self._append_content(b"", _ZEROS[: -entry.size % _BLOCK])


def _read(content: int | BinaryIO, size: int) -> bytes:
    return os.read(content, size) if isinstance(content, int) else content.read(size)


def _read_small(entry: Entry, content: int | BinaryIO) -> bytes:
    # One byte more is asked for: a regular file of the right size then needs one call and no second look.
    size = entry.size
    data = _read(content, size + 1)
    if len(data) == size and isinstance(content, int):
        return data
    while len(data) <= size:
        more = _read(content, size + 1 - len(data))
        if not more:
            break
        data += more
    if len(data) != size:
        raise _changed(entry)
    return data


def _check_end(entry: Entry, content: int | bytes | BinaryIO) -> None:
    if content if isinstance(content, bytes) else _read(content, 1):
        raise _changed(entry)


def _changed(entry: Entry) -> LayerError:
    return LayerError(
        f"the content is not {entry.size} bytes long, it changed while it was read", entry=_shown(entry.path)
    )


def _shown(path: bytes) -> str:
    return path.decode(errors="backslashreplace")


def _header(entry: Entry) -> bytes:
    path, kind, mode, uid, gid, mtime, size, linkname, device, xattrs = entry
    name = path + b"/" if kind is _DIRECTORY else path
    if not path:
        name = b"./"
    if (
        len(name) <= _NAME_LIMIT
        and not linkname
        and not xattrs
        and 0 <= uid <= _SMALL_LIMIT
        and 0 <= gid <= _SMALL_LIMIT
        and 0 <= mtime <= _LARGE_LIMIT
        and size <= _LARGE_LIMIT
        and name.isascii()
        and device == (0, 0)
        and b"\0" not in name
    ):
        head = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
        flag = _FLAGS[kind]
        # The lower half of an Adler-32 is one more than the sum of the bytes, while that is below 65,521, as it is for
        # so few; nothing else sums bytes as fast.
        checksum = (adler32(head) & 0xFFFF) - 1 + flag[0] + _PLAIN_TAIL_SUM + _CHECKSUM_AS_SPACES
        return b"%b%06o\0 %b%b" % (head, checksum, flag, _PLAIN_TAIL)
    return _extended_header(entry, name)


def _extended_header(entry: Entry, name: bytes) -> bytes:
    """Return the header blocks of an entry that may need PAX records."""
    records: dict[bytes, bytes] = {}
    for key, text in ((b"path", name), (b"linkpath", entry.linkname)):
        if b"\0" in text:
            raise LayerError("a name with a NUL byte cannot be put into a tar", entry=_shown(text))
        if len(text) > _NAME_LIMIT or not text.isascii():
            records[key] = text
    numbers = {b"uid": (entry.uid, _SMALL_LIMIT), b"gid": (entry.gid, _SMALL_LIMIT)}
    numbers[b"size"] = (entry.size, _LARGE_LIMIT)
    numbers[b"mtime"] = (entry.mtime, _LARGE_LIMIT)
    fitting = {}
    for key, (number, limit) in numbers.items():
        fitting[key] = number if 0 <= number <= limit else 0
        if fitting[key] != number:
            if number < 0 and key != b"mtime":
                raise LayerError(f"a negative {key.decode()} cannot be put into a tar", entry=_shown(entry.path))
            records[key] = b"%d" % number
    if not all(0 <= number <= _SMALL_LIMIT for number in entry.device):
        raise LayerError(f"the device number {entry.device} cannot be put into a tar", entry=_shown(entry.path))
    for xattr, value in entry.xattrs:
        key = xattr.encode(errors="surrogateescape")
        if b"=" in key or b"\0" in key:
            raise LayerError(f"the xattr name {xattr!r} cannot be put into a tar", entry=_shown(entry.path))
        records[XATTR_PREFIX + key] = value
    block = _block(
        name,
        mode=entry.mode,
        uid=fitting[b"uid"],
        gid=fitting[b"gid"],
        size=fitting[b"size"],
        mtime=fitting[b"mtime"],
        flag=entry.kind.value,
        linkname=entry.linkname,
        device=entry.device,
    )
    if not records:
        return block
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, _, base = name.rstrip(b"/").rpartition(b"/")
    extended = _block(b"%bPaxHeaders.0/%b" % (directory + b"/" if directory else b"", base), size=len(data), flag=b"x")
    return extended + data + _ZEROS[: -len(data) % _BLOCK] + block


def _record(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE NEWLINE`, where the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


def _block(
    name: bytes,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    flag: bytes,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Return one header block; names that do not fit are cut, their PAX records hold them whole."""
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (_name_field(name), mode, uid, gid, size, mtime)
    tail = b"%b%b%b%b%07o\0%07o\0%b" % (flag, _name_field(linkname), _MAGIC, bytes(64), *device, bytes(167))
    return b"%b%06o\0 %b" % (head, sum(head) + sum(tail) + _CHECKSUM_AS_SPACES, tail)


def _name_field(name: bytes) -> bytes:
    return name.translate(None, _NOT_ASCII)[:_NAME_LIMIT].ljust(_NAME_LIMIT, b"\0")
