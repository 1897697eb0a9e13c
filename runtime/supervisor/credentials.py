"""The ids a process has, and how system calls change them, as the kernel does it where all ids exist.

Pure values: a supervisor keeps them for processes whose real ids are all 0. `UNCHANGED` is the -1 of the calls.

Source: credentials(7), setuid(2), setreuid(2), setresuid(2), setgroups(2), setfsuid(2); linux/kernel/sys.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

UNCHANGED: Final = 0xFFFF_FFFF
_UNCHANGED_16: Final = 0xFFFF
_CUT_ID: Final = 65534  # what calls with 16 bits say of an id that has more
MOST_GROUPS: Final = 65536  # NGROUPS_MAX


class Ids(NamedTuple):
    """Real, effective, saved and file system id of one kind."""

    real: int = 0
    effective: int = 0
    saved: int = 0
    filesystem: int = 0


class Credentials(NamedTuple):
    """Whom a thread acts as.

    Attributes:
        uid: user ids.
        gid: group ids.
        groups: supplementary groups.
        keeps_rights: whether it asked to keep its capabilities when it stops being root (PR_SET_KEEPCAPS).
    """

    uid: Ids = Ids()
    gid: Ids = Ids()
    groups: tuple[int, ...] = ()
    keeps_rights: bool = False

    @property
    def is_privileged(self) -> bool:
        """Whether it may give files away and become anybody."""
        return self.uid.effective == 0 or self.keeps_rights

    @property
    def is_plain_root(self) -> bool:
        """Whether files it makes belong to 0:0."""
        return self.uid.filesystem == 0 and self.gid.filesystem == 0


def all_of(number: int) -> Ids:
    """Return the ids of a process that is *number* through and through."""
    return Ids(number, number, number, number)


def set_one(ids: Ids, number: int, *, privileged: bool) -> Ids:
    """Carry out setuid(2) or setgid(2)."""
    if number == UNCHANGED:
        raise _error(errno.EINVAL)
    if privileged:
        return all_of(number)
    if number not in {ids.real, ids.saved}:
        raise _error(errno.EPERM)
    return ids._replace(effective=number, filesystem=number)


def set_two(ids: Ids, real: int, effective: int, *, privileged: bool) -> Ids:
    """Carry out setreuid(2) or setregid(2), of which the one knows two real ids and the other less; told by the first."""
    if not privileged:
        if real not in {UNCHANGED, ids.real, ids.effective}:
            raise _error(errno.EPERM)
        if effective not in {UNCHANGED, ids.real, ids.effective, ids.saved}:
            raise _error(errno.EPERM)
    changed = Ids(
        ids.real if real == UNCHANGED else real,
        ids.effective if effective == UNCHANGED else effective,
        ids.saved,
        0,
    )
    saved = changed.saved
    if real != UNCHANGED or effective not in {UNCHANGED, ids.real}:
        saved = changed.effective
    return changed._replace(saved=saved, filesystem=changed.effective)


def set_three(ids: Ids, wanted: Sequence[int], *, privileged: bool) -> Ids:
    """Carry out setresuid(2) or setresgid(2)."""
    if not privileged and not {UNCHANGED, *ids[:3]}.issuperset(wanted):
        raise _error(errno.EPERM)
    real, effective, saved = (old if new == UNCHANGED else new for old, new in zip(ids[:3], wanted, strict=True))
    return Ids(real, effective, saved, effective)


def set_filesystem(ids: Ids, number: int, *, privileged: bool) -> Ids:
    """Carry out setfsuid(2) or setfsgid(2), which say nothing when they refuse."""
    if number != UNCHANGED and (privileged or number in ids):
        return ids._replace(filesystem=number)
    return ids


def check_change_of_owner(credentials: Credentials, owner: tuple[int, int], uid: int, gid: int) -> None:
    """Refuse a chown(2) of a file of *owner* that *credentials* may not do.

    Raises:
        OSError: EPERM.
    """
    if credentials.is_privileged:
        return
    acting = credentials.uid.filesystem
    if uid != UNCHANGED and not acting == owner[0] == uid:
        raise _error(errno.EPERM)
    if gid not in {UNCHANGED, owner[1]} or (gid != UNCHANGED and acting != owner[0]):
        in_group = gid == credentials.gid.filesystem or gid in credentials.groups
        if acting != owner[0] or not in_group:
            raise _error(errno.EPERM)


def executed(old: Credentials) -> Credentials:
    """Return whom a thread acts as after execve(2)."""
    uid, gid = old.uid, old.gid
    return old._replace(
        uid=uid._replace(saved=uid.effective, filesystem=uid.effective),
        gid=gid._replace(saved=gid.effective, filesystem=gid.effective),
        keeps_rights=False,
    )


def wide(number: int) -> int:
    """Return the id that 16 bits say."""
    number &= 0xFFFF
    return UNCHANGED if number == _UNCHANGED_16 else number


def narrow(number: int) -> int:
    """Return what 16 bits say of an id."""
    return number if number <= 0xFFFF else _CUT_ID


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
