"""Content digests of a selection: what a COPY puts into its cache key.

In the digest of a source: its last name, and for everything copied the relative name, type, mode bits, owner, size,
text of a symbolic link, device number, capabilities and bytes. Not in it: times, the directory a source lies in, and
what is not copied. Every part is framed by its length.

Source: spec, section 3.5.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import time
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from builder.context.contents import digest_found
from builder.context.fingerprint import find_racy, key_of, states_of
from builder.context.select import InlineFile
from builder.context.walk import CHUNK, Opener, changed_error
from builder.errors import ContextError
from runtime.layers.xattrs import CAPABILITY, layer_value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from builder.context.fingerprint import FileKey, Fingerprints
    from builder.context.root import SourceRoot
    from builder.context.select import Selected, Selection
    from builder.context.walk import Found
    from builder.source import Span

_HEADER = struct.Struct(">IIIIQQI")
_INLINE_MODE = stat.S_IFREG | 0o644
_SHARE = 256
"""Files a thread takes at a time; consecutive ones mostly share a directory."""
_THREADED = 512
"""Fewer files than this are not worth a thread, unless they are large."""
_LARGE = 4 << 20
_BUFFER = 1 << 20

_links_of = attrgetter("st_nlink")
_status_of: Callable[[Found], os.stat_result] = attrgetter("stat")

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


class Listed(Protocol):
    """Takes what digests are made of, one source after the other."""

    def begin(self, name: bytes, prefix: bytes) -> None:
        """Begin a source; as `ListedSource`."""
        ...

    def add(self, records: bytes) -> None:
        """Take further records of the source."""
        ...


def digest_selection(
    selection: Selection,
    fingerprints: Fingerprints | None,
    *,
    now_ns: int,
    listed: Callable[[], Listed] | None = None,
    at_sight: bool = True,
) -> tuple[tuple[str, str], ...]:
    """Digest each source of *selection*.

    Args:
        selection: what is copied.
        fingerprints: known digests of files, completed by what had to be read; None to read everything (views of
            stages, whose device numbers mean nothing after the build).
        now_ns: the time, before any file is read.
        listed: gives what takes that which the digest of each source was made of; not called if all were known at sight.
        at_sight: whether what lstat says of a source is enough, if it is known, and is remembered if it is not.

    Returns:
        For each source its last name and the digest as 64 hex digits, in order.

    Raises:
        ContextError: a file cannot be read, or changed since it was selected.
    """
    sources = [source for source in selection.sources if not isinstance(source, InlineFile)]
    digests: list[str] | None = None
    if fingerprints is not None and at_sight:
        sights = (digest_sight(source, selection.root) for source in sources)
        known = [digest for digest in map(fingerprints.find_sight, sights) if digest is not None]
        digests = known if len(known) == len(sources) else None
    if digests is None:
        made = SourceDigests(selection.root, sources, fingerprints, now_ns, listed() if listed is not None else None)
        for number, source in enumerate(sources):
            for chunk in source.chunks():
                made.take(number, chunk)
        digests = made.finish(keep_sights=at_sight)
    return with_inline(selection, digests)


def digest_files(
    selection: Selection,
    fingerprints: Fingerprints | None,
    *,
    span: Span | None,
    listed: Callable[[], Listed] | None = None,
    at_sight: bool = True,
) -> str:
    """Give the content digest of a selection as one text; see `digest_selection`.

    Raises:
        ContextError: a file cannot be read; at *span*, the instruction that names it.
    """
    try:
        digests = digest_selection(selection, fingerprints, now_ns=time.time_ns(), listed=listed, at_sight=at_sight)
    except ContextError as error:
        error.span = error.span or span
        raise
    return join_digests(digests)


def join_digests(digests: Iterable[tuple[str, str]]) -> str:
    """Give names and digests of sources as one text."""
    return " ".join(f"{name}={digest}" for name, digest in digests)


def with_inline(selection: Selection, digests: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Give name and digest of each source, if *digests* are those of all but the inline files."""
    answers = iter(digests)
    return tuple(
        (
            source.name.decode("utf-8", "surrogateescape"),
            _digest_inline(source) if isinstance(source, InlineFile) else next(answers),
        )
        for source in selection.sources
    )


