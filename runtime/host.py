"""What this host says of user namespaces, and why it refuses them: the texts of a build that cannot start and of doctor.

Source: user_namespaces(7); the sysctls of Debian and Ubuntu; apparmor(7).
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from runtime.errors import HostUnsupportedError

_ADD_SUB_IDS: Final = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535"

GIVE_SUB_IDS: Final = f"give your account sub-ids: {_ADD_SUB_IDS} $USER"
"""The cure for what one user id cannot do."""

INSTALL_UIDMAP: Final = "sudo apt-get install uidmap  (Fedora, RHEL: sudo dnf install shadow-utils)"
"""The cure where newuidmap and newgidmap are missing."""


class HostFacts(NamedTuple):
    """What explains why the kernel refused a user namespace; texts are the contents of sysctls, None if absent.

    Args:
        seccomp: the mode of this process, 2 if a filter is in force.
        userns_clone: kernel.unprivileged_userns_clone (Debian).
        apparmor_restriction: kernel.apparmor_restrict_unprivileged_userns (Ubuntu).
        max_user_namespaces: user.max_user_namespaces.
        is_root: whether the uid is 0.
    """

    seccomp: int
    userns_clone: str | None
    apparmor_restriction: str | None
    max_user_namespaces: str | None
    is_root: bool


def host_facts() -> HostFacts:
    """Return what this host says about user namespaces."""
    status = _read("/proc/self/status") or ""
    modes = [line.split()[1] for line in status.splitlines() if line.startswith("Seccomp:")]
    return HostFacts(
        seccomp=int(modes[0]) if modes else 0,
        userns_clone=_read("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restriction=_read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        max_user_namespaces=_read("/proc/sys/user/max_user_namespaces"),
        is_root=os.geteuid() == 0,
    )


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def explain_refusal(number: int, facts: HostFacts) -> HostUnsupportedError:
    """Return the error for a user namespace that could not be made or used: errno *number* and the cheapest cure."""
    reason, hint = _cause(number, facts)
    return HostUnsupportedError("user namespaces", f"{reason} ({os.strerror(number)})", hint=hint)


def find_account(uid: int) -> str | None:
    """Return the name of a user's account; None for a uid without one, as containers have."""
    import pwd  # noqa: PLC0415 - a compiled module that only unprivileged users need

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def lack_of_sub_ids(uid: int) -> HostUnsupportedError:
    """Return the error for a user who has no range of sub-ids, with the cure."""
    name = find_account(uid)
    hint = f"{_ADD_SUB_IDS} {name}"
    if name is None:
        hint = f"add the line `{uid}:100000:65536` to /etc/subuid and to /etc/subgid"
    return HostUnsupportedError(
        "a user namespace with several ids", f"/etc/subuid and /etc/subgid have no range for {name or uid}", hint=hint
    )


def _cause(number: int, facts: HostFacts) -> tuple[str, str | None]:
    match number:
        case errno.ENOSPC | errno.EUSERS if facts.max_user_namespaces == "0":
            return (
                "the sysctl user.max_user_namespaces is 0",
                "sudo sysctl -w user.max_user_namespaces=15000",
            )
        case errno.ENOSPC | errno.EUSERS:
            return (
                f"user.max_user_namespaces = {facts.max_user_namespaces} is used up, or they are nested too deep",
                "sudo sysctl -w user.max_user_namespaces=100000",
            )
        case errno.EINVAL | errno.ENOSYS:
            return "the kernel is built without CONFIG_USER_NS", None
        case _ if not facts.is_root and facts.userns_clone == "0":
            return (
                "the sysctl kernel.unprivileged_userns_clone is 0",
                "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            )
        case _ if not facts.is_root and facts.apparmor_restriction == "1":
            return (
                "AppArmor restricts unprivileged user namespaces",
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            )
        case _ if facts.seccomp:
            return (
                "a seccomp filter refuses them, as container engines set by default",
                "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined …",
            )
        case _:
            return "the kernel or a security module refuses them", None
