from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import landlock
from runtime.chroot import find_obstacle
from tests.runtime.conftest import driver_environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs real root")

NEEDS_SIGNAL_SCOPES = pytest.mark.skipif(
    landlock.version() < landlock.VERSION_OF_SIGNALS, reason="needs Landlock 6, Linux 6.12"
)
SLEEP = "98761"
"""An argument of sleep that no other process of this machine has."""


class Driver:
    """Runs steps in one tree."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree = tree
        self.folder = folder

    def start(self, *steps: dict) -> subprocess.Popen[str]:
        """Start the driver."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.chroot_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**driver_environment(), "BUILDER_SECRET": "canary"},
        )
        assert process.stdin is not None
        json.dump({"tree": str(self.tree), "folder": str(self.folder), "steps": steps}, process.stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def __call__(self, script: str, **values) -> dict:
        """Run one shell script."""
        with self.start({"args": ["/bin/sh", "-c", script], **values}) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        for done in self.folder.glob("step-*"):
            done.rename(self.folder / f"done-{os.urandom(4).hex()}")
        return json.loads(out)

    def listing(self) -> dict[str, tuple]:
        """Return what the tree holds, with everything that would enter a layer."""
        found = {}
        for path in (self.tree, *sorted(self.tree.rglob("*"))):
            status = path.lstat()
            found[str(path.relative_to(self.tree))] = (
                status.st_mode,
                status.st_uid,
                status.st_mtime_ns,
                path.read_bytes() if path.is_file() and not path.is_symlink() and path.stat().st_size < 999 else b"",
            )
        return found


@pytest.fixture
def run(image: Path, tmp_path: Path) -> Driver:
    """Return what runs steps in a tree of busybox."""
    folder = tmp_path / "steps"
    folder.mkdir()
    return Driver(image, folder)


def _sleepers() -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if SLEEP.encode() in Path("/proc", pid, "cmdline").read_bytes().split(b"\0"):
                found.append(int(pid))
        except OSError:
            continue
    return found


def _wait_until_nobody_sleeps() -> list[int]:
    deadline = time.monotonic() + 10
    while _sleepers() and time.monotonic() < deadline:
        time.sleep(0.02)
    return _sleepers()


def test_step_runs_in_the_tree(run: Driver):
    """A command runs with the tree as its root, and what it writes stays there."""
    done = run("echo hello; pwd; touch /made", cwd="/new/place")

    assert (done["status"], done["out"]) == (0, "hello\n/new/place\n")
    assert (run.tree / "made").exists()
    assert (run.tree / "new/place").is_dir()


def test_step_is_the_user_it_names(run: Driver):
    """USER, its groups and its home are those of the image's files."""
    done = run('id -u; id -G; echo "$HOME"', user="app")

    assert done["out"] == "1000\n1001 10 999\n/home/app\n"


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -9 $$", -9), ("kill -TERM $$", -15)], ids=["exit", "kill", "term"]
)
def test_status_is_that_of_the_command(run: Driver, script: str, status: int):
    """An exit status and a signal come back as they were."""
    assert run(script)["status"] == status


def test_devices_work(run: Driver):
    """The nodes that every program expects are there."""
    done = run(
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c && test -c /dev/full &&"
        "test -c /dev/tty && echo x > /dev/shm/f && cat /dev/stdin"
    )

    assert (done["status"], done["out"]) == (0, "3\n3\n")


def test_dev_stdout_and_stderr_lead_to_the_output(run: Driver):
    """What is written to the names of the streams comes out of them."""
    done = run("echo out > /dev/stdout; echo err > /dev/stderr; head -c 200000 /dev/zero | tr '\\0' x > /dev/stdout")

    assert done["out"].startswith("out\n")
    assert len(done["out"]) == 200004
    assert done["err"] == "err\n"


def test_resolver_and_hosts_are_served(run: Driver):
    """A step sees the files of the build, not those of the image."""
    (run.tree / "etc/hosts").write_text("of the image")

    assert run("cat /etc/resolv.conf /etc/hosts")["out"] == "nameserver 192.0.2.1\n127.0.0.1 localhost\n"


