"""What steps may have, and what they are given for it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from builder.dockerfile.mounts import Device
from builder.errors import DeviceMissingError, DeviceUnusableError, DockerfileError
from builder.events import Warned
from builder.plan.graph import RunCommand, Vertex
from builder.request import DeviceGrant, DeviceRules
from builder.solve.devices import Devices
from builder.solve.ops.mounts import StepMounts
from registry.value import replace
from runtime.devices import DeviceNode
from runtime.mounts import BindMount

EVERYTHING = DeviceRules(all=True)
ZERO = {"path": "/dev/thing", "hostPath": "/dev/zero"}


def step(*names: str, required: bool = False) -> Vertex:
    """Make a RUN that asks for some devices."""
    op = RunCommand(
        args=("true",),
        environ=(),
        cwd="/",
        user="",
        network="host",
        hostname="h",
        shm_size=1,
        devices=tuple(Device(name=name, required=required) for name in names),
    )
    return Vertex(op=op, name="RUN", text="RUN", stage="")


def describe(folder: Path, edits: dict, **members) -> None:
    """Write a file with the devices `v/c=one` and `v/c=two`."""
    devices = [{"name": name, "containerEdits": edits} for name in ("one", "two")]
    (folder / "a.json").write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "v/c", "devices": devices} | members))


def give(folder: Path, vertex: Vertex, rules: DeviceRules = EVERYTHING) -> tuple[StepMounts, list[str]]:
    """Return what a step gets, and the warnings."""
    warnings: list[str] = []

    def sink(event):
        assert isinstance(event, Warned)
        warnings.append(event.message)

    devices = Devices(replace(rules, folders=(folder,)), [vertex], sink)
    devices.check([vertex])
    ready = StepMounts(environ=[("A", "of the step")])
    devices.give(vertex, ready)
    return ready, warnings


def test_edits_of_devices_are_joined(tmp_path):
    """Shared edits come once and first, those of devices in their order, after what the step has already."""
    mount = {"hostPath": "/usr", "containerPath": "/u", "options": ["ro", "nodev", "nosuid"]}
    describe(
        tmp_path, {"deviceNodes": [ZERO], "mounts": [mount], "additionalGIDs": [7]}, containerEdits={"env": ["A=x"]}
    )
    ready, warnings = give(tmp_path, step("v/c=two", "v/c"))

    assert ready.environ == [("A", "of the step"), ("A", "x")]
    assert ready.nodes == [
        DeviceNode(source=Path("/dev/zero"), target="/dev/thing", format=stat.S_IFCHR, major=1, minor=5)
    ]
    bind = BindMount(source=Path("/usr"), target="/u", read_only=True, restrictions=("nosuid", "nodev"))
    assert ready.binds == [bind, bind]
    assert (ready.groups, ready.keep_groups, warnings) == ([7], False, [])


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"deviceNodes": [{"path": "/dev/none"}]}, "`/dev/none` of this machine: no such file or directory"),
        ({"deviceNodes": [{"path": "/usr"}]}, "no device node: `/usr`"),
        ({"deviceNodes": [{"path": "/dev/stdin"}]}, "no device node: `/dev/stdin`"),
        ({"deviceNodes": [ZERO | {"type": "b"}]}, "not of the type that its file says, b: `/dev/zero`"),
        ({"deviceNodes": [ZERO | {"major": 1, "minor": 7}]}, "not of the number that its file says, 1:7: `/dev/zero`"),
        ({"deviceNodes": [ZERO | {"permissions": "r"}]}, "its file limits the permissions to r, which needs root"),
        ({"deviceNodes": [ZERO | {"permissions": "none"}]}, "its file limits the permissions to none"),
        ({"mounts": [{"hostPath": "/none", "containerPath": "/x"}]}, "`/none` of this machine: no such file"),
    ],
)
def test_device_that_cannot_be_given(tmp_path, edits, message):
    """A device is given as its file says or not at all."""
    describe(tmp_path, edits)

    with pytest.raises(DeviceUnusableError, match=f"^device v/c=one cannot be given, {message}"):
        give(tmp_path, step("v/c"))


def test_missing_device(tmp_path):
    """An optional device that is missing is a warning, a required one an error before anything runs."""
    describe(tmp_path, {"env": ["A=1"]})
    ready, warnings = give(tmp_path, step("v/d"))

    assert ready == StepMounts(environ=[("A", "of the step")])
    assert warnings == ["optional device is not registered, the step runs without it: `v/d`"]
    with pytest.raises(DeviceMissingError, match=r"did you mean v/c\?\): `v/d`"):
        give(tmp_path, step("v/d", required=True))


@pytest.mark.parametrize(
    ("grants", "asked", "forbidden"),
    [
        ([], ["v/c=one"], "device v/c=one is"),
        (["v/c=one"], ["v/c=one"], None),
        (["v/c"], ["v/c=one"], None),
        (["v/c"], ["v/c=*"], "device v/c=two is"),
        (["v/c=*"], ["v/c=one", "v/c=two"], None),
        (["w/c=*"], ["v/c=one", "v/c=two"], "devices v/c=one, v/c=two are"),
        ([], ["v/d", "v/c=three"], None),
    ],
    ids=["nothing", "the device", "the first of a kind", "one of two", "a kind", "another kind", "not there anyway"],
)
def test_grants(tmp_path, grants, asked, forbidden):
    """A grant covers the devices its name stands for; what is not there needs none."""
    describe(tmp_path, {"env": ["A=1"]})
    rules = DeviceRules(grants=tuple(DeviceGrant(name) for name in grants))

    if forbidden is None:
        give(tmp_path, step(*asked), rules)
    else:
        with pytest.raises(DockerfileError, match=f"^{forbidden} requested by the build but not allowed"):
            give(tmp_path, step(*asked), rules)


@pytest.mark.parametrize(("value", "allowed"), [("true", True), ("1", True), ("false", False), ("yes", False)])
def test_device_that_every_build_may_have(tmp_path, value, allowed):
    """The annotation counts as a truth value of Go."""
    describe(tmp_path, {"env": ["A=1"]}, annotations={"org.mobyproject.buildkit.device.autoallow": value})

    if allowed:
        give(tmp_path, step("v/c"), DeviceRules())
    else:
        with pytest.raises(DockerfileError, match="not allowed"):
            give(tmp_path, step("v/c"), DeviceRules())


@pytest.mark.parametrize(
    ("mode", "gid", "keep"),
    [(0o660, 7, True), (0o666, 7, False), (0o664, 7, True), (0o640, 5, False), (0o660, 9, False)],
    ids=["of a group", "of everybody", "writable by a group", "of the primary group", "of a strange group"],
)
def test_groups_are_kept_for_a_node_that_needs_them(tmp_path, monkeypatch, mode, gid, keep):
    """The groups of the user who builds stay on a step when one of them opens more of a node than everybody may."""
    os.mkfifo(tmp_path / "fifo")
    found = os.lstat(tmp_path / "fifo")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 5)
    monkeypatch.setattr(os, "getgroups", lambda: [5, 7])
    values = [stat.S_IFIFO | mode, *found[1:5], gid, *found[6:]]
    monkeypatch.setattr(os, "lstat", lambda _path: os.stat_result(values))
    describe(tmp_path, {"deviceNodes": [{"path": "/dev/x", "hostPath": str(tmp_path / "fifo")}]})
    ready, _ = give(tmp_path, step("v/c"))

    assert ready.keep_groups is keep
