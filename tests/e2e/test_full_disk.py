"""A disk that is full: one message, nothing half made, and with room again the next build is right."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.fakes.docker_registry import run_docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.command import Pybuild

pytestmark = [
    pytest.mark.userns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system"),
]

MIB = 1 << 20
FULL = "the store cannot take more bytes, No space left on device"


@dataclass(frozen=True)
class Disk:
    """A file system of 16 MiB."""

    folder: Path

    def fill(self, *, left: int) -> None:
        """Leave so many bytes."""
        self.empty()
        space = os.statvfs(self.folder)
        (self.folder / "filler").write_bytes(bytes(space.f_bavail * space.f_frsize - left))

    def empty(self) -> None:
        """Give back what was filled."""
        (self.folder / "filler").unlink(missing_ok=True)


def mount(folder: Path, pybuild: Pybuild) -> Iterator[Disk]:
    """Mount a disk that belongs to the user of the command."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)], check=True)
    try:
        os.chown(folder, pybuild.account.uid, pybuild.account.gid)
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(pybuild: Pybuild, busybox_archive: Path) -> Iterator[Disk]:
    """Put the store on a disk of its own, with the image `busybox` in it."""
    for made in mount(pybuild.root, pybuild):
        pybuild("import", str(busybox_archive), "busybox")
        yield made


@pytest.fixture
def other_disk(with_busybox: Pybuild) -> Iterator[Disk]:
    """Put a full disk beside a store that has room."""
    for made in mount(with_busybox.folder / "out", with_busybox):
        made.fill(left=MIB // 2)
        yield made


CASES = {
    # lines of the Dockerfile, bytes left, exit status, what is said
    "blob of a copy": ("FROM scratch\nCOPY large /large\n", 2 * MIB, 5, FULL),
    "unpacking": ("FROM busybox\nRUN true\n", MIB, 5, FULL),
    "what a step writes": ("FROM busybox\nRUN cat /dev/zero > /large\n", 4 * MIB, 1, "No space left on device"),
    "layer of a step": ("FROM busybox\nRUN head -c 3000000 /dev/urandom > /large\n", 5 * MIB, 5, FULL),
    "database": ("FROM scratch\nCOPY small /a\nCOPY small /b\nCOPY small /c\n", 64 * 1024, 5, FULL),
    "nothing left": ("FROM scratch\nCOPY small /a\n", 0, 5, FULL),
}


@pytest.mark.parametrize(("dockerfile", "left", "status", "says"), CASES.values(), ids=CASES.keys())
def test_full_store_stops_a_build_and_leaves_nothing(
    pybuild: Pybuild, disk: Disk, dockerfile: str, left: int, status: int, says: str
) -> None:
    """Wherever it is noticed: the message says it once, nothing stays, and with room the same build goes through."""
    files = {"Dockerfile": dockerfile, "small": "small", "large": os.urandom(3 * MIB).hex()}
    context = pybuild.context(files)
    disk.fill(left=left)

    done = pybuild("build", "--progress", "quiet", "--tag", "app", context, status=status)

    assert says in done.err
    assert done.err.count("ERROR") == 1
    assert "Traceback" not in done.err
    assert list((pybuild.root / "tmp").iterdir()) == []
    disk.empty()
    if status == 1:
        context = pybuild.context({"Dockerfile": dockerfile.replace("cat", "head -c 9")})
    pybuild("build", "--tag", "app", context)
    assert pybuild("images", "--quiet", "app").lines
    pybuild("save", "--output", str(pybuild.folder / "whole.tar"), "app")  # which reads and verifies every layer


def test_full_store_can_be_pruned(pybuild: Pybuild, disk: Disk) -> None:
    """What the hint says to do works when there is not one byte left."""
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN head -c 2000000 /dev/urandom > /x\n"})
    pybuild("build", "--tag", "app", context)
    disk.fill(left=0)
    assert "for example with `pybuild prune`" in pybuild("build", "--no-cache", context, status=5).err

    pybuild("rmi", "app")
    pybuild("prune", "--all", "--force")

    assert os.statvfs(disk.folder).f_bavail * os.statvfs(disk.folder).f_frsize > 2 * MIB
    disk.empty()
    pybuild("build", "--tag", "app", context)


OUTPUTS = {
    "tar": ("type=tar,dest=out/x.tar", "archive cannot be written"),
    "oci": ("type=oci,dest=out/x.tar", "archive cannot be written"),
    "docker": ("type=docker,dest=out/x.tar", "archive cannot be written"),
    "layout": ("type=oci,tar=false,dest=out/layout", "image layout cannot be written"),
    "local": ("type=local,dest=out/files", "folder cannot be written"),
}


@pytest.mark.parametrize(("output", "says"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_full_disk_of_an_output_is_named(with_busybox: Pybuild, other_disk: Disk, output: str, says: str) -> None:
    """The store is not to blame; no archive stays half written."""
    context = with_busybox.context({"Dockerfile": "FROM busybox\nLABEL a=b\n"})

    done = with_busybox("build", "--output", output, context, status=1)

    destination = output.rpartition("=")[2]
    assert f"{says}, No space left on device" in done.err
    assert f"{with_busybox.folder / destination}" in done.err
    assert "prune" not in done.err
    assert not list(other_disk.folder.rglob("*.tar*"))
    assert not list(other_disk.folder.rglob("blob-*"))
    other_disk.empty()
    with_busybox("build", "--output", output, context)


def test_full_disk_of_a_cache_is_named(with_busybox: Pybuild, other_disk: Disk) -> None:
    """A cache that cannot be exported fails the build, or warns if it may."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN head -c 3000000 /dev/urandom > /x\n"})
    target = "type=local,dest=out/cache"

    done = pybuild("build", "--tag", "app", "--cache-to", target, context, status=1)

    assert "cache cannot be written, No space left on device" in done.err
    assert not list(other_disk.folder.rglob("blob-*"))
    pybuild("build", "--tag", "app", "--cache-to", f"{target},ignore-error=true", context)


@pytest.mark.registry
def test_full_store_stops_a_pull_that_can_go_on_later(pybuild: Pybuild, disk: Disk, tmp_path: Path) -> None:
    """A pull that finds no room leaves no part of a blob, and the next one brings the whole image; a push reads only."""
    with run_docker_registry(tmp_path) as address:
        name = f"{address}/base:1"
        pybuild("tag", "busybox", name)
        pybuild("push", name)
        pybuild("rmi", "busybox", name)
        disk.fill(left=MIB // 2)

        done = pybuild("pull", name, status=5)

        assert FULL in done.err
        assert list((pybuild.root / "tmp").iterdir()) == []
        assert len(pybuild("images").lines) == 1
        disk.empty()
        pybuild("pull", name)
        disk.fill(left=64 * 1024)
        pybuild("push", name)
        disk.empty()
        assert pybuild("run", name, "echo", "whole").out == "whole\n"
