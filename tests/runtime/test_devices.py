"""Device nodes that a step is given beside the usual ones."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.userns

CHARACTER = stat.S_IFCHR


def test_node_can_be_read_and_written(run_step):
    """A node of the host is seen under the name it was given, in and outside /dev, and works."""
    step = run_step(
        "head -c 3 /dev/mine/zero | wc -c && echo x > /opt/full; test $? = 1 && ls -l /dev/mine/zero | cut -c 1",
        nodes=[["/dev/zero", "/dev/mine/zero", CHARACTER, 1, 5], ["/dev/full", "/opt/full", CHARACTER, 1, 7]],
    )

    assert step["stdout"].split() == ["3", "c"]
    assert "No space left on device" in step["stderr"]
    assert step["left"] == []


def test_node_cannot_be_changed(run_step):
    """Its mode, owner and times are those of the host's node, and stay so."""
    before = os.stat("/dev/zero")
    step = run_step(
        "chmod 600 /dev/mine; chown 1 /dev/mine; touch /dev/mine; rm /dev/mine",
        nodes=[["/dev/zero", "/dev/mine", CHARACTER, 1, 5]],
    )
    after = os.stat("/dev/zero")

    assert step["stderr"].count("Read-only file system") == 3
    assert (before.st_mode, before.st_uid, before.st_mtime_ns) == (after.st_mode, after.st_uid, after.st_mtime_ns)


def test_node_takes_the_place_of_a_usual_one(run_step):
    """What is given under the name of a usual node is seen in its place."""
    step = run_step("head -c 2 /dev/random | od -An -tx1", nodes=[["/dev/zero", "/dev/random", CHARACTER, 1, 5]])

    assert step["stdout"].split() == ["00", "00"]


def test_fifo_is_a_node(run_step, tmp_path: Path):
    """A FIFO is given like a device."""
    os.mkfifo(tmp_path / "fifo")
    step = run_step(
        "test -p /dev/pipe && echo there", nodes=[[str(tmp_path / "fifo"), "/dev/pipe", stat.S_IFIFO, 0, 0]]
    )

    assert step["stdout"] == "there\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/dev/zero", "another device by now than when the build began: `/dev/zero`"),
        ("link", "another device by now than when the build began: "),
        ("file", "another device by now than when the build began: "),
        ("gone", "No such file or directory"),
    ],
)
def test_node_that_is_another_by_now(run_step, tmp_path: Path, source: str, message: str):
    """Only the device that was looked at is given, and no symbolic link is followed."""
    (tmp_path / "link").symlink_to("/dev/full")
    (tmp_path / "file").touch()
    step = run_step("true", nodes=[[str(tmp_path / source), "/dev/mine", CHARACTER, 1, 7]])

    assert step["error"]["class"] == "StepSetupError"
    assert message in step["error"]["message"]


def test_mount_with_restrictions(run_step, tmp_path: Path):
    """A bind mount forbids what it is told to."""
    (tmp_path / "shown").mkdir(mode=0o755)
    (tmp_path / "shown/program").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "shown/program").chmod(0o755)
    step = run_step(
        "/mnt/program; touch /mnt/new && grep ' /mnt ' /proc/self/mountinfo | cut -d ' ' -f 6",
        binds=[[str(tmp_path / "shown"), "/mnt", False, "", ["nosuid", "nodev", "noexec"]]],
    )

    assert "Permission denied" in step["stderr"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(step["stdout"].strip().split(","))


def test_groups_are_added(run_step):
    """A step may be in further groups than its user is."""
    step = run_step("id -G", groups=[44, 10], user="app")

    assert step["stdout"].split() == ["1001", "10", "44", "999"]


def test_groups_can_be_kept(run_step):
    """A step that keeps the groups of this process has none of its own."""
    ours = len(os.getgroups())
    step = run_step("grep Groups /proc/self/status", keep_groups=True, user="app")

    assert len(step["stdout"].split()) - 1 == ours
    assert "999" not in step["stdout"].split()
