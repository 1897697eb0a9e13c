"""Content digests of a selection: what a COPY puts into its cache key.

In the digest of a source: its last name, and for everything copied the relative name, type, mode bits, owner, size,
text of a symbolic link, device number, capabilities and bytes. Not in it: times, the directory a source lies in, and
what is not copied. Every part is framed by its length.

Source: spec, section 3.5.
"""

from __future__ import annotations

import errno
import hashlib
import marshal
import os
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

from builder.context.fingerprint import is_racy
from builder.context.select import InlineFile
from builder.context.walk import Opener, changed_error
from runtime.layers.xattrs import CAPABILITY, layer_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from builder.context.fingerprint import FingerprintRow, Fingerprints
    from builder.context.select import Selected, Selection
    from builder.context.walk import Found, SourceRoot

_HEADER = struct.Struct(">IIIIQQI")
_INLINE_MODE = stat.S_IFREG | 0o644
_CHUNK = 256
"""Files a thread takes at a time; consecutive ones mostly share a directory."""
_THREADED = 512
"""Fewer files than this are not worth a thread, unless they are large."""
_LARGE = 4 << 20
_BUFFER = 1 << 20

FileDigests = dict[tuple[int, int], bytes]
"""Device and inode to digest."""


class ListedSource(NamedTuple):
    """What the digest of one source was made of.

    Attributes:
        name: last name of the source.
        prefix: what to put before the names in the records to get paths below the source root.
        records: one a file, for `read_records`.
    """

    name: bytes
    prefix: bytes
    records: bytes


