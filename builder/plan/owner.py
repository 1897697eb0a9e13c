"""Owners that mean the same in every image: numbers, and `root`.

Source: BuildKit, client/llb/fileop.go: WithUser takes `root` for 0 without asking passwd or group.
"""

from __future__ import annotations

MAXIMUM_ID = 0xFFFF_FFFE
"""The largest id the kernel takes; -1 means "unchanged". Source: chown(2)."""


def needs_no_file(name: str) -> bool:
    """Tell whether a user or group of `user[:group]` is an id without the image's passwd and group."""
    return name == "root" or (name.isascii() and name.isdigit())


def parse_id(name: str) -> int | None:
    """Give the id of a name that needs no file; None if it is too large to be one."""
    if name == "root":
        return 0
    if len(name) > len(str(MAXIMUM_ID)) or int(name) > MAXIMUM_ID:
        return None
    return int(name)
