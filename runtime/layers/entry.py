"""One entry of a layer's tar, as values.

An entry is what the header of one archive member says: a path inside the root, a kind, and the metadata that travels
in an image. Content is not part of it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class EntryKind(Enum):
    """What an entry is. The value is the type flag of the tar header."""

    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"

    # Members are looked up in dictionaries once an entry; the inherited hash is a Python call on the member's name.
    __hash__ = object.__hash__


class Entry(NamedTuple):
    """One file, directory, link or node of a layer.

    A NamedTuple because a layer has tens of thousands of them.

    Attributes:
        path: relative, no leading or trailing slash, no `.` or `..` parts; `b""` is the root itself.
        kind: what it is.
        mode: the twelve permission bits (07777).
        uid: numeric owner as seen inside the image.
        gid: numeric group as seen inside the image.
        mtime: whole seconds since the epoch, may be negative.
        size: bytes of content that follow the header; 0 for everything but files.
        linkname: text of a symbolic link verbatim, or path of a hard link's target in the form of `path`.
        device: major and minor number of a device node.
        xattrs: name and value pairs in the order in which they are written.
    """

    path: bytes
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    linkname: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
