"""What trees take on disk, as `du` counts it: allocated blocks, each inode once."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

BLOCK: Final = 512
"""Bytes of a block of `st_blocks`. Source: inode(7)."""


def disk_usage(top: Path, *, without: Container[bytes] = (), can_miss: bool = False) -> int:
    """Count the bytes that a file or a tree takes on disk. What vanishes meanwhile is not counted.

    Args:
        top: of the tree.
        without: paths that are not entered or counted.
        can_miss: leave out what may not be read, instead of failing.

    Raises:
        OSError: *top* is missing, or something may not be read.
    """
    path = os.fsencode(top)
    status = os.lstat(path)
    blocks = status.st_blocks
    pending = [path] if stat.S_ISDIR(status.st_mode) else []
    seen: set[tuple[int, int]] = set()
    while pending:
        try:
            with os.scandir(pending.pop()) as children:
                for child in children:
                    if child.path in without:
                        continue
                    status = child.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(child.path)
                    elif status.st_nlink > 1:
                        if (status.st_dev, status.st_ino) in seen:
                            continue
                        seen.add((status.st_dev, status.st_ino))
                    blocks += status.st_blocks
        except FileNotFoundError:
            continue
        except PermissionError:
            if not can_miss:
                raise
    return blocks * BLOCK
