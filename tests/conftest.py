"""What all tests share: markers that need a feature of the machine, and the order in which tests run."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ORDER = ("registry", "builder", "property", "runtime", "integration", "conformance", "e2e")
"""Folders of tests, the fastest first; what is not in one of them runs before all."""

# Two cores that do other things at the same time make single examples slow, which says nothing about the code.
settings.register_profile("pybuild", deadline=None)
settings.load_profile("pybuild")


def pytest_configure() -> None:
    """Have programs that tests start begin with SIGINT as it is by default: what runs in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put fast tests first, keeping the order within a folder."""
    items.sort(key=_rank)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose marker names a feature that this machine does not have."""
    for marker in item.iter_markers():
        find_lack = FEATURES.get(marker.name)
        lack = find_lack() if find_lack else None
        if lack:
            pytest.skip(lack)


def _rank(item: pytest.Item) -> int:
    parts = item.path.relative_to(item.config.rootpath).parts
    return ORDER.index(parts[1]) + 1 if parts[1] in ORDER else 0


@functools.cache
def _lack_of_user_namespaces() -> str | None:
    script = (
        "mount -t tmpfs none /tmp && cd /tmp && mkdir lower upper work merged"
        " && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr none merged"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, check=False, timeout=30)
    return None if done.returncode == 0 else "needs user namespaces with overlay"


@functools.cache
def _lack_of_sub_ids() -> str | None:
    if not shutil.which("newuidmap"):
        return "needs newuidmap (Debian's uidmap)"
    name = "pybuild-ci" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    try:
        with open("/etc/subuid", encoding="utf-8") as file:
            has_range = any(line.startswith(f"{name}:") for line in file)
    except OSError:
        has_range = False
    return None if has_range else f"needs a range of sub-ids for the user {name}"


@functools.cache
def _lack_of_tun() -> str | None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"needs /dev/net/tun: {error.strerror}"
    return _lack_of_program("slirp4netns", "pasta")()


def _lack_of_program(*names: str) -> Callable[[], str | None]:
    def find_lack() -> str | None:
        missing: Sequence[str] = [name for name in names if not shutil.which(name)]
        return f"needs {', '.join(missing)}" if missing else None

    return find_lack


def _lack_of_docker() -> str | None:
    return _lack_of_program("dockerd", "docker")() or ("needs root to start dockerd" if os.geteuid() else None)


FEATURES: dict[str, Callable[[], str | None]] = {
    "userns": _lack_of_user_namespaces,
    "subids": _lack_of_sub_ids,
    "tun": _lack_of_tun,
    "registry": _lack_of_program("docker-registry"),
    "skopeo": _lack_of_program("skopeo"),
    "umoci": _lack_of_program("umoci"),
    "docker": _lack_of_docker,
    "podman": _lack_of_program("podman"),
    "debian": _lack_of_program("mmdebstrap"),
}
"""Marker to a function that says what is missing for it, or None."""
