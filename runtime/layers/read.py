"""Read tar archives of any make: ustar, PAX, GNU, old GNU, star, v7.

Everything in the stream is untrusted. Sizes are checked before memory is taken, names are cleaned, and what cannot be
right is a `LayerError`. Sparse files appear as what they stand for.

Source: POSIX.1-2017, pax, sections "pax Interchange Format" and "ustar Interchange Format"; GNU tar manual, "Basic Tar
Format" and "Sparse Formats"; star(5); Go's archive/tar, for what layers in registries look like.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, BinaryIO, Final

from runtime.errors import LayerError
from runtime.layers.archive import XATTR_PREFIX
from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_SIZE: Final = 1 << 18
"""Bytes asked of the stream at once."""

EXTENDED_LIMIT: Final = 1 << 20
"""Bytes that the extended headers, or a long name, of one entry may have. Go's limit too."""

_BLOCK: Final = 512
_ZERO_BLOCK: Final = bytes(_BLOCK)
_SPARSE_LIMIT: Final = 1 << 20
"""Data pieces that one sparse file may have."""
_SIZE_LIMIT: Final = (1 << 63) - 1
_ID_LIMIT: Final = (1 << 32) - 2
_TIME_LIMIT: Final = 10**18
_LIBARCHIVE_PREFIX: Final = b"LIBARCHIVE.xattr."
_SPARSE_PREFIX: Final = b"GNU.sparse."

_KINDS: Final = {
    b"\0": EntryKind.FILE,
    b"0": EntryKind.FILE,
    b"7": EntryKind.FILE,  # contiguous
    b"S": EntryKind.FILE,  # sparse, old GNU
    b"1": EntryKind.HARDLINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHARACTER,
    b"4": EntryKind.BLOCK,
    b"5": EntryKind.DIRECTORY,
    b"D": EntryKind.DIRECTORY,  # with a list of names as content, from GNU's incremental dumps
    b"6": EntryKind.FIFO,
}
_FILE: Final = EntryKind.FILE
_DIRECTORY: Final = EntryKind.DIRECTORY
_HARDLINK: Final = EntryKind.HARDLINK
_DEVICES: Final = frozenset({EntryKind.CHARACTER, EntryKind.BLOCK})

_Extent = tuple[int, int]
"""offset and length of a piece of data in a sparse file"""


class Member:
    """One member of an archive. Its content can be read until the next member is asked for.

    Attributes:
        entry: what the header says; the size is that of the whole content, holes of sparse files included.
        name: the name as written in the archive.
    """

    __slots__ = ("_extents", "_input", "_left", "_padding", "_position", "entry", "name")

    def __init__(self, source: _Input, entry: Entry, name: bytes, stored: int, extents: list[_Extent] | None) -> None:
        self.entry = entry
        self.name = name
        self._input = source
        self._left = stored
        self._padding = -stored % _BLOCK
        self._extents = extents and extents[::-1]
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next *size* bytes of the content, fewer only at its end; all that is left if negative.

        Raises:
            LayerError: the archive ends before the content does.
        """
        left = self.entry.size - self._position
        size = left if size < 0 else min(size, left)
        if self._extents is not None:
            return self._read_sparse(size)
        self._position += size
        self._left -= size
        return self._input.take(size)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield the content that was not read yet as pairs of offset and data; holes of sparse files are left out."""
        if self._extents is None:
            while self._left:
                # In the pieces in which the stream gave them, which spares joining them.
                data = self._input.take_some(self._left)
                self._left -= len(data)
                self._position += len(data)
                yield self._position - len(data), data
            return
        while self._extents:
            offset, length = self._extents[-1]
            self._position = max(self._position, offset)
            data = self.read(min(READ_SIZE, offset + length - self._position))
            if data:
                yield self._position - len(data), data
            else:
                self._extents.pop()
        self._position = self.entry.size

    def _read_sparse(self, size: int) -> bytes:
        extents = self._extents or []  # the next one last
        parts = []
        while size:
            while extents and sum(extents[-1]) <= self._position:
                extents.pop()
            start = extents[-1][0] if extents else self.entry.size
            if self._position < start:
                data = bytes(min(size, start - self._position))
            else:
                data = self._input.take(min(size, sum(extents[-1]) - self._position))
                self._left -= len(data)
            parts.append(data)
            size -= len(data)
            self._position += len(data)
        return b"".join(parts)

    def _skip(self) -> None:
        self._input.skip(self._left + self._padding)
        self._left = self._padding = 0
        self._position = self.entry.size
        self._extents = None


