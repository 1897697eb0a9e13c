"""Look at a machine for what building needs: one finding a subject, each with the cheapest cure where there is one.

Nothing is changed. What can only be known by trying it comes in as trials of `runtime.isolation`.

Source: spec, container-matrix and peers-environments-security, section 2.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from runtime import idmap
from runtime.host import INSTALL_UIDMAP, find_account, lack_of_sub_ids
from runtime.networks import NOT_INSTALLED, TUN, explain_tun, known_helpers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runtime.isolation import Trial
    from runtime.networks import NetworkLack

State = Literal["ok", "note", "missing"]
"""Good; worth knowing; not there, and something works less well for it."""

Engine = Literal["", "docker", "podman", "kubernetes", "container"]

_LITTLE_SPACE: Final = 2 << 30
_GIBIBYTE: Final = 1 << 30

_MORE_RIGHTS: Final[Mapping[Engine, str]] = {
    "docker": "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined -v pybuild:/store "
    "-e PYBUILD_ROOT=/store …",
    "podman": "podman run --security-opt seccomp=unconfined -v pybuild:/store -e PYBUILD_ROOT=/store …",
    "kubernetes": "spec: {hostUsers: false, containers: [{securityContext: {seccompProfile: {type: Unconfined}, "
    "appArmorProfile: {type: Unconfined}}}]}",
    "container": "start the container without a seccomp profile",
}
_MORE_RIGHTS_OF_CI: Final = {
    "GITLAB_CI": 'config.toml of the runner: [runners.docker] security_opt = ["seccomp=unconfined", '
    '"apparmor=unconfined"]',
    "GITHUB_ACTIONS": "jobs.NAME.container.options: --security-opt seccomp=unconfined --security-opt "
    "apparmor=unconfined",
}
_OTHER_PLACE: Final[Mapping[Engine, str]] = {
    "docker": "docker run -v pybuild:/store -e PYBUILD_ROOT=/store …  (or in memory: --tmpfs /store)",
    "podman": "podman run -v pybuild:/store -e PYBUILD_ROOT=/store …  (or in memory: --tmpfs /store)",
    "kubernetes": "volumes: [{name: store, emptyDir: {}}], mounted on /store, and env PYBUILD_ROOT=/store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one subject: *name* never changes, *text* is for people, *fix* is text to paste."""

    name: str
    state: State
    text: str
    fix: str | None = None


class Machine(Protocol):
    """Where findings are read from."""

    def read(self, path: str) -> str | None:
        """Return the text of a small file, None if it cannot be read."""
        ...

    def mode(self, path: str) -> int | None:
        """Return mode and type of what lies at a path, None if there is nothing."""
        ...

    def find_open_error(self, path: str) -> int | None:
        """Return the error number of opening a device for reading and writing, None if that works."""
        ...

    def find_program(self, name: str) -> str | None:
        """Return where a program lies on PATH, None if it does not."""
        ...


class ThisMachine:
    """The machine this process runs on."""

    def read(self, path: str) -> str | None:
        """Return the text of a small file, None if it cannot be read."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read(1 << 20)
        except OSError:
            return None

    def mode(self, path: str) -> int | None:
        """Return mode and type of what lies at a path, None if there is nothing."""
        try:
            return os.stat(path).st_mode
        except OSError:
            return None

    def find_open_error(self, path: str) -> int | None:
        """Return the error number of opening a device for reading and writing, None if that works."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return error.errno or 0
        return None

    def find_program(self, name: str) -> str | None:
        """Return where a program lies on PATH, None if it does not."""
        import shutil  # noqa: PLC0415  only doctor looks programs up

        return shutil.which(name)


