"""Trees in which sub-ids own files: made and removed by the root of a user namespace, unless one is root anyway."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def as_namespace_root() -> tuple[str, ...]:
    """Return what a command begins with to be run by one who may give files to any owner."""
    return () if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--map-auto")


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, whoever owns that."""
    if folder.exists():
        subprocess.run([*as_namespace_root(), "rm", "-rf", "--", str(folder)], check=True)


def make_empty(folder: Path) -> Path:
    """Make a folder anew, of the caller's own, and return it."""
    remove_tree(folder)
    folder.mkdir(parents=True)
    return folder