class FileRecord(NamedTuple):
    """One file of a source, as it enters the digest.

    Attributes:
        name: relative to the source, empty for a source that is no directory.
        mode: type and mode bits.
        uid: the owner.
        gid: the group.
        size: of a regular file.
        device: number of a device.
        content: digest of a regular file, text of a symbolic link.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    device: int
    content: bytes


def digest_selection(
    selection: Selection,
    fingerprints: Fingerprints | None,
    *,
    now_ns: int,
    listed: list[ListedSource] | None = None,
    at_sight: bool = True,
    copied: FileDigests | None = None,
) -> tuple[tuple[str, str], ...]:
    """Digest each source of *selection*.

    Args:
        selection: what is copied.
        fingerprints: known digests of files, completed by what had to be read; None to read everything (views of
            stages, whose device numbers mean nothing after the build).
        now_ns: the time, before any file is read.
        listed: takes what the digest of each source was made of, unless all were known at sight.
        at_sight: whether what lstat says of a source is enough, if it is known, and is remembered if it is not.
        copied: digests of files that were read since *now_ns* on their way into a layer. What is known from before
            does not count then, and young ones among them are read once more (`SourceRoot.young`).

    Returns:
        For each source its last name and the digest as 64 hex digits, in order.

    Raises:
        ContextError: a file cannot be read, or changed since it was selected.
    """
    sources = [source for source in selection.sources if not isinstance(source, InlineFile)]
    root = selection.root
    digests: list[str] | None = None
    sights: list[bytes] = []
    seen = fingerprints if at_sight else None
    if seen is not None:
        keep_owner = root is not None and root.keep_owner
        sights = [_digest_sight(source, keep_owner=keep_owner) for source in sources]
        known = [] if copied is not None else [one for one in map(seen.find_sight, sights) if one is not None]
        digests = known if copied is None and len(known) == len(sources) else None
    if digests is None:
        digests = _digest_sources(root, sources, fingerprints, now_ns, listed, copied)
        if seen is not None:
            for source, sight, digest in zip(sources, sights, digests, strict=True):
                if not any(is_racy(found[1], now_ns) for found in _regular_files(source)):
                    seen.store_sight(sight, digest)
    answers = iter(digests)
    return tuple(
        (
            source.name.decode("utf-8", "surrogateescape"),
            _digest_inline(source) if isinstance(source, InlineFile) else next(answers),
        )
        for source in selection.sources
    )


def _digest_sources(
    root: SourceRoot | None,
    sources: Sequence[Selected],
    fingerprints: Fingerprints | None,
    now_ns: int,
    listed: list[ListedSource] | None,
    copied: FileDigests | None,
) -> list[str]:
    if root is None or not sources:
        return []
    digests = _file_digests(root, sources, fingerprints, now_ns, copied)
    answers = []
    for source in sources:
        records = _records(source, digests, keep_owner=root.keep_owner)
        if listed is not None:
            path = source.item.path
            listed.append(ListedSource(source.name, path + b"/" if source.skip else path, records))
        state = hashlib.sha256(_frame(source.name))
        state.update(records)
        answers.append(state.hexdigest())
    return answers


def read_records(records: bytes) -> Iterator[FileRecord]:
    """Give the files of a `ListedSource` one by one."""
    at = 0
    while at < len(records):
        length, mode, uid, gid, size, device, link_length = _HEADER.unpack_from(records, at)
        at += _HEADER.size
        name = records[at : at + length]
        at += length
        length = hashlib.sha256().digest_size if stat.S_ISREG(mode) else link_length
        yield FileRecord(name, mode, uid, gid, size, device, records[at : at + length])
        at += length


class CheckedFile:
    """An open file that is read, and then compared with what was found, and digested, before.

    It reads like a binary stream as far as writers of layers and readers of archives ask for it. A young file
    (`SourceRoot.young`) is digested on the way, any other one is compared by its stamps.

    Args:
        root: where it was found.
        opener: has opened it.
        found: the file.
        fd: the file, at its beginning; the caller closes it.
    """

    __slots__ = ("_digest", "_fd", "_found", "_opener", "_root", "_state")

    def __init__(self, root: SourceRoot, opener: Opener, found: Found, fd: int) -> None:
        self._root = root
        self._opener = opener
        self._found = found
        self._fd = fd
        self._digest = root.young.get((found.stat.st_dev, found.stat.st_ino)) if root.young else None
        self._state = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Give the next bytes, none at the end."""
        data = os.read(self._fd, _BUFFER if size < 0 else size)
        if self._digest is not None:
            self._state.update(data)
        return data

    def close(self) -> None:
        """Leave the file open, as its descriptor is the caller's."""

    def check(self) -> None:
        """Make sure that what was read is what was digested; reads what is left.

        Raises:
            ContextError: the file was written to.
        """
        if self._digest is None:
            self._opener.check(self._found, self._fd)
            return
        while self.read():
            pass
        digest = self._state.digest()
        if self._found.stat.st_mode & 0o111:
            digest = add_capability(digest, read_capability(self._fd))
        if digest != self._digest:
            raise changed_error(self._root, self._found.path)


def check_unchanged(before: Selection, after: Selection) -> None:
    """Make sure that what was digested is what others read since, who did not go through a `CheckedFile`.

    Args:
        before: what was selected and digested.
        after: the same, selected again.

    Raises:
        ContextError: something was written to, came or went.
    """
    root = after.root
    if root is None or root.young is None:
        return
    was, now = dict(_stamps(before)), dict(_stamps(after))
    for path in sorted(was.keys() | now.keys()):
        if was.get(path) != now.get(path):
            raise changed_error(root, path)
    with Opener(root) as opener:
        sources = [source for source in after.sources if not isinstance(source, InlineFile)]
        for found in (found for source in sources for found in _regular_files(source)):
            if (found.stat.st_dev, found.stat.st_ino) in root.young:
                fd = opener.open(found)
                try:
                    CheckedFile(root, opener, found, fd).check()
                finally:
                    os.close(fd)


