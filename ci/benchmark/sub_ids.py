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
    """Remove a folder with all that is in it, whoever owns that, and what was set aside from its place."""
    folders = [str(each) for each in (folder, *_aside(folder)) if each.exists()]
    if folders:
        subprocess.run([*as_namespace_root(), "rm", "-rf", "--", *folders], check=True)


def set_aside(folder: Path) -> None:
    """Free the place of a folder without removing anything, which slows down what follows (`ci/README.md`)."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.{len(_aside(folder))}.aside"))


def make_empty(folder: Path) -> Path:
    """Make a folder anew, of the caller's own, and return it."""
    set_aside(folder)
    folder.mkdir(parents=True)
    return folder


def _aside(folder: Path) -> list[Path]:
    return list(folder.parent.glob(f"{folder.name}.*.aside"))
