"""Whiteouts: how a layer, and how an overlay upper directory, say that something of the layers below is gone.

    in a layer's tar      `.wh.NAME`             an empty file: NAME is deleted
                          `.wh..wh..opq`         an empty file: the directory hides everything below it
                          `.wh..wh.*` otherwise  bookkeeping of aufs, without meaning
    in an upper directory a character device 0:0  the name is deleted
                          `*.overlay.opaque=y`    the directory hides everything below it

Source: image-spec, layer.md, section Whiteouts; linux/Documentation/filesystems/overlayfs.rst, section Whiteouts.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    import os

WHITEOUT_PREFIX: Final = b".wh."
META_PREFIX: Final = b".wh..wh."
OPAQUE_NAME: Final = b".wh..wh..opq"


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