def _stamps(selection: Selection) -> Iterator[tuple[bytes, tuple[object, ...]]]:
    """Give what tells whether something changed: of a directory only its mode, as what is in it speaks for itself."""
    for source in selection.sources:
        if isinstance(source, InlineFile):
            continue
        for path, status, linkname in (source.item, *source.below):
            if stat.S_ISDIR(status.st_mode):
                yield path, (status.st_mode,)
            else:
                size, times = status.st_size, (status.st_mtime_ns, status.st_ctime_ns)
                yield path, (status.st_mode, status.st_ino, size, *times, linkname)


def add_capability(digest: bytes, capability: bytes | None) -> bytes:
    """Give the digest of a file from that of its bytes."""
    return digest if capability is None else hashlib.sha256(b"capability" + digest + capability).digest()


def read_capability(fd: int) -> bytes | None:
    """Give the capabilities of an open file as they stand in a layer; None if it has none.

    Of all extended attributes of a source only these are copied: `user.*` of a context says where a file was
    downloaded from and the like, which would make layers depend on who builds them.
    """
    try:
        return layer_value(CAPABILITY, os.getxattr(fd, CAPABILITY))
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES}:
            return None
        raise


def _frame(name: bytes) -> bytes:
    return len(name).to_bytes(4, "big") + name


def _digest_inline(file: InlineFile) -> str:
    state = hashlib.sha256(_frame(file.name))
    state.update(_HEADER.pack(0, _INLINE_MODE, 0, 0, len(file.content), 0, 0))
    state.update(hashlib.sha256(file.content).digest())
    return state.hexdigest()


def _digest_sight(source: Selected, *, keep_owner: bool) -> bytes:
    """Digest all that lstat says of what is copied, but times of access: the same again is the same content.

    It takes a fifth of the time of looking up the fingerprint of each of many files. marshal is the quickest encoder
    that tells any two values apart; version 2 has no references, so equal values have equal bytes.
    """
    rows = [
        (path, status[:7], status.st_mtime_ns, status.st_ctime_ns, status.st_rdev, linkname)
        for path, status, linkname in (source.below if source.is_directory else (source.item,))
    ]
    sight = (source.name, source.skip, source.is_directory, keep_owner, rows)
    return hashlib.sha256(marshal.dumps(sight, 2)).digest()


def _regular_files(source: Selected) -> Iterator[Found]:
    is_regular = stat.S_ISREG
    for found in source.below if source.is_directory else (source.item,):
        if is_regular(found[1].st_mode):
            yield found


def _records(source: Selected, digests: FileDigests, *, keep_owner: bool) -> bytes:
    """Give one record a file: a header of fixed size, the name, then the digest or link text that its type calls for."""
    pack, skip = _HEADER.pack, source.skip
    is_regular, is_link = stat.S_ISREG, stat.S_ISLNK
    records: list[bytes] = []
    if not source.is_directory:
        items: Sequence[Found] = (source.item._replace(path=b""),)
        skip = 0
    else:
        items = source.below
    uid = gid = 0
    for path, status, linkname in items:
        mode = status.st_mode
        name = path[skip:]
        if keep_owner:
            uid, gid = status.st_uid, status.st_gid
        if is_regular(mode):
            records.append(pack(len(name), mode, uid, gid, status.st_size, 0, 0))
            records.append(name)
            records.append(digests[status.st_dev, status.st_ino])
        elif is_link(mode):
            records.append(pack(len(name), mode, uid, gid, 0, 0, len(linkname)))
            records.append(name)
            records.append(linkname)
        else:
            records.append(pack(len(name), mode, uid, gid, 0, status.st_rdev, 0))
            records.append(name)
    return b"".join(records)