class _Input:
    """A stream read in large pieces and handed out in exact ones."""

    __slots__ = ("_buffer", "_offset", "_stream", "subject")

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._offset = 0
        self.subject = b""

    def find_block(self) -> bytes | None:
        """Return the next block, or None where the stream ends."""
        end = self._offset + _BLOCK
        if end <= len(self._buffer):
            block = self._buffer[self._offset : end]
            self._offset = end
            return block
        if self._offset == len(self._buffer) and not self._fill():
            return None
        return self.take(_BLOCK)

    def take(self, size: int) -> bytes:
        end = self._offset + size
        if end <= len(self._buffer):
            data = self._buffer[self._offset : end]
            self._offset = end
            return data
        parts = []
        while size:
            if self._offset == len(self._buffer) and not self._fill():
                raise self.damaged("the archive ends in the middle of an entry")
            part = self._buffer[self._offset : self._offset + size]
            self._offset += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def take_some(self, most: int) -> bytes:
        if self._offset == len(self._buffer) and not self._fill():
            raise self.damaged("the archive ends in the middle of an entry")
        data = self._buffer[self._offset : self._offset + most]
        self._offset += len(data)
        return data

    def skip(self, size: int) -> None:
        available = len(self._buffer) - self._offset
        while size > available:
            size -= available
            if not self._fill():
                raise self.damaged("the archive ends in the middle of an entry")
            available = len(self._buffer)
        self._offset += size

    def drain(self) -> None:
        while self._fill():
            pass

    def damaged(self, reason: str) -> LayerError:
        return LayerError(reason, entry=self.subject.decode(errors="backslashreplace"))

    def _fill(self) -> bool:
        self._buffer = self._stream.read(READ_SIZE)
        self._offset = 0
        return bool(self._buffer)


def read_archive(stream: BinaryIO) -> Iterator[Member]:
    """Yield the members of an archive in their order.

    Content that was not read is skipped. The stream is read to its very end, also past the end of the archive, so that
    a stream that verifies a digest at its end gets to do so.

    Args:
        stream: the archive, not compressed; `read` may return fewer bytes than asked for. Closed by the caller.

    Raises:
        LayerError: the archive is damaged, truncated, or holds what no archive of ours may hold: names that leave the
            root, NUL bytes in names, sizes below zero, extended headers over `EXTENDED_LIMIT`.
    """
    source = _Input(stream)
    shared: dict[bytes, bytes] = {}
    while True:
        records = dict(shared)
        sparse: list[tuple[bytes, bytes]] = []
        header = _next_header(source, records, shared, sparse)
        if header is None:
            break
        member = _member(source, header, records, sparse)
        yield member
        member._skip()  # noqa: SLF001 - the two are one machine
    source.drain()


def _next_header(
    source: _Input, records: dict[bytes, bytes], shared: dict[bytes, bytes], sparse: list[tuple[bytes, bytes]]
) -> bytes | None:
    """Return the next header of a member; what stands before it is gathered in *records*, *shared* and *sparse*."""
    extended = 0
    while True:
        block = source.find_block()
        if block is None or block == _ZERO_BLOCK:
            # A missing or single empty block is accepted, as by all readers in use.
            if extended:
                raise source.damaged("the archive ends after an extended header")
            return None
        _check_sum(source, block)
        flag = block[156:157]
        if flag not in b"xgXLKV":
            return block
        size = _size(source, block[124:136])
        extended += size + _BLOCK
        if extended > EXTENDED_LIMIT:
            raise source.damaged(f"extended headers of more than {EXTENDED_LIMIT} bytes")
        data = source.take(size)
        source.skip(-size % _BLOCK)
        if flag == b"L":
            records[b"path"] = data.partition(b"\0")[0]
        elif flag == b"K":
            records[b"linkpath"] = data.partition(b"\0")[0]
        elif flag == b"g":
            _parse_records(source, data, shared, [])
            if sum(map(len, shared)) + sum(map(len, shared.values())) > EXTENDED_LIMIT:
                raise source.damaged(f"global headers of more than {EXTENDED_LIMIT} bytes")
            records.update(shared)
        elif flag in b"xX":
            _parse_records(source, data, records, sparse)


