"""`RUN --device` from start to end: as each user, with the cache, and what is said when it cannot be."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

GROUP = 60606
"""A group nobody is in."""


def describe(pybuild: Pybuild, *devices: dict) -> Path:
    """Write a device file for `vendor.com/thing`; return its folder."""
    whole = {"cdiVersion": "0.6.0", "kind": "vendor.com/thing", "devices": devices}
    pybuild.context({"thing.json": json.dumps(whole)}, name="cdi")
    return pybuild.folder / "cdi"


def build(pybuild: Pybuild, line: str, *options: str, status: int = 0) -> str:
    """Build a Dockerfile of one RUN with every device allowed; return what progress showed."""
    context = pybuild.context({"Dockerfile": f"FROM busybox\n{line}\n"})
    given = ("--progress", "plain", "--allow", "device", "--cdi-spec-dir", "cdi", *options)
    return pybuild("build", *given, context, status=status).err


def test_device_is_given_to_each_user(pybuild_of_each: Pybuild, busybox_archive: Path) -> None:
    """Nodes work and mounts show what they should, with and without sub-ids, and for root."""
    pybuild = pybuild_of_each
    pybuild("import", str(busybox_archive), "busybox")
    pybuild.context({"data": "kept\n"}, name="host")
    mounts = [
        {"hostPath": f"{pybuild.folder}/host", "containerPath": "/host/rw"},
        {"hostPath": f"{pybuild.folder}/host/data", "containerPath": "/host/file", "options": ["ro", "noexec"]},
    ]
    node = {"path": "/dev/thing", "hostPath": "/dev/urandom"}
    describe(pybuild, {"name": "one", "containerEdits": {"deviceNodes": [node], "mounts": mounts}})

    build(
        pybuild,
        "RUN --device=vendor.com/thing head -c 4 /dev/thing | wc -c | grep -qx 4 && echo x > /dev/thing && "
        "grep -qx kept /host/file && ! echo y > /host/file && echo made > /host/rw/made",
    )

    assert (pybuild.folder / "host/made").read_text() == "made\n"
    assert (pybuild.folder / "host/data").read_text() == "kept\n"


@pytest.mark.subids
def test_node_of_a_group_of_the_user(with_busybox: Pybuild) -> None:
    """A node that only a supplementary group of the building user may open can be opened, by root and others."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give a node to a group")
    fifo = with_busybox.folder / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, 0, GROUP)
    fifo.chmod(0o060)
    node = {"path": "/dev/thing", "hostPath": str(fifo)}
    describe(with_busybox, {"name": "one", "containerEdits": {"deviceNodes": [node]}})
    member = dataclasses.replace(
        with_busybox, account=dataclasses.replace(with_busybox.account, groups=(*with_busybox.account.groups, GROUP))
    )
    line = "RUN --device=vendor.com/thing (echo word > /dev/thing &) ; grep -qx word /dev/thing"

    build(member, line)
    build(member, f"USER 1000:1000\n{line}")
    refused = build(with_busybox, line, "--no-cache", status=1)

    assert "Permission denied" in refused


def test_additional_groups(with_busybox: Pybuild) -> None:
    """A step is in the groups its device names."""
    describe(with_busybox, {"name": "one", "containerEdits": {"additionalGIDs": [44]}})

    build(with_busybox, "USER 1000:1000\nRUN --device=vendor.com/thing id -G | grep -w 44")


def test_cached_step_needs_no_device(with_busybox: Pybuild) -> None:
    """What is asked for is part of the cache key, not what there is; a step that is cached is not given anything."""
    folder = describe(with_busybox, *({"name": name, "containerEdits": {"env": ["A=b"]}} for name in ("one", "two")))
    build(with_busybox, "RUN --device=vendor.com/thing=one,required true")
    other = build(with_busybox, "RUN --device=vendor.com/thing=two,required true")
    shutil.rmtree(folder)
    folder.mkdir(mode=0o755)
    cached = build(with_busybox, "RUN --device=vendor.com/thing=one,required true")
    missing = build(with_busybox, "RUN --device=vendor.com/thing=one,required true", "--no-cache", status=4)

    assert "#2 CACHED" not in other
    assert "#2 CACHED" in cached
    assert "required device is not registered: `vendor.com/thing=one`" in missing
    assert f"device files are searched in {folder}, and describe nothing" in missing


def test_broken_device_file_is_told_of(with_busybox: Pybuild) -> None:
    """A device that is missing because its file is broken says so, as an error or a warning."""
    folder = describe(with_busybox)
    reason = f"device file `{folder}/thing.json` cannot be used, required field is missing: `devices`"

    assert reason in build(with_busybox, "RUN --device=vendor.com/thing,required true", status=4)
    assert reason in build(with_busybox, "RUN --device=vendor.com/thing true")


def test_check_runs_no_step_and_wants_no_device(with_busybox: Pybuild) -> None:
    """`--check` looks at the Dockerfile alone."""
    context = with_busybox.context({"Dockerfile": "FROM busybox\nRUN --device=vendor.com/thing,required true\n"})

    assert "Check complete, no warnings found" in with_busybox("build", "--check", context).out


def test_device_folder_that_is_missing(with_busybox: Pybuild) -> None:
    """A folder that is named has to be there; those of the machine need not be."""
    context = with_busybox.context({"Dockerfile": "FROM busybox\nRUN --device=vendor.com/thing true\n"})
    with_busybox("build", context)
    refused = with_busybox("build", "--cdi-spec-dir", "nowhere", context, status=2)

    assert "option --cdi-spec-dir: no such folder: `nowhere`" in refused.err
