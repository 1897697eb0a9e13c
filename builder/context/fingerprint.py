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

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping

RACY_NS = 2_000_000_000
"""Nanoseconds for which a change is too young to trust; the coarsest clock in use (FAT) counts two seconds."""

_SECOND_NS = 1_000_000_000

FileKey = tuple[int, int]
"""Device and inode."""

Fingerprint = tuple[int, int, int, bytes]
"""Size, mtime_ns, ctime_ns, and the digest: 32 bytes of sha256 over the content and the capabilities of the file."""

FingerprintRow = tuple[int, int, int, int, int, bytes]
"""Device, inode, size, mtime_ns, ctime_ns, digest."""


class Fingerprints(Protocol):
    """Where fingerprints are kept. Methods are called from one thread at a time."""

    def load(self, keys: Collection[FileKey]) -> Mapping[FileKey, Fingerprint]:
        """Give what is known of *keys*; more than was asked for may be given."""
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
        self.known: dict[FileKey, Fingerprint] = {}
        self.sights: dict[bytes, str] = {}

    def load(self, keys: Collection[FileKey]) -> Mapping[FileKey, Fingerprint]:  # noqa: ARG002 - all is at hand
        """Give everything that is known."""
        return self.known

    def store(self, rows: Iterable[FingerprintRow]) -> None:
        """Remember rows."""
        for device, inode, *rest in rows:
            self.known[device, inode] = (rest[0], rest[1], rest[2], rest[3])  # type: ignore[assignment]

    def find_sight(self, sight: bytes) -> str | None:
        """Give what is known of a sight."""
        return self.sights.get(sight)

    def store_sight(self, sight: bytes, digest: str) -> None:
        """Remember a sight."""
        self.sights[sight] = digest


def is_racy(status: os.stat_result, now_ns: int) -> bool:
    """Tell whether a file was changed so shortly before *now_ns* that a further change may not show.

    Args:
        status: of the file.
        now_ns: before its content was read.
    """
    changed_ns = status.st_ctime_ns
    return (
        changed_ns > now_ns - RACY_NS
        or abs(status.st_mtime_ns - now_ns) < RACY_NS
        # Whole seconds, the same twice, are what file systems give that keep no time of change: images (squashfs, ISO
        # 9660), where another one may come to the same device number, and many in user space.
        or (changed_ns == status.st_mtime_ns and changed_ns % _SECOND_NS == 0)
    )
