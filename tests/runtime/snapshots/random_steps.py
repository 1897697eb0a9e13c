"""Random steps on a tree: what builds do to files, chosen by a seed, so that two snapshotters can be given the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

LINKED = "user.linked"
NAMES = ("a", "b", "c", "d", "e", "f")
BEGINNING = 1_600_000_000_000_000_000
"""A time before all of these steps, in nanoseconds."""


def change_tree(root: Path, random: Random, count: int, when: int) -> None:
    """Do *count* random things to a tree; whatever then has a new time gets the time *when*, in nanoseconds."""
    for _ in range(count):
        with contextlib.suppress(FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
            random.choice(ACTIONS)(root, random)
    _set_times(root, when)


def _set_times(root: Path, when: int) -> None:
    for directory, directories, files in os.walk(root, topdown=False):
        for name in (*files, *directories, "."):
            path = os.path.join(directory, name)
            if os.lstat(path).st_mtime_ns > BEGINNING + 10**18 // 100:
                os.utime(path, ns=(when, when), follow_symlinks=False)


def _directories(root: Path) -> list[Path]:
    return [root, *sorted(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]


def _place(root: Path, random: Random) -> Path:
    """Choose a name in a directory, taken or not."""
    return random.choice(_directories(root)) / random.choice(NAMES)


def _is_free(path: Path) -> bool:
    """Tell whether a path is no file that ever had two names: an overlay parts them when one is written to."""
    mode = path.lstat().st_mode
    return not stat.S_ISREG(mode) or LINKED not in os.listxattr(path)


def _file(root: Path, random: Random) -> Path:
    found = [path for path in sorted(root.rglob("*")) if stat.S_ISREG(path.lstat().st_mode) and _is_free(path)]
    return random.choice(found) if found else root / "no" / "file"


def _any(root: Path, random: Random) -> Path:
    found = [path for path in sorted(root.rglob("*")) if _is_free(path)]
    return random.choice(found) if found else root / "no" / "file"


def _write(root: Path, random: Random) -> None:
    path = _place(root, random)
    content = bytes(random.choices(b"xyz", k=random.choice((0, 1, 3, 100_000))))
    if not os.path.lexists(path) or (stat.S_ISREG(path.lstat().st_mode) and _is_free(path)):
        path.write_bytes(content)


def _append(root: Path, random: Random) -> None:
    with _file(root, random).open("ab") as file:
        file.write(b"more")


def _rewrite(root: Path, random: Random) -> None:
    path = _file(root, random)
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(root: Path, random: Random) -> None:
    path = _file(root, random)
    new = path.with_name("new")
    shutil.copy2(path, new)
    new.rename(path)


def _remove(root: Path, random: Random) -> None:
    path = _any(root, random)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remake(root: Path, random: Random) -> None:
    path = random.choice(_directories(root)[1:] or [root / "no" / "file"])
    shutil.rmtree(path)
    path.mkdir()
    if random.random() < 0.5:
        (path / random.choice(NAMES)).write_bytes(b"again")


def _make(root: Path, random: Random) -> None:
    _place(root, random).mkdir()


def _symlink(root: Path, random: Random) -> None:
    _place(root, random).symlink_to(random.choice(NAMES))


def _link(root: Path, random: Random) -> None:
    path, name = _file(root, random), _place(root, random)
    if path.exists() and not os.path.lexists(name):
        os.setxattr(path, LINKED, b"1")
        os.link(path, name)


def _fifo(root: Path, random: Random) -> None:
    os.mkfifo(_place(root, random))


def _move(root: Path, random: Random) -> None:
    path, name = _file(root, random), _place(root, random)
    if path.exists() and not name.is_dir():
        path.rename(name)


def _chmod(root: Path, random: Random) -> None:
    path = _any(root, random)
    if not path.is_symlink():
        path.chmod(random.choice((0o755, 0o700, 0o644, 0o4755)))


def _chown(root: Path, random: Random) -> None:
    os.chown(_any(root, random), random.choice((0, 1, 2)), random.choice((0, 1)), follow_symlinks=False)


def _set_xattr(root: Path, random: Random) -> None:
    os.setxattr(_file(root, random), "user.note", random.choice((b"1", b"2")))


def _swap_kind(root: Path, random: Random) -> None:
    path = _any(root, random)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        path.write_bytes(b"was a directory")
    else:
        path.unlink()
        path.mkdir()


ACTIONS = (
    _write,
    _write,
    _write,
    _append,
    _rewrite,
    _replace,
    _remove,
    _remake,
    _make,
    _make,
    _symlink,
    _link,
    _fifo,
    _move,
    _chmod,
    _chown,
    _set_xattr,
    _swap_kind,
)