def test_nothing_that_was_served_stays(run: Driver):
    """After a step that does nothing, the tree is as it was: content, modes, owners, times."""
    (run.tree / "etc/hosts").write_text("of the image")
    (run.tree / "dev").mkdir()
    (run.tree / "dev/own").write_text("of the image")
    (run.tree / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    before = run.listing()
    mounts = {
        "tmpfs": [["/scratch", None, False], ["/etc/deep/er", None, False]],
        "files": [["/run/secrets/s", "hidden", 0o400, 0, 0]],
    }
    done = run("cat /run/secrets/s; touch /scratch/x; cat /etc/resolv.conf", **mounts)

    assert done["out"] == "hiddennameserver 192.0.2.1\n"
    assert run.listing() == before
    assert done["aside"] == []


def test_what_a_step_does_to_served_files_vanishes(run: Driver):
    """Writing to, removing and replacing what is served changes nothing of the tree but what lies beside it."""
    (run.tree / "etc/hosts").write_text("of the image")
    before = run.listing()
    done = run(
        "echo 1.2.3.4 x >> /etc/hosts; rm /etc/resolv.conf; ln -s /etc/passwd /etc/resolv.conf; rm -rf /dev; "
        "mkdir -p /dev/mine /proc/x; rm -rf /sys; touch /etc/beside"
    )

    assert done["status"] == 0
    after = run.listing()
    assert after.pop("etc/beside")
    assert after["etc"][2] != before["etc"][2]
    unchanged = {path: value for path, value in before.items() if path not in {"etc", "."}}
    assert {path: value for path, value in after.items() if path not in {"etc", "."}} == unchanged


def test_environment_is_only_the_declared(run: Driver):
    """Nothing of the builder's environment is in that of a step."""
    done = run("env | sort; cat /proc/*/environ", environ=[["PATH", "/bin"], ["A", "1"]])

    assert "canary" not in done["out"]
    assert {line.split("=")[0] for line in done["out"].splitlines()} <= {"A", "HOME", "PATH", "PWD", "SHLVL", "OLDPWD"}


def test_descriptors_are_only_the_three(run: Driver):
    """A step begins with nothing but its standard streams."""
    done = run("for fd in $(seq 3 255); do if (true <&$fd) 2>/dev/null; then echo $fd; fi; done")

    assert done["out"] == ""


@pytest.mark.parametrize(
    "script",
    [
        "mkdir /j && chroot /j /bin/sh -c true",
        "mknod /disk b 8 0",
        "mknod /null c 1 3",
        "mount -t tmpfs x /tmp",
        "unshare -U true",
    ],
    ids=["chroot", "block-device", "character-device", "mount", "user-namespace"],
)
def test_ways_out_are_refused(run: Driver, script: str):
    """Root in a step can neither change its root again nor make a device, a mount or a namespace."""
    done = run(script)

    assert done["status"] != 0
    assert re.search("not permitted|ermission denied", done["err"])


@NEEDS_SIGNAL_SCOPES
@pytest.mark.parametrize("script", ["kill -9 @PID@", "kill -9 -1", "kill -9 -@PID@"], ids=["builder", "all", "group"])
def test_step_cannot_signal_the_builder(run: Driver, script: str):
    """Signals reach the step's own processes only."""
    assert run(f"{script}; true")["status"] in {0, -9}


@NEEDS_SIGNAL_SCOPES
def test_step_cannot_reach_abstract_sockets(run: Driver):
    """A socket without a file, such as one of the builder's host, refuses a step."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0pybuild-test-abstract")
        listener.listen()
        _add_python_connect(run.tree)
        done = run("/bin/connect")

    assert done["out"] == "1\n"


def _add_python_connect(tree: Path) -> None:
    """Put a program into the tree that connects to the abstract socket and prints the error number."""
    source = tree / "connect.c"
    source.write_text(
        "#include <errno.h>\n#include <stdio.h>\n#include <string.h>\n#include <sys/socket.h>\n#include <sys/un.h>\n"
        'int main(void) { struct sockaddr_un a = {AF_UNIX}; char *n = "pybuild-test-abstract";\n'
        "int s = socket(AF_UNIX, SOCK_STREAM, 0); memcpy(a.sun_path + 1, n, strlen(n));\n"
        'printf("%d\\n", connect(s, (void *)&a, 3 + strlen(n)) ? errno : 0); }\n'
    )
    try:
        subprocess.run(["cc", "-static", "-o", tree / "bin/connect", source], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs a C compiler")


def test_network_none_has_no_sockets(run: Driver):
    """A step without network gets no socket but local ones."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"timeout 1 nc 127.0.0.1 {server.getsockname()[1]} < /dev/null"
        reached = run(script)
        done = run(script, network="none")

    assert "not supported" not in reached["err"]
    assert "not supported" in done["err"]


def test_capabilities_are_dockers_without_the_ways_out(run: Driver):
    """What a step holds, and may ever hold, is Docker's set less CAP_SYS_CHROOT and CAP_MKNOD."""
    source = Path("/proc/self/status").read_text()
    assert "CapBnd" in source
    # /proc of a step has no status, so its capabilities are seen from here.
    with run.start(
        {"args": ["/bin/sh", "-c", f"touch /up; sleep {SLEEP}"], "wait_for": "up", "abandon": True}
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        status = Path("/proc", str(_sleepers()[0]), "status").read_text()
        process.kill()
    lines = dict(
        line.split(":\t") for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs", "Seccomp:"))
    )

    assert lines["CapInh"] == lines["CapAmb"] == "0" * 16
    assert lines["CapBnd"] == lines["CapEff"] == lines["CapPrm"] == "00000000a00025fb"
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
    assert _wait_until_nobody_sleeps() == []


DAEMONS = f"(setsid sh -c '(setsid sleep {SLEEP} &) & sleep {SLEEP}' &) ; sleep {SLEEP} & touch /up;"


def test_daemons_end_with_the_step(run: Driver):
    """Processes that left the session, however deep, do not outlive the command."""
    done = run(DAEMONS)

    assert done["status"] == 0
    assert _sleepers() == []


def test_kill_ends_daemons_too(run: Driver):
    """A step that is killed leaves no process, and gives back what it was given."""
    cache = run.folder / "cache"
    cache.mkdir()
    bind = [str(cache), "/cache", False, "", [], True]
    done = run(f"touch /cache/kept; {DAEMONS} sleep {SLEEP}", wait_for="up", kill=True, binds=[bind])

    assert done["status"] == -9
    assert _sleepers() == []
    assert os.listdir(cache) == ["kept"]


@pytest.mark.parametrize("victim", ["front", "zygote", "attendant"])
def test_nothing_outlives_a_killed_builder(run: Driver, victim: str):
    """Whoever of the builder's processes is killed, nothing that a step started stays."""
    script = f"{DAEMONS} sleep {SLEEP}"
    step = {"args": ["/bin/sh", "-c", script], "wait_for": "up", "abandon": victim == "front"}
    with run.start(step) as process:
        assert process.stdout is not None
        if victim == "front":
            process.stdout.readline()
            process.kill()
        else:
            while len(_sleepers()) < 3:
                time.sleep(0.02)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            pid = int(children.read_text().split()[0])
            if victim == "attendant":
                pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
        assert _wait_until_nobody_sleeps() == []


def test_cache_is_moved_in_and_out(run: Driver):
    """A writable mount that may move is the very directory, and is back where it was afterwards."""
    cache = run.folder / "cache"
    cache.mkdir()
    (cache / "old").write_text("1")
    done = run("cat /a/b/old; echo 2 > /a/b/new", binds=[[str(cache), "/a/b", False, "", [], True]])

    assert done["out"] == "1"
    assert sorted(os.listdir(cache)) == ["new", "old"]
    assert not (run.tree / "a").exists()


def test_read_only_mount_is_a_copy(run: Driver):
    """What a step does to a read-only mount reaches nobody."""
    source = run.folder / "source"
    (source / "in").mkdir(parents=True)
    (source / "in/file").write_text("1")
    done = run("cat /m/file; echo 2 > /m/file", binds=[[str(source), "/m", True, "in", [], False]])

    assert done["out"] == "1"
    assert (source / "in/file").read_text() == "1"
    assert not (run.tree / "m").exists()


def test_mount_source_cannot_leave_its_root(run: Driver):
    """A link in the source that leads outside is followed inside."""
    source = run.folder / "source"
    source.mkdir()
    (source / "out").symlink_to("/etc")
    done = run("true", binds=[[str(source), "/m", True, "out", [], False]])

    assert done["error"] == "StepSetupError"
    assert "cannot mount `out` on `/m`" in done["message"]


def test_mount_target_is_resolved_inside_the_tree(run: Driver):
    """A target that the image's links lead elsewhere is elsewhere in the tree."""
    (run.tree / "run").symlink_to("/etc")
    done = run("cat /etc/secrets/s", files=[["/run/secrets/s", "hidden", 0o444, 0, 0]])

    assert done["out"] == "hidden"
    assert not Path("/etc/secrets").exists()
    assert not (run.tree / "etc/secrets").exists()


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"privileged": True}, "steps with all rights"),
        ({"binds": [["/tmp", "/x", False, "", [], False]]}, "the writable mount of `/tmp` on `/x`"),
    ],
    ids=["privileged", "writable"],
)
def test_what_needs_mounts_is_refused(run: Driver, values: dict, part: str):
    """What cannot be had without namespaces is refused by name, with status 4."""
    done = run("true", **values)

    assert (done["error"], done["exit_code"]) == ("HostUnsupportedError", 4)
    assert part in done["message"]
    assert "`chroot`" in done["message"]


def test_command_that_is_missing_is_named(run: Driver):
    """A command that is not in the image is told as with namespaces."""
    done = run("", args=["nothing"])

    assert done["error"] == "StepSetupError"
    assert "executable file not found" in done["message"]
    assert done["aside"] == []


def test_obstacle_names_what_is_missing(tmp_path: Path):
    """Without its capabilities uid 0 is told which it lacks."""
    script = (
        "import sys, pathlib; from runtime import syscalls; from runtime.chroot import find_obstacle\n"
        "e, p, _ = syscalls.capget(); keep = ~(1 << 18 | 1 << 27)\n"
        "syscalls.capset(effective=e & keep, permitted=p & keep, inheritable=0)\n"
        "print(find_obstacle(pathlib.Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True, env=driver_environment()
    )

    assert done.stdout == "uid 0 lacks CAP_MKNOD, CAP_SYS_CHROOT\n"
    assert find_obstacle(tmp_path) is None
    assert os.listdir(tmp_path) == []