def _parse_records(source: _Input, data: bytes, records: dict[bytes, bytes], sparse: list[tuple[bytes, bytes]]) -> None:
    """Parse `LENGTH KEY=VALUE NEWLINE` records; an empty value takes an earlier one back."""
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            raise source.damaged("an extended header has a record without length")
        end = position + int(digits)
        equals = data.find(b"=", space, end)
        if not space + 2 < end <= len(data) or equals <= space + 1 or data[end - 1 : end] != b"\n":
            raise source.damaged("an extended header has a record that is cut or has no key")
        key, value = data[space + 1 : equals], data[equals + 1 : end - 1]
        if key.startswith(_SPARSE_PREFIX):
            sparse.append((key[len(_SPARSE_PREFIX) :], value))
        elif value or key.startswith((XATTR_PREFIX, _LIBARCHIVE_PREFIX)):
            records[key] = value
        else:
            records.pop(key, None)
        position = end


def _check_sum(source: _Input, block: bytes) -> None:
    try:
        expected = _parse_octal(block[148:156])
    except ValueError:
        expected = -1
    # Most bytes are zero; dropping them first halves the time of the sum.
    unsigned = sum((block[:148] + block[156:]).translate(None, b"\0")) + 8 * 0x20
    if unsigned == expected:
        return
    # Some old programs summed signed characters.
    signed = unsigned - 256 * sum(byte >= 128 for byte in block[:148] + block[156:])
    if signed != expected:
        if source.subject:
            raise source.damaged("the header that follows an entry has a wrong checksum, the archive is damaged")
        raise source.damaged("the first header has a wrong checksum, this is no tar archive")


