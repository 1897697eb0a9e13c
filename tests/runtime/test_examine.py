"""What doctor finds on machines that are made up, and what it tells to do."""

from __future__ import annotations

import errno
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import HostUnsupportedError
from runtime.examine import apparmor_profile, examine, examine_store, find_engine, more_rights
from runtime.isolation import RUNGS, Inside, Trial, choose

SETUID = stat.S_IFREG | stat.S_ISUID | 0o755
INSIDE = Inside(uids=65537, gids=65537, fresh_proc=True, overlay=True)
COPIED = replace(INSIDE, overlay=False)
GOOD = (Trial(rung="subids", inside=INSIDE), Trial(rung="single-id", inside=INSIDE))
REFUSED = tuple(
    Trial(rung=rung, obstacle=HostUnsupportedError("user namespaces", "a filter refuses them", hint="ask"))
    for rung in ("subids", "single-id")
)
USER = 12345


class MadeUp:
    """A machine of some files, programs and devices."""

    def __init__(self, files=(), programs=("newuidmap", "newgidmap", "slirp4netns", "git", "ssh-agent"), devices=()):
        self.files = {
            "/etc/subuid": f"{USER}:100000:65536\n",
            "/etc/subgid": f"{USER}:100000:65536\n",
            "/proc/self/status": "NoNewPrivs:\t0\nSeccomp:\t0\n",
            **dict(files),
        }
        self.programs = programs
        self.devices = {"/dev/net/tun": None, **dict(devices)}

    def read(self, path):
        return self.files.get(path)

    def mode(self, path):
        if path.startswith("/bin/"):
            return SETUID
        return 0o644 if path in self.files else None

    def find_open_error(self, path):
        return self.devices.get(path, errno.ENOENT)

    def find_program(self, name):
        return f"/bin/{name}" if name in self.programs else None


def findings(machine, variables=None, trials=GOOD, uid=USER):
    """Examine a machine; findings by name."""
    return {finding.name: finding for finding in examine(machine, variables or {}, uid, trials)}


def test_good_machine_needs_nothing():
    """Where everything is there, nothing is to be done."""
    found = findings(MadeUp())

    assert {finding.state for finding in found.values()} == {"ok"}
    assert all(finding.fix is None for finding in found.values())


@pytest.mark.parametrize(
    ("machine", "name", "fix"),
    [
        (MadeUp({"/etc/subuid": ""}), "sub-ids", f"`{USER}:100000:65536`"),
        (MadeUp(programs=("git", "newgidmap")), "id-helpers", "apt-get install uidmap"),
        (MadeUp({"/proc/self/status": "NoNewPrivs:\t1\n"}), "no-new-privileges", "allowPrivilegeEscalation: true"),
        (
            MadeUp({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}),
            "security-modules",
            "apparmor_parser -r",
        ),
        (MadeUp(programs=()), "network", "apt-get install slirp4netns"),
        (MadeUp(devices={"/dev/net/tun": errno.ENOENT}), "network", "--device /dev/net/tun"),
        (MadeUp(devices={"/dev/net/tun": errno.EACCES}), "network", "sudo chmod 666 /dev/net/tun"),
        (MadeUp(programs=()), "git", "apt-get install git"),
    ],
    ids=["sub-ids", "helpers", "no-new-privileges", "apparmor", "network", "tun", "tun-mode", "git"],
)
def test_what_is_missing_has_a_cure(machine, name, fix):
    """Each thing that is missing is told with what to paste."""
    finding = findings(machine)[name]

    assert finding.state != "ok"
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("files", "variables", "engine", "fix"),
    [
        ({"/.dockerenv": ""}, {}, "docker", "docker run --security-opt seccomp=unconfined"),
        ({"/run/.containerenv": ""}, {}, "podman", "podman run --security-opt seccomp=unconfined"),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes", "hostUsers: false"),
        ({"/.dockerenv": ""}, {"GITLAB_CI": "true"}, "docker", "config.toml"),
        ({"/.dockerenv": ""}, {"GITHUB_ACTIONS": "true"}, "docker", "container.options"),
    ],
)
def test_container_is_told_how_to_be_started(files, variables, engine, fix):
    """Where a container refuses user namespaces, the cure is in the words of what started it."""
    machine = MadeUp(files)

    assert find_engine(machine, variables) == engine
    assert fix in more_rights(engine, variables)
    assert fix in findings(machine, variables, REFUSED)["user-namespaces"].fix


def test_refusal_outside_of_containers_has_its_own_cure():
    """Without an engine, what the refusal says is the cure."""
    finding = findings(MadeUp(), trials=REFUSED)["user-namespaces"]

    assert (finding.text, finding.fix) == ("a filter refuses them", "ask")


def test_root_is_told_that_privileges_are_not_gained():
    """It is not claimed that the flag is not set, though uid 0 needs no helpers."""
    finding = findings(MadeUp({"/proc/self/status": "NoNewPrivs:\t1\n"}), uid=0)["no-new-privileges"]

    assert (finding.state, finding.fix) == ("ok", None)
    assert finding.text.startswith("set;")


def test_best_rung_that_can_be_had_is_chosen():
    """The order is that of RUNGS."""
    trials = (*REFUSED, Trial(rung="chroot"), Trial(rung="none"))

    assert choose(trials).rung == "chroot"
    assert choose((*GOOD, *trials[2:])).rung == "subids"
    assert [trial.rung for trial in trials] == list(RUNGS)


def test_store_is_told_with_its_file_system(tmp_path):
    """A folder with room needs nothing."""
    finding = examine_store(tmp_path)

    assert finding.text.startswith(f"{tmp_path}, ")
    assert (finding.state, finding.fix) == ("ok", None)


@pytest.mark.parametrize(
    ("file", "fix"),
    [
        ("/.dockerenv", "docker run -v pybuild:/store -e PYBUILD_ROOT=/store"),
        ("/run/.containerenv", "podman run -v pybuild:/store -e PYBUILD_ROOT=/store"),
        ("/none", "--root or $PYBUILD_ROOT"),
    ],
)
def test_store_that_overlay_does_not_take_is_told_with_a_better_place(file, fix):
    """Layers are then copied; a volume helps."""
    trials = (Trial(rung="subids", inside=COPIED), Trial(rung="single-id", inside=COPIED), Trial(rung="none"))
    finding = findings(MadeUp({file: ""}), trials=trials)["snapshots"]

    assert finding.text == "by copies, since overlay does not take the store"
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("trials", "snapshotter"),
    [
        ((*GOOD, Trial(rung="none")), "overlay"),
        ((*REFUSED, Trial(rung="chroot"), Trial(rung="none")), "copies"),
        ((*REFUSED, Trial(rung="none")), None),
    ],
    ids=["namespaces", "chroot", "none"],
)
def test_snapshotter_of_the_best_rung_is_told(trials, snapshotter):
    """It is the one that a build gets, and what would give more rights gives a better one."""
    finding = findings(MadeUp(), trials=trials)["snapshots"]

    assert choose(trials).snapshotter == snapshotter
    assert finding.fix is None
    assert (snapshotter or "no step") in finding.text


def test_apparmor_profile_names_the_interpreter():
    """The profile is for the program that makes the namespace."""
    assert "profile pybuild /usr/bin/python3.11 flags=(unconfined)" in apparmor_profile("/usr/bin/python3.11")
    assert Path("/etc/apparmor.d/pybuild").name in apparmor_profile("/x")
