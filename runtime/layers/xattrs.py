"""Which extended attributes travel in a layer.

| name                    | in a layer | why                                                                     |
|-------------------------|------------|-------------------------------------------------------------------------|
| `security.capability`   | yes        | file capabilities; always in the form without a namespace (version 2)   |
| `user.overlay.*`        | no         | bookkeeping of overlay, also the escaped `user.overlay.overlay.*`        |
| `user.pybuild.owner`    | no         | the owner where only one id exists, which the entry itself says          |
| `user.pybuild.committed` | no       | the mark of a snapshot's root (runtime.snapshots.committed)             |
| `user.*` otherwise      | yes        | data of programs                                                        |
| `trusted.*`             | no         | invisible without real root: a layer would depend on who built it       |
| `security.*` otherwise  | no         | labels of the building host (SELinux, IMA)                              |
| `system.*`              | no         | ACLs are inherited from the directory the store happens to lie in       |

BuildKit keeps `security.capability` alone; the data in `user.*` is kept here because losing it silently is a bug
report with other builders.

Source: xattr(7), capabilities(7) section "File capability extended attribute versioning",
linux/include/uapi/linux/capability.h, linux/Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
from typing import Final

from runtime.errors import LayerError

CAPABILITY: Final = "security.capability"

_OVERLAY_PREFIXES: Final = ("user.overlay.", "trusted.overlay.")
_REVISION_MASK: Final = 0xFF00_0000
_VFS_CAP_REVISION_2: Final = 0x0200_0000
_VFS_CAP_REVISION_3: Final = 0x0300_0000
_VERSION_2_SIZE: Final = 20
_VERSION_3_SIZE: Final = 24


def travels(name: str) -> bool:
    """Tell whether the attribute *name* is written into layers and applied from them."""
    if name.startswith("user."):
        return not name.startswith(("user.overlay.", "user.pybuild."))
    return name == CAPABILITY


def layer_value(name: str, value: bytes) -> bytes:
    """Return *value* as it stands in a layer: file capabilities lose the namespace they were set in.

    A value of another length than the kernel's is returned as it is.
    """
    if name != CAPABILITY or len(value) != _VERSION_3_SIZE:
        return value
    word = int.from_bytes(value[:4], "little")
    if word & _REVISION_MASK != _VFS_CAP_REVISION_3:
        return value
    word = word & ~_REVISION_MASK | _VFS_CAP_REVISION_2
    return word.to_bytes(4, "little") + value[4:_VERSION_2_SIZE]


def read_xattrs(fd: int, names: list[str]) -> tuple[tuple[str, bytes], ...]:
    """Return those of the attributes *names* of an open file that travel, sorted by name."""
    return tuple((name, layer_value(name, os.getxattr(fd, name))) for name in sorted(names) if travels(name))


def find_overlay_value(fd: int, names: list[str], key: str) -> bytes | None:
    """Return overlay's own attribute *key* ("opaque", "whiteout") of an open file, or None.

    Args:
        fd: the file.
        names: all attribute names of the file.
        key: without the prefix `user.overlay.` or `trusted.overlay.`.
    """
    for prefix in _OVERLAY_PREFIXES:
        if prefix + key in names:
            return os.getxattr(fd, prefix + key)
    return None


def check_self_contained(names: list[str], path: bytes) -> None:
    """Refuse an object whose content or name lies elsewhere: overlay with `metacopy` or `redirect_dir`.

    Raises:
        LayerError: the attributes say that the object is not whole.
    """
    for prefix in _OVERLAY_PREFIXES:
        for key in ("metacopy", "redirect"):
            if prefix + key in names:
                shown = path.decode(errors="backslashreplace")
                raise LayerError(f"the overlay was mounted with {key}, a layer cannot be made from it", entry=shown)
