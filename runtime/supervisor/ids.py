"""Calls about ids: becoming somebody else, and asking who one is."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from runtime import syscalls
from runtime.supervisor import calls, credentials
from runtime.supervisor.callers import signed, unsigned
from runtime.supervisor.credentials import narrow, wide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runtime.supervisor.callers import Callers
    from runtime.supervisor.files import Handler


class IdCalls:
    """Answers calls about ids.

    Args:
        callers: who makes them.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def handlers(self) -> Mapping[str, Handler]:
        """Return what answers each call."""
        return {
            "setgroups": lambda pid, a: self._set_groups(pid, a[0], a[1], "I"),
            "setgroups16": lambda pid, a: self._set_groups(pid, a[0], a[1], "H"),
            **{name: self._id_setter(name) for name in calls.SET_IDS if not name.startswith("setgroups")},
            "getuid": lambda pid, _: self._callers.credentials(pid).uid.real,
            "geteuid": lambda pid, _: self._callers.credentials(pid).uid.effective,
            "getgid": lambda pid, _: self._callers.credentials(pid).gid.real,
            "getegid": lambda pid, _: self._callers.credentials(pid).gid.effective,
            "getuid16": lambda pid, _: narrow(self._callers.credentials(pid).uid.real),
            "geteuid16": lambda pid, _: narrow(self._callers.credentials(pid).uid.effective),
            "getgid16": lambda pid, _: narrow(self._callers.credentials(pid).gid.real),
            "getegid16": lambda pid, _: narrow(self._callers.credentials(pid).gid.effective),
            "getgroups": lambda pid, a: self._get_groups(pid, a[0], a[1], "I"),
            "getgroups16": lambda pid, a: self._get_groups(pid, a[0], a[1], "H"),
            "getresuid": lambda pid, a: self._get_three(pid, self._callers.credentials(pid).uid, a, "=I"),
            "getresgid": lambda pid, a: self._get_three(pid, self._callers.credentials(pid).gid, a, "=I"),
            "getresuid16": lambda pid, a: self._get_three(pid, self._callers.credentials(pid).uid, a, "=H"),
            "getresgid16": lambda pid, a: self._get_three(pid, self._callers.credentials(pid).gid, a, "=H"),
            "execve": self._execute,
            "execveat": self._execute,
            "prctl": self._keep_rights,
            "getsockopt": self._peer_credentials,
        }

    def _id_setter(self, name: str) -> Callable[[int, Sequence[int]], int | None]:
        """Return what carries out one of the calls that set ids."""
        widen = wide if name.endswith("16") else unsigned
        kind = "uid" if "uid" in name else "gid"
        call = name.removesuffix("16").replace(kind, "")

        def handle(pid: int, arguments: Sequence[int]) -> int:
            old = self._callers.credentials(pid)
            ids = old.uid if kind == "uid" else old.gid
            wanted = tuple(map(widen, arguments[:3]))
            privileged = old.is_privileged
            match call:
                case "set":
                    new = credentials.set_one(ids, wanted[0], privileged=privileged)
                case "setre":
                    new = credentials.set_two(ids, *wanted[:2], privileged=privileged)
                case "setres":
                    new = credentials.set_three(ids, wanted, privileged=privileged)
                case _:
                    new = credentials.set_filesystem(ids, wanted[0], privileged=privileged)
            if new != ids:
                self._callers.become(pid, old._replace(uid=new) if kind == "uid" else old._replace(gid=new))
            return ids.filesystem if call == "setfs" else 0

        return handle

    def _set_groups(self, pid: int, count: int, address: int, width: str) -> int:
        old = self._callers.credentials(pid)
        count = unsigned(count)
        if not old.is_privileged:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if count > credentials.MOST_GROUPS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        groups = array.array(width)
        groups.frombytes(self._callers.read(pid, address, count * groups.itemsize) if count else b"")
        # The kernel keeps them sorted, and so getgroups(2) gives them.
        self._callers.become(pid, old._replace(groups=tuple(sorted(groups))))
        return 0

    def _get_groups(self, pid: int, count: int, address: int, width: str) -> int:
        groups = self._callers.credentials(pid).groups
        count = signed(count)
        if count:
            if count < len(groups):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            values = groups if width == "I" else map(narrow, groups)
            self._callers.write(pid, address, array.array(width, values).tobytes())
        return len(groups)

    def _get_three(self, pid: int, ids: Sequence[int], addresses: Sequence[int], layout: str) -> int:
        for address, number in zip(addresses[:3], ids[:3], strict=True):
            self._callers.write(pid, address, struct.pack(layout, number if layout == "=I" else narrow(number)))
        return 0

    def _execute(self, pid: int, _: Sequence[int]) -> None:
        """Note an execve(2), which the kernel carries out; that it may fail makes no difference to anybody's rights."""
        if self._callers.are_all_root:
            return
        old = self._callers.credentials(pid)
        new = credentials.executed(old)
        if new != old:
            self._callers.become(pid, new)

    def _keep_rights(self, pid: int, arguments: Sequence[int]) -> None:
        """Note PR_SET_KEEPCAPS, which the kernel carries out."""
        old = self._callers.credentials(pid)
        keeps = arguments[1] == 1 and old.is_privileged
        if keeps != old.keeps_rights:
            self._callers.become(pid, old._replace(keeps_rights=keeps))

    def _peer_credentials(self, pid: int, arguments: Sequence[int]) -> int | None:
        """Answer SO_PEERCRED: the peer as the kernel says, acting as it does now."""
        if self._callers.translate_pid is not None or self._callers.are_all_root:
            return None
        try:
            pidfd = os.pidfd_open(pid)
            try:
                fd = syscalls.pidfd_getfd(pidfd, signed(arguments[0]))
            finally:
                os.close(pidfd)
        except OSError:  # a thread that is no leader, or no such descriptor
            return None
        try:
            # With the family given the module asks nothing of the descriptor.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd) as peer:
                number = int.from_bytes(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
        except OSError:  # no socket
            return None
        size = int.from_bytes(self._callers.read(pid, arguments[4], 4), "little")
        if not number or size < struct.calcsize("=III"):
            return None
        acting = self._callers.credentials(number)
        inside = self._callers.number_inside(number)
        self._callers.write(pid, arguments[3], struct.pack("=III", inside, acting.uid.effective, acting.gid.effective))
        self._callers.write(pid, arguments[4], struct.pack("=I", struct.calcsize("=III")))
        return 0
