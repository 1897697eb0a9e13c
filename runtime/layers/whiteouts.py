"""Whiteouts: how a layer, and how an overlay upper directory, say that something of the layers below is gone.

    in a layer's tar      `.wh.NAME`             an empty file: NAME is deleted
                          `.wh..wh..opq`         an empty file: the directory hides everything below it
                          `.wh..wh.*` otherwise  bookkeeping of aufs, without meaning
    in an upper directory a character device 0:0  the name is deleted
                          `*.overlay.whiteout`    on an empty file in a directory with `*.overlay.opaque=x`: the same,
                                                  read by kernels since 6.7
                          `*.overlay.opaque=y`    the directory hides everything below it

Source: image-spec, layer.md, section Whiteouts; linux/Documentation/filesystems/overlayfs.rst, section Whiteouts.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from runtime.layers.entry import Entry, EntryKind

WHITEOUT_PREFIX: Final = b".wh."
META_PREFIX: Final = b".wh..wh."
OPAQUE_NAME: Final = b".wh..wh..opq"

_OPAQUE_XATTR: Final = "user.overlay.opaque"
_WHITEOUT_XATTR: Final = "user.overlay.whiteout"


def whiteout_entry(path: bytes) -> Entry:
    """Return the entry that deletes *path*; all its metadata is zero, as containerd writes it."""
    directory, slash, name = path.rpartition(b"/")
    return Entry(directory + slash + WHITEOUT_PREFIX + name, EntryKind.FILE, 0, 0, 0, 0)


def opaque_entry(directory: bytes) -> Entry:
    """Return the entry that empties *directory*, in the form of `Entry.path`, of what came from below."""
    path = directory + b"/" + OPAQUE_NAME if directory else OPAQUE_NAME
    return Entry(path, EntryKind.FILE, 0, 0, 0, 0)


def is_whiteout_device(status: os.stat_result) -> bool:
    """Tell whether an object of an upper directory is the kernel's mark of a deletion."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_whiteout(directory_fd: int, name: bytes) -> bool:
    """Mark *name* as deleted in a directory of a layer in overlay form.

    An overlay, such as the root file system of most containers, holds no devices 0:0; there it is an empty file with an
    attribute, and the directory is marked as one that has such files. Overlay looks for them only in layers whose root
    is marked too, which is for the caller to do (`mark_xattr_whiteouts`).

    Args:
        directory_fd: the directory, open for reading; not made opaque.
        name: one component that does not exist.

    Returns:
        Whether it is a file with an attribute.

    Raises:
        OSError: neither form can be made.
    """
    try:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory_fd)
    except PermissionError:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
        try:
            os.setxattr(fd, _WHITEOUT_XATTR, b"y")
        finally:
            os.close(fd)
        mark_xattr_whiteouts(directory_fd)
        return True
    return False


def mark_xattr_whiteouts(directory_fd: int) -> None:
    """Say that empty files in a directory may be deletions; on the root of a layer, that they are somewhere in it."""
    os.setxattr(directory_fd, _OPAQUE_XATTR, b"x")


def mark_opaque(directory_fd: int) -> None:
    """Say that a directory hides everything below it."""
    os.setxattr(directory_fd, _OPAQUE_XATTR, b"y")
