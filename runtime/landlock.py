"""Keep a process without namespaces of its own to one tree of files and to its own processes, by Landlock.

It is a second wall: the root directory of such a step is changed by chroot, and Landlock refuses what would lie outside
if one got there all the same. Where the kernel is new enough it also keeps the step from sending signals to processes
that are not its own, from tracing them, and from abstract sockets they listen on.

What Landlock does not judge, whatever the version: looking at metadata (stat), chmod, chown, times and extended
attributes, directories as such (chdir). It is no wall there.

Source: landlock(7); linux/Documentation/userspace-api/landlock.rst; include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from runtime import syscalls
from runtime.errors import KernelError

VERSION_OF_SIGNALS: Final = 6
"""The first version that keeps signals and abstract sockets apart: Linux 6.12."""

# Rights over files, by the version of the interface that knows them first.
_FILE_RIGHTS: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_MAKE_CHARACTER: Final = 1 << 6
_MAKE_BLOCK: Final = 1 << 11
_SCOPES: Final = 0b11  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL


def version() -> int:
    """Return the version of the interface here; 0 if there is none, or a filter refuses it."""
    try:
        return syscalls.landlock_create_ruleset(None, syscalls.LANDLOCK_CREATE_RULESET_VERSION)
    except KernelError as error:
        if error.errno in {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
            return 0
        raise


def confine(root: int) -> None:
    """Allow this thread and what it starts the tree below *root* and nothing else. Does nothing without Landlock.

    Device nodes cannot be made even there. no_new_privs must be set.

    Args:
        root: a descriptor of the tree's root directory.

    Raises:
        KernelError: the kernel refused.
    """
    known = version()
    if not known:
        return
    rights = 0
    for first, mask in _FILE_RIGHTS:
        rights |= mask if known >= first else 0
    # handled_access_fs, handled_access_net, scoped; older kernels take a shorter structure
    attributes = struct.pack("=QQQ", rights, 0, _SCOPES if known >= VERSION_OF_SIGNALS else 0)
    ruleset = syscalls.landlock_create_ruleset(attributes[: _size(known)])
    try:
        allowed = rights & ~(_MAKE_CHARACTER | _MAKE_BLOCK)
        rule = struct.pack("=Qi", allowed, root)
        syscalls.landlock_add_rule(ruleset, syscalls.LANDLOCK_RULE_PATH_BENEATH, rule)
        syscalls.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)


def _size(known: int) -> int:
    if known >= VERSION_OF_SIGNALS:
        return 24
    return 16 if known >= 4 else 8
