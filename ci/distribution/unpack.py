"""Unpack the modules of the one-file form into a folder; done at the first start of each version.

A folder appears complete, by a rename, and what is in it has reached the disk, so neither another process nor the next
boot finds half of one. Several processes that unpack at once do so each on its own; the first to end wins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
import time
import zipfile

from distribution.start import DAY, is_private, places

PAYLOAD = "modules.zip"
"""The member of the archive that holds the modules."""

UNFINISHED = ".new-"
"""How the names of folders begin that are being written."""

EXIT_UNSUPPORTED = 4
"""The exit status of pybuild where a machine lacks something."""

UNUSED = 60 * DAY
"""Seconds after its last use when the folder of another version is removed."""


def unpack(archive: str, name: str) -> str:
    """Unpack into the first place that can be had and return the folder *name* in it.

    Ends the process, with what was tried, if there is none.
    """
    refused = []
    for place in places():
        try:
            return _unpack_into(place, archive, name)
        except OSError as error:
            refused.append(f"{place} ({error.strerror or error})")
    sys.stderr.write(
        f"pybuild: error: there is no folder to unpack into: {', '.join(refused)}\n\n"
        "hint: set XDG_CACHE_HOME to a folder of yours that nobody else may write to, in a file system without noexec\n"
    )
    sys.exit(EXIT_UNSUPPORTED)


def _unpack_into(place: str, archive: str, name: str) -> str:
    """Unpack below *place*.

    Raises:
        OSError: it cannot be used.
    """
    _make_folders(place)
    place = os.path.realpath(place)
    if not is_private(place):
        raise OSError(None, "others may write there")
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise OSError(None, "mounted noexec")
    _sweep(place)
    folder = os.path.join(place, name)
    unfinished = tempfile.mkdtemp(prefix=UNFINISHED, dir=place)
    try:
        _extract(archive, unfinished)
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not (os.path.isdir(folder) and is_private(folder)):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _make_folders(path: str) -> None:
    """Make a folder and those above it, for this user alone. Source: XDG Base Directory Specification, "mode 0700"."""
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):  # another process was faster, or it is a file, which shows at once
            os.mkdir(path, 0o700)


def _extract(archive: str, folder: str) -> None:
    with zipfile.ZipFile(archive) as outer, outer.open(PAYLOAD) as payload, zipfile.ZipFile(payload) as modules:
        modules.extractall(folder)
    _sync(folder)


def _sync(folder: str) -> None:
    """Have all of a file system on disk: 0.1 s for what takes 10 s with a thousand times fsync."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(descriptor)


def _sweep(place: str) -> None:
    """Remove what killed processes left, and versions that were not used for long."""
    now = time.time()
    with os.scandir(place) as entries:
        for entry in entries:
            limit = DAY if entry.name.startswith(UNFINISHED) else UNUSED
            if now - entry.stat(follow_symlinks=False).st_mtime > limit:
                shutil.rmtree(entry.path, ignore_errors=True)