class SourceDigests:
    """The digests of sources in the making; takes their files in order, a number of them at a time.

    Args:
        root: where they are.
        sources: those of a selection, without inline files.
        fingerprints: known digests of files, completed by what had to be read; None to read everything.
        now_ns: the time, before any file is read.
        listed: takes what the digests are made of.
        copied: digests of files that were read since *now_ns* on their way into a layer. Then nothing that is known
            from before counts, and young ones among them are read once more (`SourceRoot.young`).
    """

    def __init__(
        self,
        root: SourceRoot | None,
        sources: Sequence[Selected],
        fingerprints: Fingerprints | None,
        now_ns: int,
        listed: Listed | None,
        *,
        copied: FileDigests | None = None,
    ) -> None:
        self._root = root
        self._sources = sources
        self._fingerprints = fingerprints
        self._now_ns = now_ns
        self._listed = listed
        self._copied = copied
        self._states = [hashlib.sha256(_frame(source.name)) for source in sources]
        self._racy: set[int] = set()
        self._begun = 0
        self._waiting: list[tuple[int, list[Found]]] = []
        self._count = 0
        self._linked: FileDigests = {}

    def take(self, number: int, chunk: list[Found]) -> None:
        """Take the next files of a source; they are digested with others if they are few."""
        self._waiting.append((number, chunk))
        self._count += len(chunk)
        if self._count >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Digest the files that were taken.

        Raises:
            ContextError: one cannot be read, or is not what was found.
        """
        waiting, self._waiting, self._count = self._waiting, [], 0
        if not waiting or self._root is None:
            return
        digests = self._digest_files(self._root, waiting)
        for number, chunk in waiting:
            records = _records(self._sources[number], chunk, digests, keep_owner=self._root.keep_owner)
            self._states[number].update(records)
            if self._listed is not None:
                self._begin(number)
                self._listed.add(records)

    def finish(self, *, keep_sights: bool) -> list[str]:
        """Give the digests of all sources, when all their files were taken.

        Args:
            keep_sights: remember the digests of sources by their sights, but for those with racy files.
        """
        self.flush()
        self._begin(len(self._sources) - 1)
        digests = [state.hexdigest() for state in self._states]
        if keep_sights and self._fingerprints is not None:
            for number, source in enumerate(self._sources):
                if number not in self._racy:
                    self._fingerprints.store_sight(digest_sight(source, self._root), digests[number])
        return digests

    def _begin(self, number: int) -> None:
        """Tell who lists about the sources up to a number."""
        while self._listed is not None and self._begun <= number:
            source = self._sources[self._begun]
            path = source.item.path
            self._listed.begin(source.name, path + b"/" if source.skip else path)
            self._begun += 1

    def _digest_files(self, root: SourceRoot, waiting: Iterable[tuple[int, list[Found]]]) -> FileDigests:
        """Find the digest of every regular file, reading only those that are unknown; racy ones mark their sources."""
        files: dict[FileKey, Found] = {}
        racy: set[FileKey] = set()
        linked: list[FileKey] = []
        for number, chunk in waiting:
            regular = [found for found in chunk if found[1].st_mode & 0o170000 == stat.S_IFREG]
            statuses = [found[1] for found in regular]
            keys = list(map(key_of, statuses))
            files.update(zip(keys, regular, strict=True))
            young = find_racy(statuses, self._now_ns)
            if young:
                racy.update([keys[at] for at in young])
                self._racy.add(number)
            if max(map(_links_of, statuses), default=1) > 1:
                linked += [key for key, status in zip(keys, statuses, strict=True) if status.st_nlink > 1]
        digests = self._known_digests(root, files, racy)
        unknown = [found for key, found in files.items() if key not in digests] if digests else list(files.values())
        for found, digest in zip(unknown, _hash_files(root, unknown), strict=True):
            digests[found.stat.st_dev, found.stat.st_ino] = digest
        self._remember(root, files.values() if self._copied is not None else unknown, digests, racy)
        for key in linked:
            self._linked[key] = digests[key]
        return digests

    def _known_digests(
        self, root: SourceRoot, files: Mapping[tuple[int, int], Found], racy: Collection[tuple[int, int]]
    ) -> FileDigests:
        # Names of one file may be far from each other, and all have to have one digest.
        digests = {key: self._linked[key] for key in files.keys() & self._linked.keys()} if self._linked else {}
        if self._copied is not None:
            _check_copied(root, [files[key] for key in racy if key in self._copied], self._copied)
            return self._copied | digests
        if self._fingerprints is not None and files:
            known = self._fingerprints.load(files.keys())
            states = states_of(map(_status_of, files.values()))
            digests |= {
                key: digest for key, digest in zip(files, map(known.get, states), strict=True) if digest is not None
            }
        return digests

    def _remember(
        self, root: SourceRoot, read: Iterable[Found], digests: FileDigests, racy: Collection[tuple[int, int]]
    ) -> None:
        known: list[os.stat_result] = []
        young = root.young
        for _, status, _ in read:
            key = (status.st_dev, status.st_ino)
            if key not in racy:
                known.append(status)
            elif young is not None and self._copied is None:
                young[key] = digests[key]
        if self._fingerprints is not None and known:
            found = [digests[key] for key in map(key_of, known)]
            self._fingerprints.store(zip(states_of(known), found, strict=True))


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
        for path, status, linkname in chain((source.item,), source.below):
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


def digest_sight(source: Selected, root: SourceRoot | None) -> bytes:
    """Digest all that lstat says of what is copied: the same again is the same content.

    It takes a fifth of the time of looking up the fingerprint of each of many files.
    """
    below = source.below
    what = digest_found(source.item) if isinstance(below, tuple) else below.sight()
    keep_owner = root is not None and root.keep_owner
    return hashlib.sha256(
        _frame(source.name) + b"%d %d %d " % (source.skip, source.is_directory, keep_owner) + what
    ).digest()


def _regular_files(source: Selected) -> Iterator[Found]:
    is_regular = stat.S_ISREG
    for chunk in source.chunks():
        for found in chunk:
            if is_regular(found[1].st_mode):
                yield found


def _records(source: Selected, chunk: Iterable[Found], digests: FileDigests, *, keep_owner: bool) -> bytes:
    """Give one record a file: a header of fixed size, the name, then the digest or link text that its type calls for."""
    pack, skip = _HEADER.pack, source.skip
    is_regular, is_link = stat.S_ISREG, stat.S_ISLNK
    records: list[bytes] = []
    if not source.is_directory:
        skip = len(source.item.path)
    uid = gid = 0
    for path, status, linkname in chunk:
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


def _check_copied(root: SourceRoot, files: Sequence[Found], copied: FileDigests) -> None:
    """Make sure that files were not written to while they were copied, where their stamps might not show it."""
    if root.young is None:
        return
    for found, digest in zip(files, _hash_files(root, files), strict=True):
        if digest != copied[found.stat.st_dev, found.stat.st_ino]:
            raise changed_error(root, found.path)


def _hash_files(root: SourceRoot, files: Sequence[Found]) -> list[bytes]:
    """Hash *files*, on two threads if there is enough to do; digests in the order of *files*."""
    digests: list[bytes] = [b""] * len(files)
    if len(files) < _THREADED and sum(found.stat.st_size for found in files) < _LARGE:
        _hash_chunk(root, files, digests, 0, len(files))
        return digests
    import threading  # noqa: PLC0415 - a build whose files are all known starts no thread

    starts = iter(range(0, len(files), _SHARE if len(files) >= _THREADED else 1))
    step = _SHARE if len(files) >= _THREADED else 1
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
