"""Docker and Podman as CI systems use them: each container has pybuild in it, and the rights its options give.

Images are cheap: the root file system has nothing but accounts and empty folders. What is installed on this machine,
the environment and the packages under test are mounted into it, for reading only.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.command import PATIENCE, Done

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.e2e.command import Pybuild

IMAGE = "place:1"
_START_SECONDS = 30
_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=16384:16384")
"""Podman as root raises both by default, which the root of a virtual machine or container may not be allowed to."""

_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}
_FOLDERS = {"etc": 0o755, "usr": 0o755, "run": 0o755, "root": 0o700, "var/lib": 0o755, "var/tmp": 0o1777, "tmp": 0o1777}
_FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\npybuild:x:1000:1000::/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\npybuild:x:1000:\n",
    "etc/subuid": "root:65536:65536\npybuild:100000:65536\n",
    "etc/subgid": "root:65536:65536\npybuild:100000:65536\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine with the image in its store. *command* starts its client, *run_options* go to every `run`."""

    command: tuple[str, ...]
    user: Pybuild
    program: tuple[str, ...]
    mounts: Mapping[str, str]
    run_options: tuple[str, ...] = ()

    def __call__(self, script: str, *options: str, status: int = 0) -> Done:
        """Run a shell script in a new container; `"$@"` in it is pybuild."""
        mounts = [f"--volume={source}:{target}:ro" for source, target in self.mounts.items()]
        run = (*self.command, "run", "--rm", "--network=none", "--env=HOME=/tmp", *self.run_options, *mounts, *options)
        return self.user.run_other(*run, IMAGE, "sh", "-ec", script, "sh", *self.program, status=status)


@contextlib.contextmanager
def start_docker(user: Pybuild, program: tuple[str, ...], mounts: Mapping[str, str]) -> Iterator[Engine]:
    """Start a daemon of our own, which changes nothing of the machine's network, and end it."""
    folder, socket = user.folder, f"unix://{user.folder}/docker.sock"
    places = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid", f"--host={socket}"]
    quiet = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    with open(folder / "log", "wb") as log:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "dockerd", *places, *quiet],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=user.environment(),
        )
    try:
        command = ("docker", "--host", socket)
        _wait_for_docker(daemon, command, folder / "log")
        engine = Engine(command=command, user=user, program=program, mounts=mounts)
        user.run_other(*command, "import", str(_write_image(folder)), IMAGE)
        yield engine
    finally:
        daemon.terminate()
        daemon.wait(timeout=PATIENCE)
        for mount in reversed(_mounts_below(folder)):
            subprocess.run(["umount", "--lazy", mount], check=False)


def _wait_for_docker(daemon: subprocess.Popen[bytes], command: tuple[str, ...], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            pytest.skip(f"needs dockerd: {' '.join(log.read_text(errors='replace').splitlines()[-1:])}")
        time.sleep(0.05)


def start_podman(user: Pybuild, program: tuple[str, ...], mounts: Mapping[str, str]) -> Engine:
    """Return podman with a store of its own, with or without root as *user* is."""
    folder = user.folder
    # crun refuses hosts that have both versions of control groups, and only crun can do without any.
    is_unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    runtime, groups = ("crun", ("--cgroups=disabled",)) if is_unified else ("runc", ())
    command = (
        *("podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run", "--runtime", runtime),
        *("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs"),
    )
    limits = () if user.account.uid else _LIMITS
    engine = Engine(command=command, user=user, program=program, mounts=mounts, run_options=(*groups, *limits))
    try:
        user.run_other(*command, "import", str(_write_image(folder)), IMAGE)
        engine("true")
    except AssertionError as error:
        pytest.skip(f"needs podman that can run containers: {' '.join(str(error).splitlines()[-1:])}")
    return engine


def mounts_of(packages: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return what a container needs of this machine to run pybuild, and *files* beside it: source to target."""
    if Path(sys.base_prefix) != Path("/usr"):
        pytest.skip(f"needs the system's Python, not that in {sys.base_prefix}")
    if not Path("/lib").is_symlink():
        pytest.skip("needs a machine whose programs and libraries are all in /usr")
    installed = dict.fromkeys(["/usr", *({sys.prefix} - {"/usr"})])
    if not packages.is_relative_to(sys.prefix):
        installed[str(packages)] = None
    return {path: path for path in installed} | dict(files)


def _write_image(folder: Path) -> Path:
    """Write the root file system of the containers as a tar that every user may read."""
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name, target in _LINKS.items():
            tar.addfile(_member(name, tarfile.SYMTYPE, 0o777, linkname=target))
        for name, mode in _FOLDERS.items():
            tar.addfile(_member(name, tarfile.DIRTYPE, mode))
        for name, text in _FILES.items():
            tar.addfile(_member(name, tarfile.REGTYPE, 0o644, size=len(text)), io.BytesIO(text.encode()))
    archive.chmod(0o644)
    return archive


def _member(name: str, kind: bytes, mode: int, *, linkname: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname, member.size = kind, mode, linkname, size
    return member


def _mounts_below(folder: Path) -> list[str]:
    with open("/proc/self/mounts", encoding="utf-8") as table:
        targets = [os.fsdecode(line.split()[1]) for line in table]
    return [target for target in targets if target.startswith(f"{folder}/")]
