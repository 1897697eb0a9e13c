"""The one question that every build asks about its disk. Kept apart, since most go no further."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Final

FREE_SHARE: Final = 0.2
"""How much of a disk builds leave free by default. Source: BuildKit's minFreeSpace."""


def has_room(folder: Path) -> bool:
    """Tell whether so much of the disk is free that nothing has to be collected."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return True
    return found.f_bavail >= found.f_blocks * FREE_SHARE
