"""Fingerprints: the digest of a file remembered by what its inode says, so that an unchanged file is not read again.

A file counts as unchanged while device, inode, size, mtime and ctime are the same. A change within the granularity of
the clock after a file was read would not show; therefore a file that was changed shortly before it is looked at is
*racy*: its digest is used but not remembered. It is hashed again for a layer that it goes into, where others are
compared by their stamps (`SourceRoot.young`).

What no stamp shows stays unseen: a program that writes to a file it has mapped, once it has done so already.

A *sight* is all that lstat(2) says of what one argument of a COPY takes. While it is the same, so is the content
digest of the argument, and none of its files needs to be asked for.

Source: git, Documentation/technical/racy-git.txt.
"""

from __future__ import annotations

import struct
from itertools import starmap
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

RACY_NS = 2_000_000_000
"""Nanoseconds for which a change is too young to trust; the coarsest clock in use (FAT) counts two seconds."""

_SECOND_NS = 1_000_000_000

FileKey = tuple[int, int]
"""Device and inode."""

FileState = bytes
"""Device, inode, size, mtime_ns, ctime_ns in the form of `STATE`: a file while it counts as unchanged."""

STATE: Final = struct.Struct(">QQQqq")
"""The form of a state: all without a sign but times, since some file systems use all 64 bits of an inode's number."""

NAME: Final = struct.Struct(">QQ")
"""The form of what a state begins with: device and inode, which sort as their bytes do."""

FingerprintRow = tuple[FileState, bytes]
"""The state of a file and its digest: 32 bytes of sha256 over its content and its capabilities."""

_parts_of = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


def states_of(statuses: Iterable[os.stat_result]) -> Iterator[FileState]:
    """Give the state of each file."""
    return starmap(STATE.pack, map(_parts_of, statuses))


key_of: Callable[[os.stat_result], FileKey] = attrgetter("st_dev", "st_ino")
"""Give the key of a file."""

_times_of = attrgetter("st_mtime_ns", "st_ctime_ns")


class Fingerprints(Protocol):
    """Where fingerprints are kept. Methods are called from one thread at a time."""

    def load(self, keys: Collection[FileKey]) -> Mapping[FileState, bytes]:
        """Give the digests that are known of *keys*, each for one state; more than was asked for may be given."""
        ...

    def store(self, rows: Iterable[FingerprintRow]) -> None:
        """Remember rows; what was known of the same file is replaced."""
        ...

    def find_sight(self, sight: bytes) -> str | None:
        """Give the content digest of what had this sight, named by its sha256."""
        ...

    def store_sight(self, sight: bytes, digest: str) -> None:
        """Remember the content digest of a sight in which no file is racy."""
        ...


class MemoryFingerprints:
    """Fingerprints that live as long as the object."""

    def __init__(self) -> None:
        self.known: dict[bytes, FingerprintRow] = {}
        self.sights: dict[bytes, str] = {}

    def load(self, keys: Collection[FileKey]) -> Mapping[FileState, bytes]:  # noqa: ARG002 - all is at hand
        """Give everything that is known."""
        return dict(self.known.values())

    def store(self, rows: Iterable[FingerprintRow]) -> None:
        """Remember rows."""
        self.known.update({row[0][: NAME.size]: row for row in rows})

    def find_sight(self, sight: bytes) -> str | None:
        """Give what is known of a sight."""
        return self.sights.get(sight)

    def store_sight(self, sight: bytes, digest: str) -> None:
        """Remember a sight."""
        self.sights[sight] = digest


def find_racy(statuses: Iterable[os.stat_result], now_ns: int) -> list[int]:
    """Find the files that were changed so shortly before *now_ns* that a further change may not show.

    Args:
        statuses: of files.
        now_ns: before their contents were read.

    Returns:
        Their places, counted from 0.
    """
    young_ns, old_ns = now_ns - RACY_NS, now_ns + RACY_NS
    return [
        at
        for at, (modified_ns, changed_ns) in enumerate(map(_times_of, statuses))
        if changed_ns > young_ns
        or young_ns < modified_ns < old_ns
        # Whole seconds, the same twice, are what file systems give that keep no time of change: images (squashfs, ISO
        # 9660), where another one may come to the same device number, and many in user space.
        or (changed_ns == modified_ns and changed_ns % _SECOND_NS == 0)
    ]