@functools.lru_cache(maxsize=4096)
def _parse_octal(field: bytes) -> int:
    digits = field.partition(b"\0")[0].strip(b" ") or field.strip(b"\0 ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError
    return int(digits, 8)


@functools.lru_cache(maxsize=4096)
def _parse_number(field: bytes) -> int:
    """Parse a number: octal text, or binary when the first bit is set (the second is then the sign)."""
    if not field[0] & 0x80:
        return _parse_octal(field)
    number = int.from_bytes(field, "big")
    bits = 8 * len(field)
    return number - (1 << bits) if field[0] & 0x40 else number - (1 << (bits - 1))


def _number(source: _Input, field: bytes) -> int:
    try:
        return _parse_number(field)
    except ValueError:
        raise source.damaged("a header has a number that is none") from None


def _size(source: _Input, field: bytes) -> int:
    size = _number(source, field)
    if not 0 <= size <= _SIZE_LIMIT:
        raise source.damaged(f"a header has the impossible size {size}")
    return size


def _member(source: _Input, block: bytes, records: dict[bytes, bytes], sparse: list[tuple[bytes, bytes]]) -> Member:
    flag = block[156:157]
    name = records.get(b"path") or _header_name(block)
    source.subject = name
    kind = _KINDS.get(flag)
    if kind is None:
        raise source.damaged(f"an entry has the unknown type {flag!r}")
    if flag == b"\0" and name.endswith(b"/"):
        kind = _DIRECTORY
    stored = 0
    if kind is _FILE or flag == b"D":
        stored = _size(source, block[124:136])
        if b"size" in records:
            stored = _decimal(source, records, b"size", _SIZE_LIMIT)
    extents: list[_Extent] | None = None
    size = stored if kind is _FILE else 0
    if flag == b"S":
        extents = _old_sparse(source, block)
        size = _size(source, block[483:495])
    elif sparse and kind is _FILE:
        layout = _pax_sparse(source, sparse, stored)
        if layout is not None:
            name, size, stored, extents = layout[0] or name, *layout[1:]
            source.subject = name
    if extents is not None:
        _check_extents(source, extents, size, stored)
    linkname = _header_linkname(source, block, records, kind)
    entry = Entry(
        _clean(source, name),
        kind,
        *_metadata(source, block, records),
        size,
        linkname,
        (_device_part(source, block[329:337]), _device_part(source, block[337:345])) if kind in _DEVICES else (0, 0),
        _xattrs(source, records) if records else (),
    )
    return Member(source, entry, name, stored, extents)


def _metadata(source: _Input, block: bytes, records: dict[bytes, bytes]) -> tuple[int, int, int, int]:
    """Return mode, uid, gid and mtime."""
    try:
        mode = _parse_number(block[100:108]) & 0o7777
        uid = _parse_number(block[108:116])
        gid = _parse_number(block[116:124])
        mtime = _parse_number(block[136:148])
    except ValueError:
        raise source.damaged("a header has a number that is none") from None
    if records:
        if b"uid" in records:
            uid = _decimal(source, records, b"uid", _ID_LIMIT)
        if b"gid" in records:
            gid = _decimal(source, records, b"gid", _ID_LIMIT)
        if b"mtime" in records:
            mtime = _time(source, records[b"mtime"])
    if not (0 <= uid <= _ID_LIMIT and 0 <= gid <= _ID_LIMIT):
        raise source.damaged(f"an entry has the impossible owner {uid}:{gid}")
    if not -_TIME_LIMIT < mtime < _TIME_LIMIT:
        raise source.damaged(f"an entry has the impossible mtime {mtime}")
    return mode, uid, gid, mtime


def _header_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] != b"ustar\0":  # GNU and v7 have other things where the prefix would be
        return name
    # star keeps times behind a shorter prefix.
    prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _header_linkname(source: _Input, block: bytes, records: dict[bytes, bytes], kind: EntryKind) -> bytes:
    if kind is not EntryKind.SYMLINK and kind is not _HARDLINK:
        return b""
    linkname = records.get(b"linkpath") or block[157:257].partition(b"\0")[0]
    if kind is _HARDLINK:
        return _clean(source, linkname)
    if b"\0" in linkname:
        raise source.damaged("a symbolic link holds a NUL byte")
    return linkname


def _clean(source: _Input, name: bytes) -> bytes:
    """Return a name in the form of `Entry.path`; absolute names are relative to the root."""
    if b"\0" in name:
        raise source.damaged("a name holds a NUL byte")
    if name.startswith(b"./") and len(name) > 2:
        name = name[2:]
    if not name.startswith((b"/", b".")) and b"/." not in name and b"//" not in name:
        return name[:-1] if name.endswith(b"/") else name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise source.damaged(f"the name {name.decode(errors='backslashreplace')!r} leaves the root")
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


def _device_part(source: _Input, field: bytes) -> int:
    number = _number(source, field)
    if not 0 <= number < 1 << 32:
        raise source.damaged(f"an entry has the impossible device number {number}")
    return number


def _decimal(source: _Input, records: dict[bytes, bytes], key: bytes, most: int) -> int:
    value = records[key]
    if len(value) <= 20 and value.isdigit() and int(value) <= most:
        return int(value)
    raise source.damaged(f"an extended header has the impossible {key.decode()} {value[:40]!r}")


