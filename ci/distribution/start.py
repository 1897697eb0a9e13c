"""Start pybuild from one file: find the folder that its modules were unpacked into, or unpack them.

The file is a zip with a line for the kernel before it, whose `__main__` calls `start`. Extension modules cannot be
loaded from a zip, and modules in a folder start faster, so all but this one lie in a folder:

    PLACE/                        the first of `places` that can be had; mode 0700
        VERSION-DIGEST/           the modules of one such file, named by their sha256

Only folders that no other user can have written or exchanged are used: what lies in them is executed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time

TYPE_CHECKING = False  # which type checkers take for their own; `typing` is loaded by no start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

DAY = 86400.0
OVERFLOW_ID = 65534
"""Who owns a file in a user namespace if its owner has no id there. Source: user_namespaces(7)."""


def start(name: str) -> NoReturn:
    """Run the command line of this process and exit.

    Args:
        name: of the folder of modules.
    """
    archive = sys.path[0]
    folder = find_folder(name)
    if folder is None:
        from distribution.unpack import unpack  # noqa: PLC0415  only at the first start

        folder = unpack(archive, name)
    sys.path[0] = folder

    from builder.cli.main import run  # noqa: PLC0415  found from here on

    run()


def find_folder(name: str) -> str | None:
    """Find the unpacked modules; a folder in use is marked so every day, for `unpack` removes old ones."""
    for place in places():
        folder = os.path.realpath(os.path.join(place, name))
        try:
            used = os.stat(folder).st_mtime
        except OSError:
            continue
        if not is_private(folder):
            continue
        if time.time() - used > DAY:
            with contextlib.suppress(OSError):  # on a read-only file system nothing is removed either
                os.utime(folder)
        return folder
    return None


def places() -> Iterator[str]:
    """Yield the folders that may hold modules, best first; they need not exist.

    A user may have no home, or one that cannot be written, as in many containers. Names in folders that everybody
    may write to carry the uid; whoever made such a folder before is found out by `is_private`.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(cache):
        yield os.path.join(cache, "pybuild", "program")
    for shared in (os.environ.get("TMPDIR", ""), "/var/tmp", "/tmp"):
        if os.path.isabs(shared):
            yield os.path.join(shared, f"pybuild-program-{os.geteuid()}")


def is_private(path: str) -> bool:
    """Tell whether nobody but this user, and root, could have put anything into a folder or another in its place.

    *path* is absolute and has no links, so that what was looked at is what will be used.
    """
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        return False
    while path != "/":
        path = os.path.dirname(path)
        status = os.stat(path)
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            return False
        if status.st_uid not in {0, os.geteuid()} and not _is_unmapped(status.st_uid):
            return False
    return True


def _is_unmapped(uid: int) -> bool:
    """Tell whether *uid* stands for owners outside of this user namespace, as root of the machine in a sandbox."""
    if uid != OVERFLOW_ID:
        return False
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]