def examine(machine: Machine, variables: Mapping[str, str], uid: int, trials: Sequence[Trial]) -> tuple[Finding, ...]:
    """Look at everything but the store.

    Args:
        machine: what is looked at.
        variables: of the environment, which tell of continuous integration.
        uid: of the user.
        trials: of the rungs of isolation, best first.
    """
    engine = find_engine(machine, variables)
    status = _fields(machine.read("/proc/self/status") or "")
    return (
        Finding(name="kernel", state="ok", text=f"{os.uname().release} {os.uname().machine}"),
        Finding(name="place", state="ok", text=_describe_place(engine, variables)),
        _examine_sub_ids(machine, uid),
        _examine_helpers(machine, uid),
        Finding(
            name="seccomp",
            state="note" if status.get("Seccomp") == "2" else "ok",
            text="a filter is in force" if status.get("Seccomp") == "2" else "no filter",
        ),
        _examine_privileges(status, uid),
        _examine_modules(machine),
        *_examine_trials(trials, engine, variables),
        _examine_snapshots(trials, engine),
        _examine_network(machine),
        _examine_program(machine, "git", "git", "contexts and ADD of repositories"),
        _examine_program(machine, "ssh-agent", "openssh-client", "--ssh with key files"),
    )


def examine_store(root: Path) -> Finding:
    """Look at where the store, an existing folder, lies."""
    space = os.statvfs(root)
    free = space.f_bavail * space.f_frsize
    text = f"{root}, {_file_system(root)}, {free / _GIBIBYTE:.1f} GiB free"
    if free < _LITTLE_SPACE:
        return Finding(name="store", state="note", text=text, fix="choose another folder with --root or $PYBUILD_ROOT")
    return Finding(name="store", state="ok", text=text)


def find_engine(machine: Machine, variables: Mapping[str, str]) -> Engine:
    """Tell what kind of container this is, empty for none."""
    if variables.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if machine.mode("/run/.containerenv") is not None:
        return "podman"
    if machine.mode("/.dockerenv") is not None:
        return "docker"
    return "container" if variables.get("container") else ""


def more_rights(engine: Engine, variables: Mapping[str, str]) -> str | None:
    """Say how to start the container of this process so that user namespaces work in it; None outside of one."""
    for variable, text in _MORE_RIGHTS_OF_CI.items():
        if engine and variables.get(variable):
            return text
    return _MORE_RIGHTS.get(engine)


def apparmor_profile(interpreter: str) -> str:
    """Write a profile that lets a program make user namespaces, and how to load it.

    Source: Ubuntu 24.04, security, "Restricted unprivileged user namespaces".
    """
    return (
        "sudo tee /etc/apparmor.d/pybuild <<'EOF'\n"
        "abi <abi/4.0>,\ninclude <tunables/global>\n"
        f"profile pybuild {interpreter} flags=(unconfined) {{\n  userns,\n}}\nEOF\n"
        "sudo apparmor_parser -r /etc/apparmor.d/pybuild"
    )


def _describe_place(engine: Engine, variables: Mapping[str, str]) -> str:
    words = [f"a container ({engine})" if engine else "no container"]
    words += [
        name
        for variable, name in (("GITLAB_CI", "GitLab CI"), ("GITHUB_ACTIONS", "GitHub Actions"))
        if variables.get(variable)
    ]
    return ", ".join(words)


def _examine_sub_ids(machine: Machine, uid: int) -> Finding:
    if uid == 0:
        return Finding(name="sub-ids", state="ok", text="not needed by uid 0 with its rights")
    owners = {str(uid), find_account(uid) or str(uid)}
    ranges = [idmap.parse_sub_ids(machine.read(f"/etc/sub{kind}") or "", owners) for kind in ("uid", "gid")]
    if not all(ranges):
        error = lack_of_sub_ids(uid)
        return Finding(name="sub-ids", state="missing", text=error.reason, fix=error.hint)
    uids, gids = (sum(count for _, count in each) for each in ranges)
    return Finding(name="sub-ids", state="ok", text=f"{uids} uids, {gids} gids")


def _examine_helpers(machine: Machine, uid: int) -> Finding:
    if uid == 0:
        return Finding(name="id-helpers", state="ok", text="not needed by uid 0 with its rights")
    paths = {name: machine.find_program(name) for name in ("newuidmap", "newgidmap")}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        text = f"not installed: {', '.join(missing)}"
        return Finding(name="id-helpers", state="missing", text=text, fix=INSTALL_UIDMAP)
    plain = [path for path in paths.values() if path and not (machine.mode(path) or 0) & stat.S_ISUID]
    text = "newuidmap, newgidmap"
    return Finding(name="id-helpers", state="ok", text=f"{text}, by file capabilities" if plain else f"{text}, setuid")


