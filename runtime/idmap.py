"""Decide and write which ids a user namespace has.

An extent maps `count` ids from `inside` on to as many from `outside` on. A sub-id range is what /etc/subuid or
/etc/subgid grants a user beside the own id. Outside ids are those of the namespace of whoever reads or writes the map.

Source: user_namespaces(7), section "User and group ID mappings"; subuid(5); newuidmap(1).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from runtime.errors import HostUnsupportedError
from runtime.host import INSTALL_UIDMAP

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

IdKind = Literal["uid", "gid"]

_MOST_EXTENTS: Final = 340  # UID_GID_MAP_MAX_EXTENTS of the kernel


class IdExtent(NamedTuple):
    """*size* ids from *inside* on, which are those from *outside* on."""

    inside: int
    outside: int
    size: int


class IdMap(NamedTuple):
    """All extents of one user namespace for one kind of id."""

    extents: tuple[IdExtent, ...]

    @property
    def id_count(self) -> int:
        """How many ids exist inside: 1 means that owners have to be recorded (runtime.ownership)."""
        return sum(extent.size for extent in self.extents)

    def has_inside(self, number: int) -> bool:
        """Return whether *number* is an id inside."""
        return any(e.inside <= number < e.inside + e.size for e in self.extents)

    def to_text(self) -> str:
        """Return the lines that /proc/PID/uid_map takes."""
        return "".join(f"{e.inside} {e.outside} {e.size}\n" for e in self.extents)


def parse_id_map(text: str) -> IdMap:
    """Read the text of /proc/PID/uid_map or gid_map."""
    rows = (line.split() for line in text.splitlines() if line.strip())
    return IdMap(extents=tuple(IdExtent(inside=int(a), outside=int(b), size=int(c)) for a, b, c in rows))


def current_id_map(kind: IdKind) -> IdMap:
    """Return the map of the user namespace this process is in.

    Raises:
        HostUnsupportedError: /proc is not mounted.
    """
    path = f"/proc/self/{kind}_map"
    try:
        with open(path, encoding="ascii") as file:
            return parse_id_map(file.read())
    except FileNotFoundError as error:
        raise HostUnsupportedError("the proc file system", f"`{path}` does not exist") from error


def identity_map(outer: IdMap) -> IdMap:
    """Return the map that keeps every id of *outer*, whose namespace the writer is in.

    Extent by extent, because the kernel takes none that spans two of the writer's.
    """
    return IdMap(
        extents=tuple(IdExtent(inside=e.inside, outside=e.inside, size=e.size) for e in outer.extents[:_MOST_EXTENTS])
    )


def parse_sub_ids(text: str, owners: Collection[str]) -> tuple[tuple[int, int], ...]:
    """Return the (first, count) ranges of any of *owners* (a user's name and uid as text) in file order.

    Lines that are not `owner:first:count` are left out, as newuidmap does. Source: subuid(5).
    """
    ranges = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if owner in owners and first.isdecimal() and count.isdecimal() and int(count):
            ranges.append((int(first), int(count)))
    return tuple(ranges)


def read_sub_ids(path: Path, owners: Collection[str]) -> tuple[tuple[int, int], ...]:
    """Return the ranges that the file *path* grants; none if it does not exist or cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return parse_sub_ids(file.read(), owners)
    except OSError:
        return ()


def sub_id_map(own_id: int, ranges: Iterable[tuple[int, int]]) -> IdMap:
    """Map 0 to *own_id* and the ids from 1 on to *ranges*, one after the other.

    A range that overlaps an earlier one or holds *own_id* is left out: the kernel refuses ids that occur twice.
    """
    extents = [IdExtent(inside=0, outside=own_id, size=1)]
    for first, count in ranges:
        if len(extents) < _MOST_EXTENTS and not any(
            first < e.outside + e.size and e.outside < first + count for e in extents
        ):
            extents.append(IdExtent(inside=extents[-1].inside + extents[-1].size, outside=first, size=count))
    return IdMap(extents=tuple(extents))


def write_map(pid: int, kind: IdKind, id_map: IdMap) -> None:
    """Write *id_map* for the process *pid*, which has just made its user namespace, by this process's own rights.

    Raises:
        OSError: the kernel refused; EPERM for what this process may not map.
    """
    _write(f"/proc/{pid}/{kind}_map", id_map.to_text())


def deny_setgroups(pid: int) -> None:
    """Give up setgroups(2) in the namespace of *pid*: the price of a group map without privilege.

    Raises:
        OSError: the kernel refused.
    """
    _write(f"/proc/{pid}/setgroups", "deny")


def is_setgroups_allowed() -> bool:
    """Return whether this user namespace may change supplementary groups at all."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read().strip() == "allow"
    except OSError:
        return False


def _write(path: str, text: str) -> None:
    # The kernel wants a map in one write.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def run_map_helpers(pid: int, maps: Sequence[tuple[IdKind, IdMap]]) -> None:
    """Have newuidmap and newgidmap write *maps* for the process *pid*, both at the same time.

    Raises:
        HostUnsupportedError: a helper is missing or failed, with what it said.

    Source: newuidmap(1).
    """
    running = []
    try:
        for kind, id_map in maps:
            helper = f"new{kind}map"
            numbers = [str(n) for e in id_map.extents for n in (e.inside, e.outside, e.size)]
            reader, writer = os.pipe2(os.O_CLOEXEC)
            try:
                child = os.posix_spawnp(
                    helper,
                    [helper, str(pid), *numbers],
                    {"LC_ALL": "C"},
                    file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)],
                    setsigmask=[],
                )
            except FileNotFoundError as error:
                os.close(reader)
                raise HostUnsupportedError(
                    "a user namespace with several ids",
                    f"`{helper}` is not installed, though this user has sub-ids",
                    hint=INSTALL_UIDMAP,
                ) from error
            finally:
                os.close(writer)
            running.append((helper, child, reader))
    finally:
        failures = [failure for entry in running if (failure := _await_helper(*entry))]
    if failures:
        raise failures[0]


def _await_helper(helper: str, child: int, reader: int) -> HostUnsupportedError | None:
    with open(reader, "rb") as output:
        said = output.read().decode(errors="replace").strip().replace("\n", "; ")
    _, status = os.waitpid(child, 0)
    if status == 0:
        return None
    return HostUnsupportedError(
        "a user namespace with several ids", _helper_failure(helper, said), hint=_helper_hint(helper, said)
    )


def _helper_failure(helper: str, said: str) -> str:
    return f"`{helper}` failed: {said}" if said else f"`{helper}` failed without a message"


def _helper_hint(helper: str, said: str) -> str | None:
    if _has_no_new_privileges():
        return (
            f"`{helper}` cannot gain its rights here because no_new_privs is set: start this program without it "
            "(docker: leave out `--security-opt no-new-privileges`; Kubernetes: allowPrivilegeEscalation: true)"
        )
    if "Operation not permitted" in said or "Permission denied" in said:
        capability = "cap_setuid" if helper == "newuidmap" else "cap_setgid"
        return f'sudo setcap {capability}+ep "$(command -v {helper})"'
    if "not allowed" in said:
        return "check that the ranges in /etc/subuid and /etc/subgid belong to this user and do not overlap others"
    return None


def _has_no_new_privileges() -> bool:
    import prctl  # noqa: PLC0415 - a compiled module that only this failure needs

    return bool(prctl.get_no_new_privs())
