"""How much of a disk the cache may take.

*Cache* is what can be removed without anybody missing it but for time: all that no tagged image needs, and the snapshots
of tagged images too, since their layers remain.

Source: BuildKit, cache/manager.go (calculateKeepBytes) and cmd/buildkitd/config/gcpolicy.go.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from builder.collect.room import FREE_SHARE
from registry.value import frozen

if TYPE_CHECKING:
    from pathlib import Path


@frozen
class Disk:
    """A file system: its *size*, and what is *free* for this user, in bytes."""

    size: int
    free: int

    @classmethod
    def of(cls, path: Path) -> Disk:
        """Ask the kernel about the file system of a path.

        Raises:
            OSError: the path is gone.
        """
        found = os.statvfs(path)
        return cls(size=found.f_blocks * found.f_frsize, free=found.f_bavail * found.f_frsize)


@frozen
class Space:
    """An amount of a disk: so many *size* bytes, or a *share* of it, the smaller one if it has both."""

    size: int | None = None
    share: float | None = None

    def of(self, disk: Disk) -> int:
        """Give the bytes that this is of a disk."""
        amounts = [self.size, None if self.share is None else int(disk.size * self.share)]
        return min((amount for amount in amounts if amount is not None), default=0)


@frozen
class Limits:
    """What the cache is held to; None is no limit.

    Attributes:
        max_used: what the cache may take.
        min_free: what is to stay free of the disk, if the cache can give it.
        reserved: what the cache may take in any case.
    """

    max_used: Space | None = None
    min_free: Space | None = None
    reserved: Space | None = None

    def is_kept(self, disk: Disk) -> bool:
        """Tell whether the disk alone shows that nothing has to go, without a look at the cache."""
        return self.max_used is None and self.min_free is not None and disk.free >= self.min_free.of(disk)

    def is_exceeded(self, disk: Disk, used: int) -> bool:
        """Tell whether *used* bytes of cache are more than it may take."""
        return self.max_used is not None and used > self.max_used.of(disk)

    def keep(self, disk: Disk, used: int) -> int:
        """Give how much of the *used* bytes of cache may stay."""
        kept = used
        if self.max_used is not None:
            kept = min(kept, self.max_used.of(disk))
        if self.min_free is not None:
            kept = min(kept, used - (self.min_free.of(disk) - disk.free))
        if self.max_used is None and self.min_free is None:
            kept = 0
        return max(kept, 0 if self.reserved is None else self.reserved.of(disk))


DEFAULT_LIMITS: Final = Limits(min_free=Space(share=FREE_SHARE), reserved=Space(share=0.1, size=10_000_000_000))
"""What builds hold the cache to. Source: BuildKit's own."""