def _examine_privileges(status: Mapping[str, str], uid: int) -> Finding:
    if status.get("NoNewPrivs") != "1":
        return Finding(name="no-new-privileges", state="ok", text="not set")
    if uid == 0:
        return Finding(name="no-new-privileges", state="ok", text="set; uid 0 does without newuidmap and newgidmap")
    return Finding(
        name="no-new-privileges",
        state="missing",
        text="set: newuidmap and newgidmap gain no rights",
        fix="docker: leave out `--security-opt no-new-privileges`; Kubernetes: allowPrivilegeEscalation: true",
    )


def _examine_modules(machine: Machine) -> Finding:
    modules = (machine.read("/sys/kernel/security/lsm") or "").strip().replace(",", ", ")
    if (machine.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") or "").strip() == "1":
        return Finding(
            name="security-modules",
            state="missing",
            text="AppArmor restricts user namespaces of users",
            fix=apparmor_profile(os.path.realpath(sys.executable)),
        )
    if (machine.read("/sys/fs/selinux/enforce") or "").strip() == "1":
        return Finding(name="security-modules", state="note", text="SELinux is enforcing")
    return Finding(name="security-modules", state="ok", text=modules or "not to be seen")


def _examine_trials(trials: Sequence[Trial], engine: Engine, variables: Mapping[str, str]) -> list[Finding]:
    inside = next((trial.inside for trial in trials if trial.inside is not None), None)
    if inside is None:
        refusal = next((t.obstacle for t in trials if t.rung == "single-id"), None)
        text = refusal.reason if refusal else "not tried"
        fix = more_rights(engine, variables) or (refusal.hint if refusal else None)
        return [Finding(name="user-namespaces", state="missing", text=text, fix=fix)]
    proc = "its own" if inside.fresh_proc else "that of the container: steps see the names of its processes"
    return [
        Finding(name="user-namespaces", state="ok", text=f"{inside.uids} uids, {inside.gids} gids"),
        Finding(name="proc", state="ok" if inside.fresh_proc else "note", text=proc),
    ]


def _examine_snapshots(trials: Sequence[Trial], engine: Engine) -> Finding:
    """Say how steps are shown the layers at the best rung."""
    best = next((trial for trial in trials if trial.obstacle is None), None)
    snapshotter = best.snapshotter if best else None
    if best is None or snapshotter is None:
        return Finding(name="snapshots", state="ok", text="not needed where no step runs")
    if snapshotter == "overlay":
        return Finding(name="snapshots", state="ok", text="by overlay")
    if best.inside is None:
        return Finding(name="snapshots", state="note", text="by copies, since nothing can be mounted")
    fix = _OTHER_PLACE.get(engine, "put the store on another file system with --root or $PYBUILD_ROOT")
    return Finding(name="snapshots", state="note", text="by copies, since overlay does not take the store", fix=fix)


def _examine_network(machine: Machine) -> Finding:
    helper = next((helper.name for helper in known_helpers() if machine.find_program(helper.name)), None)
    if helper is None:
        return _shared_network(NOT_INSTALLED)
    refusal = machine.find_open_error(TUN)
    if refusal is not None:
        return _shared_network(explain_tun(refusal))
    return Finding(name="network", state="ok", text=f"private, by {helper}")


def _shared_network(lack: NetworkLack) -> Finding:
    text = f"steps share the network of the host: {lack.reason}"
    return Finding(name="network", state="missing", text=text, fix=lack.remedy)


def _examine_program(machine: Machine, name: str, package: str, purpose: str) -> Finding:
    path = machine.find_program(name)
    if path is None:
        return Finding(
            name=name, state="note", text=f"not installed, needed for {purpose}", fix=f"sudo apt-get install {package}"
        )
    return Finding(name=name, state="ok", text=path)


def _file_system(path: Path) -> str:
    """Name the type of file system a folder lies on, from the longest mount point above it."""
    best, kind = "", "unknown"
    resolved = os.path.realpath(path)
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, point, found, *_ = line.split(" ")
                point = point.replace("\\040", " ")
                if len(point) >= len(best) and f"{resolved}/".startswith(f"{point.rstrip('/')}/"):
                    best, kind = point, found
    except OSError:
        pass
    return kind


def _fields(status: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
