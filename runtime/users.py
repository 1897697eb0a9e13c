"""Resolve the user of a step against the image's passwd and group files.

Pure functions on the bytes of the files: no C library lookup, which would read the host's files, or load a module of
the image into this process.

Source: moby/sys/user, GetExecUser; BuildKit, executor/oci/user.go.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from runtime.errors import StepSetupError

_LARGEST_ID: Final = 2**31 - 1
_NO_HOME: Final = "/"


class PasswdEntry(NamedTuple):
    """One line of a passwd file."""

    name: str
    uid: int
    gid: int
    home: str


class GroupEntry(NamedTuple):
    """One line of a group file."""

    name: str
    gid: int
    members: tuple[str, ...]


class ProcessUser(NamedTuple):
    """Who a step runs as.

    Args:
        uid, gid: user id and primary group id inside the image.
        groups: the supplementary groups, in the order of the group file.
        home: the home directory, `/` if none is known.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def parse_passwd(data: bytes) -> tuple[PasswdEntry, ...]:
    """Read a passwd file; lines that lack an id are left out. Source: passwd(5)."""
    entries = []
    for line in _lines(data):
        fields = line.split(":")
        if len(fields) >= 4 and _is_id(fields[2]) and _is_id(fields[3]):
            home = fields[5] if len(fields) > 5 else ""
            entries.append(PasswdEntry(name=fields[0], uid=int(fields[2]), gid=int(fields[3]), home=home))
    return tuple(entries)


def parse_group(data: bytes) -> tuple[GroupEntry, ...]:
    """Read a group file; lines that lack an id are left out. Source: group(5)."""
    entries = []
    for line in _lines(data):
        fields = line.split(":")
        if len(fields) >= 3 and _is_id(fields[2]):
            members = fields[3].split(",") if len(fields) > 3 else []
            entries.append(
                GroupEntry(name=fields[0], gid=int(fields[2]), members=tuple(m.strip() for m in members if m.strip()))
            )
    return tuple(entries)


def resolve_user(text: str, passwd: bytes | None, group: bytes | None) -> ProcessUser:
    """Return who `USER text` means.

    `user` takes the primary and the supplementary groups of that user, `user:group` only that group; a number counts as
    an id even if a name reads the same; an unknown number is a user without groups; nothing is root.

    Args:
        text: a name or id, optionally followed by a colon and a group name or id.
        passwd: the image's /etc/passwd, None if it has none.
        group: the image's /etc/group, None if it has none.

    Raises:
        StepSetupError: a name is not in its file, or an id is out of range.
    """
    user_text, _, group_text = text.partition(":")
    accounts = parse_passwd(passwd or b"")
    if not text or (_is_id(user_text) and _is_id(group_text)):
        uid = _checked(user_text or "0")
        return ProcessUser(uid=uid, gid=_checked(group_text or "0"), groups=(), home=_home_of(uid, accounts))
    account = _find_account(user_text, accounts)
    uid = account.uid if account else _checked(user_text or "0")
    home = _home_of(uid, accounts)
    if group_text:
        return ProcessUser(uid=uid, gid=_find_gid(group_text, group), groups=(), home=home)
    if account is None:
        return ProcessUser(uid=uid, gid=0, groups=(), home=home)
    groups = dict.fromkeys(g.gid for g in parse_group(group or b"") if account.name in g.members)
    return ProcessUser(uid=uid, gid=account.gid, groups=tuple(groups), home=account.home or _NO_HOME)


def _find_account(text: str, accounts: tuple[PasswdEntry, ...]) -> PasswdEntry | None:
    if not text or _is_number(text):
        uid = _checked(text or "0")
        return next((account for account in accounts if account.uid == uid), None)
    for account in accounts:
        if account.name == text:
            return account
    raise StepSetupError("user", f"unable to find user {text}: no matching entries in passwd file")


def _find_gid(text: str, group: bytes | None) -> int:
    if _is_number(text):
        return _checked(text)
    for entry in parse_group(group or b""):
        if entry.name == text:
            return entry.gid
    raise StepSetupError("user", f"unable to find group {text}: no matching entries in group file")


def _home_of(uid: int, accounts: tuple[PasswdEntry, ...]) -> str:
    return next((account.home for account in accounts if account.uid == uid and account.home), _NO_HOME)


def _checked(text: str) -> int:
    number = int(text)
    if 0 <= number <= _LARGEST_ID:
        return number
    raise StepSetupError("user", f"uids and gids must be in range 0-{_LARGEST_ID}: `{text}`")


def _is_id(text: str) -> bool:
    # The bound on the length keeps int() away from text that is no id anyway.
    return text.isascii() and text.isdigit() and len(text) <= 10


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 20


def _lines(data: bytes) -> list[str]:
    return [line.strip() for line in data.decode(errors="surrogateescape").split("\n") if line.strip()]