def _file_digests(
    root: SourceRoot,
    sources: Iterable[Selected],
    fingerprints: Fingerprints | None,
    now_ns: int,
    copied: FileDigests | None,
) -> FileDigests:
    """Find the digest of every regular file, reading only those that are unknown."""
    files: dict[tuple[int, int], Found] = {}
    for source in sources:
        for found in _regular_files(source):
            status = found[1]
            files.setdefault((status.st_dev, status.st_ino), found)
    digests: FileDigests = {}
    if copied is not None:
        digests.update(copied)
        _check_copied(root, files, copied, now_ns)
    elif fingerprints is not None and files:
        known = fingerprints.load(files.keys())
        for key, found in files.items():
            print_ = known.get(key)
            if print_ is not None:
                size, mtime_ns, ctime_ns, digest = print_
                status = found[1]
                if status.st_size == size and status.st_mtime_ns == mtime_ns and status.st_ctime_ns == ctime_ns:
                    digests[key] = digest
    unknown = [found for key, found in files.items() if key not in digests] if digests else list(files.values())
    digests.update(zip(map(_key, unknown), _hash_files(root, unknown), strict=True))
    new = unknown if copied is None else files.values()
    rows: list[FingerprintRow] = []
    young = root.young
    for found in new:
        status = found.stat
        digest = digests[status.st_dev, status.st_ino]
        if is_racy(status, now_ns):
            if young is not None:
                young[status.st_dev, status.st_ino] = digest
        elif fingerprints is not None:
            rows.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest))
    if fingerprints is not None and rows:
        fingerprints.store(rows)
    return digests


def _check_copied(root: SourceRoot, files: Mapping[tuple[int, int], Found], copied: FileDigests, now_ns: int) -> None:
    """Make sure that no file was written to while it was copied, where its stamps might not show it."""
    if root.young is None:
        return
    young = [found for key, found in files.items() if key in copied and is_racy(found.stat, now_ns)]
    for found, digest in zip(young, _hash_files(root, young), strict=True):
        if digest != copied[_key(found)]:
            raise changed_error(root, found.path)


def _key(found: Found) -> tuple[int, int]:
    return found.stat.st_dev, found.stat.st_ino


def _hash_files(root: SourceRoot, files: Sequence[Found]) -> list[bytes]:
    """Hash *files*, on two threads if there is enough to do; digests in the order of *files*."""
    digests: list[bytes] = [b""] * len(files)
    if len(files) < _THREADED and sum(found.stat.st_size for found in files) < _LARGE:
        _hash_chunk(root, files, digests, 0, len(files))
        return digests
    import threading  # noqa: PLC0415 - a build whose files are all known starts no thread

    starts = iter(range(0, len(files), _CHUNK if len(files) >= _THREADED else 1))
    step = _CHUNK if len(files) >= _THREADED else 1
    failures: list[BaseException] = []

    def work() -> None:
        # next() on a range iterator is one step of the interpreter, so both threads may draw from it.
        for start in starts:
            if failures:
                return
            try:
                _hash_chunk(root, files, digests, start, min(start + step, len(files)))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                failures.append(error)
                return

    second = threading.Thread(target=work, name="hash", daemon=True)
    second.start()
    work()
    second.join()
    if failures:
        raise failures[0]
    return digests


def _hash_chunk(root: SourceRoot, files: Sequence[Found], digests: list[bytes], start: int, end: int) -> None:
    sha256, read, close = hashlib.sha256, os.read, os.close
    with Opener(root) as opener:
        for at in range(start, end):
            found = files[at]
            fd = opener.open(found)
            try:
                size = found[1].st_size
                if size < _BUFFER:
                    data = read(fd, size + 1)
                    count, digest = len(data), sha256(data).digest()
                else:
                    count, digest = _hash_stream(fd)
                if count != size:
                    raise changed_error(root, found[0])
                if found[1].st_mode & 0o111:
                    digest = add_capability(digest, read_capability(fd))
                digests[at] = digest
            finally:
                close(fd)


def _hash_stream(fd: int) -> tuple[int, bytes]:
    state = hashlib.sha256()
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    total = 0
    while count := os.readv(fd, [buffer]):
        state.update(view[:count])
        total += count
    return total, state.digest()