def _time(source: _Input, value: bytes) -> int:
    """Parse decimal seconds with fraction, rounding towards the past."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole[1:] if negative else whole
    if not digits.isdigit() or len(digits) > 18 or (fraction and not fraction.isdigit()):
        raise source.damaged(f"an extended header has the impossible mtime {value[:40]!r}")
    seconds = int(digits)
    if not negative:
        return seconds
    return -seconds - 1 if fraction.strip(b"0") else -seconds


def _xattrs(source: _Input, records: dict[bytes, bytes]) -> tuple[tuple[str, bytes], ...]:
    """Return the xattrs in order of their names; star's form wins over libarchive's."""
    found: dict[str, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE_PREFIX):
            import base64  # noqa: PLC0415 - only archives of bsdtar need it
            from urllib.parse import unquote_to_bytes  # noqa: PLC0415

            name = unquote_to_bytes(key[len(_LIBARCHIVE_PREFIX) :]).decode(errors="surrogateescape")
            try:
                found.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4)))
            except ValueError:
                raise source.damaged(f"the xattr {name!r} is not base64") from None
        elif key.startswith(XATTR_PREFIX):
            found[key[len(XATTR_PREFIX) :].decode(errors="surrogateescape")] = value
    if any("\0" in name for name in found):
        raise source.damaged("the name of an xattr holds a NUL byte")
    return tuple(sorted(found.items()))


def _old_sparse(source: _Input, block: bytes) -> list[_Extent]:
    """Read the map of an old GNU sparse file, from the header and the blocks that continue it."""
    extents: list[_Extent] = []
    fields, more = block[386:482], block[482]
    while True:
        for start in range(0, len(fields), 24):
            length = fields[start + 12 : start + 24]
            if not length[0]:
                break
            extents.append((_size(source, fields[start : start + 12]), _size(source, length)))
        if not more:
            return extents
        if len(extents) > _SPARSE_LIMIT:
            raise source.damaged("a sparse file has too many pieces")
        continued = source.take(_BLOCK)
        fields, more = continued[:504], continued[504]


def _pax_sparse(
    source: _Input, sparse: list[tuple[bytes, bytes]], stored: int
) -> tuple[bytes, int, int, list[_Extent]] | None:
    """Return name, size, stored bytes left, and map of a PAX sparse file (0.0, 0.1, 1.0), or None if it is none."""
    values = dict(sparse)
    size_text = values.get(b"realsize") or values.get(b"size")
    if size_text is None:
        return None
    size = _decimal(source, {b"size": size_text}, b"size", _SIZE_LIMIT)
    if values.get(b"major") == b"1":
        extents, used = _map_in_content(source, stored)
        return values.get(b"name", b""), size, stored - used, extents
    if b"map" in values:
        numbers = values[b"map"].split(b",") if values[b"map"] else []
    else:
        numbers = [value for key, value in sparse if key in {b"offset", b"numbytes"}]
    if len(numbers) % 2 or not all(number.isdigit() and len(number) < 20 for number in numbers):
        raise source.damaged("a sparse file has a map that cannot be")
    pairs = iter(int(number) for number in numbers)
    return values.get(b"name", b""), size, stored, list(zip(pairs, pairs, strict=True))


def _map_in_content(source: _Input, stored: int) -> tuple[list[_Extent], int]:
    """Read the map that begins the content of a PAX 1.0 sparse file: lines of decimals, filled to whole blocks."""
    data = b""
    used = 0
    wanted = 1
    while data.count(b"\n") < wanted:
        # The number of lines is known once the first is there; reading them together keeps this linear.
        missing = wanted - data.count(b"\n")
        blocks = max(1, min(missing // 256, 64))
        if used + blocks * _BLOCK > stored + -stored % _BLOCK:
            blocks = 1
        used += blocks * _BLOCK
        if used > stored + -stored % _BLOCK or used > 40 * _SPARSE_LIMIT:
            raise source.damaged("a sparse file has a map that cannot be")
        data += source.take(blocks * _BLOCK)
        first, newline, _ = data.partition(b"\n")
        if len(first) > 20 or (newline and not first.isdigit()) or (newline and int(first) > _SPARSE_LIMIT):
            raise source.damaged("a sparse file has a map that cannot be")
        if newline:
            wanted = 1 + 2 * int(first)
    lines = data.split(b"\n")[1:wanted]
    if not all(line.isdigit() and len(line) < 20 for line in lines):
        raise source.damaged("a sparse file has a map that cannot be")
    pairs = iter(int(line) for line in lines)
    return list(zip(pairs, pairs, strict=True)), min(used, stored)


def _check_extents(source: _Input, extents: list[_Extent], size: int, stored: int) -> None:
    position = 0
    total = 0
    for offset, length in extents:
        if offset < position:
            raise source.damaged("a sparse file has pieces that overlap")
        position = offset + length
        total += length
    if position > size or total != stored:
        raise source.damaged("a sparse file has a map that does not fit its content")
