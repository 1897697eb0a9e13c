"""What a step sees, may do and leaves behind."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from runtime.devices import DeviceNode
from runtime.mounts import BindMount, FileMount, LayersMount, TmpfsMount
from runtime.spec import SandboxSpec, Ulimit

pytestmark = pytest.mark.userns


def test_spec_survives_its_json():
    """A spec that went through JSON equals the one that was sent."""
    spec = SandboxSpec(
        args=("/bin/sh", "-c", "echo \udcff"),
        environ=(("A", "1"), ("B", "=")),
        lowers=(Path("/a"), Path("/b")),
        upper=Path("/u"),
        work=Path("/w"),
        hosts=b"\x00\xff",
        resolv_conf=b"",
        network="none",
        binds=(BindMount(source=Path("/s"), target="/t", read_only=True, inside="i", restrictions=("nodev",)),),
        layer_mounts=(
            LayersMount(lowers=(Path("/l"),), source="/", target="/m"),
            LayersMount(lowers=(), source="/", target="/n", read_only=False, upper=Path("/u"), work=Path("/w")),
        ),
        tmpfs=(TmpfsMount(target="/x", size=1, read_only=True),),
        files=(FileMount(target="/f", content=b"\xff\x00", mode=0o440, uid=1, gid=2),),
        nodes=(DeviceNode(source=Path("/dev/x"), target="/dev/y", format=stat.S_IFBLK, major=8, minor=1),),
        groups=(44,),
        keep_groups=True,
        privileged=True,
        ulimits=(Ulimit(name="nofile", soft=1, hard=-1),),
    )

    assert SandboxSpec.from_json(spec.to_json()) == spec


def test_step_sees_only_standard_descriptors(run_steps):
    """Nothing but descriptors 0 to 2 reaches the command."""
    (step,) = run_steps({"args": ["ls", "/proc/self/fd"]})

    assert step["stdout"].split() == ["0", "1", "2", "3"]  # the last is the directory that ls reads


def test_step_environment_is_the_given_one_and_home(run_steps):
    """The environment is exactly what was given, with HOME from passwd added."""
    (step,) = run_steps({"args": ["env"], "environ": [["PATH", "/bin"], ["A", "1"], ["A", "2"]]})

    assert sorted(step["stdout"].splitlines()) == ["A=2", "HOME=/root", "PATH=/bin"]


def test_step_home_of_the_environment_wins(run_steps):
    """HOME that is given is not replaced."""
    (step,) = run_steps({"args": ["env"], "environ": [["PATH", "/bin"], ["HOME", "/x"]]})

    assert "HOME=/x" in step["stdout"].splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ],
    ids=lambda line: line.partition(":")[0],
)
def test_root_step_has_docker_rights(run_steps, line):
    """Root in a step holds Docker's default capabilities and nothing more."""
    (step,) = run_steps({"args": ["cat", "/proc/self/status"]})

    assert line in step["stdout"].splitlines()


@pytest.mark.subids
def test_user_step_holds_no_capability(run_steps):
    """Another user than root holds none, under the same bounding set."""
    (step,) = run_steps({"args": ["cat", "/proc/self/status"], "user": "app"})

    lines = step["stdout"].splitlines()
    assert {"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb"} <= set(lines)
    assert "Uid:\t1000\t1000\t1000\t1000" in lines
    assert "Groups:\t10 999 1001 " in lines


def test_root_step_has_no_groups_of_the_host(run_step):
    """The groups of the user who builds do not reach the step."""
    step = run_step("id -G")

    assert step["stdout"].split() == ["0"]


def test_step_umask_and_hostname(run_step):
    """The umask is 022, the host name the given one."""
    step = run_step("umask; hostname", hostname="elsewhere")

    assert step["stdout"].split() == ["0022", "elsewhere"]


def test_step_is_process_1_of_its_own_namespace(run_step):
    """The command is process 1 and sees no process of the host."""
    step = run_step("echo $$; ls /proc | grep -c '^[0-9]'")

    pid, count = step["stdout"].split()
    assert pid == "1"
    if not Path("/.dockerenv").exists():
        assert int(count) <= 4


@pytest.mark.parametrize("path", ["/etc/hosts", "/etc/resolv.conf"])
def test_step_cannot_write_network_files(run_step, path):
    """/etc/hosts and /etc/resolv.conf are read-only mounts."""
    step = run_step(f"echo x >> {path}")

    assert step["status"] != 0
    assert "Read-only file system" in step["stderr"]


def test_step_reads_network_files(run_step):
    """Their content is what was given."""
    step = run_step("cat /etc/hosts /etc/resolv.conf", hosts="a\n", resolv_conf="b\n")

    assert step["stdout"] == "a\nb\n"


def test_step_without_changes_leaves_nothing(run_step):
    """Mount points that had to be made are gone, with the directories copied up for them."""
    step = run_step("true")

    assert step["left"] == []


def test_step_stubs_keep_what_the_step_wrote_beside_them(run_step):
    """A directory with a stub and a file of the step keeps the file and loses the stub."""
    step = run_step("echo x > /etc/mine; mkdir /run")

    assert step["left"] == ["etc", "etc/mine", "run"]


def test_skeleton_spares_the_stubs(run_step):
    """What every step mounts on is there, without a trace in the upper directory while it runs."""
    step = run_step("ls -A / /etc; head -c 1 /etc/hosts", hosts="h", has_skeleton=True, keep_stubs=True)

    assert set(step["stdout"].split()) >= {"dev", "etc", "proc", "sys", "hosts", "resolv.conf", "passwd"}
    assert step["left"] == []


@pytest.mark.parametrize("has_skeleton", [False, True], ids=["stubs", "skeleton"])
@pytest.mark.parametrize(
    ("script", "entries"),
    [
        ("true", []),
        ("touch /etc/x; rm /etc/x", []),
        ("echo x > /etc/x", ["etc", "etc/x"]),
        ("chmod 700 /etc", ["etc"]),
        ("mkdir /etc/proc /run; rmdir /run", ["etc", "etc/proc"]),
    ],
)
def test_image_without_etc_gets_what_a_step_puts_there(run_step, image, has_skeleton, script, entries):
    """The layer is the same with a skeleton and without."""
    shutil.rmtree(image / "etc")
    step = run_step(script, has_skeleton=has_skeleton)

    assert step["status"] == 0
    assert list(step["layer"]) == entries


def test_skeleton_is_hidden_by_the_image(run_step, image):
    """A link in the place of /etc leads where it leads."""
    shutil.rmtree(image / "etc")
    (image / "config").mkdir()
    (image / "etc").symlink_to("config")
    step = run_step("cat /config/hosts; ls /config", hosts="a\n", has_skeleton=True)

    assert step["stdout"].split() == ["a", "hosts", "resolv.conf"]
    assert step["layer"] == {}


def test_stub_cleanup_does_not_follow_links(run_step, tmp_path):
    """A step that puts a link to the host in the way of the clean-up deletes nothing there."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/b").mkdir()

    step = run_step(
        f"mv /mnt/a /mnt/c; ln -s {tmp_path}/outside /mnt/a",
        binds=[[str(tmp_path / "outside/b"), "/mnt/a/b", False]],
    )

    assert (tmp_path / "outside/b").is_dir()
    assert "mnt" in step["left"]


def test_step_devices_work(run_step):
    """The usual nodes are there and usable, and stdin is empty."""
    step = run_step(
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c && cat && test -c /dev/tty && "
        "ls /dev | tr '\\n' ' ' && echo y > /dev/shm/y && echo z >> /dev/stdout"
    )

    assert step["status"] == 0, step["stderr"]
    assert step["stdout"].startswith("3\n")
    assert {
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    } <= set(step["stdout"].split())


def test_step_cannot_change_device_nodes(run_step):
    """A chmod of /dev/null is refused, since the node is the host's."""
    step = run_step("chmod 600 /dev/null")

    assert step["status"] != 0
    assert os.stat("/dev/null").st_mode & 0o777 == 0o666


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /tmp",
        "unshare -U true",
        "chroot /tmp /x || unshare -m true",
        "echo 1 > /proc/sys/kernel/hostname",
        "echo x > /sys/kernel/x",
        "mknod /tmp/sda b 8 0 && head -c 1 /tmp/sda | grep -q .",
        "cat /proc/kcore | grep -q .",
        "hostname x",
    ],
)
def test_step_cannot_reach_the_host(run_step, command):
    """What would reach beyond the step is refused."""
    step = run_step(command)

    assert step["status"] != 0


def test_step_mounts_are_only_its_own(run_step, tmp_path):
    """No mount of the host is left in the step's namespace."""
    step = run_step("cat /proc/self/mountinfo")

    points = [line.split()[4] for line in step["stdout"].splitlines()]
    assert points.count("/") == 1
    assert all(p == "/" or p.startswith(("/proc", "/dev", "/sys", "/etc/hosts", "/etc/resolv.conf")) for p in points)


def test_background_processes_end_with_the_step(run_step):
    """What the command leaves in the background is killed when it ends, and the step ends with it."""
    step = run_step("sleep 300 & echo started")

    assert (step["status"], step["stdout"]) == (0, "started\n")


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 7", 7), ("sh -c 'kill -9 $$'; exit $?", 137), ("kill -9 1; exit 3", 3)],
    ids=["exit", "child-killed", "process-1-survives-itself"],
)
def test_step_status(run_step, script, status):
    """The status is the command's."""
    assert run_step(script)["status"] == status


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/nosuch"], 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/tmp"], 126, 'exec: "/tmp": permission denied'),
        (["/bin/badscript"], 127, "exec /bin/badscript: its interpreter `/bin/nobash` is not in the image"),
        (["crlf"], 127, "exec /bin/crlf: its first line names `/bin/sh` followed by a carriage return"),
        (["/bin/foreign"], 126, "exec format error: it is a program for s390x"),
        (["/bin/plain"], 126, "exec format error: it is neither a program nor a script"),
        ([], 1, "no command specified"),
    ],
    ids=["path", "absolute", "not-executable", "directory", "interpreter", "crlf", "foreign", "plain", "empty"],
)
def test_step_that_cannot_be_executed_says_why(run_steps, image, args, status, message):
    """The reason and the status are those a shell would give, in words."""
    for name, content in {
        "badscript": b"#!/bin/nobash -e\n",
        "crlf": b"#!/bin/sh\r\n",
        "foreign": b"\x7fELF\x02\x02\x01" + bytes(11) + b"\x00\x16" + bytes(44),
        "plain": b"hello\n",
    }.items():
        (image / "bin" / name).write_bytes(content)
        (image / "bin" / name).chmod(0o755)

    (step,) = run_steps({"args": args})

    assert step["error"]["class"] == "StepSetupError"
    assert message in step["error"]["message"]
    assert step["error"]["status"] == status


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("root:nogroup", "unable to find group nogroup: no matching entries in group file"),
    ],
)
def test_step_of_unknown_user_says_so(run_step, user, message):
    """The message is BuildKit's."""
    step = run_step("true", user=user)

    assert (step["error"]["stage"], step["error"]["message"]) == ("user", message)


def test_single_id_runs_root_steps(run_step):
    """With one id only, root works."""
    step = run_step("id -u; echo x > /x", single_id=True)

    assert (step["status"], step["stdout"], step["left"]) == (0, "0\n", ["x"])


def test_missing_cwd_is_made_for_good_for_the_user(run_step):
    """A working directory that is missing belongs to the user and stays."""
    step = run_step("pwd", cwd="/srv/app")

    assert step["stdout"] == "/srv/app\n"
    assert step["left"] == ["srv", "srv/app"]


def test_network_none_has_only_loopback_up(run_step):
    """The only link is lo, with its address."""
    step = run_step("ip addr; ping -c1 -w1 127.0.0.1 >/dev/null && echo pong", network="none")

    links = [line for line in step["stdout"].splitlines() if line[:1].isdigit()]
    assert len(links) == 1
    assert "lo: <LOOPBACK,UP" in links[0]
    assert "inet 127.0.0.1/8" in step["stdout"]


def test_network_host_is_that_of_the_caller(run_step):
    """The network namespace is the host's."""
    step = run_step("readlink /proc/self/ns/net")

    assert step["stdout"].strip() == os.readlink("/proc/self/ns/net")


def test_read_only_root(run_step):
    """Without an upper directory nothing can be written, and mounts work all the same."""
    step = run_step("touch /x; echo y > /tmp/y; echo z > /dev/shm/z && cat /etc/hosts", read_only=True)

    assert step["stderr"].count("Read-only file system") == 2
    assert step["stdout"] == "127.0.0.1 localhost\n"


def test_layers_are_given_base_first(run_steps, image, tmp_path):
    """A file of a later layer hides that of an earlier one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)

    (step,) = run_steps(
        {
            "args": ["cat", "/which"],
            "lowers": [str(image), str(tmp_path / "one"), str(tmp_path / "two")],
        }
    )

    assert step["stdout"] == "two"


@pytest.mark.parametrize("link", ["/outside", "../../../../outside"], ids=["absolute", "relative"])
def test_mount_target_through_a_link_stays_inside(run_step, image, tmp_path, link):
    """A link of the image cannot lead a mount, or a directory made for one, out of the root."""
    (image / "run").symlink_to(link)
    (tmp_path / "secret").write_text("hush")

    step = run_step(
        "cat /run/secrets/s; cat /outside/secrets/s", binds=[[str(tmp_path / "secret"), "/run/secrets/s", True]]
    )

    assert step["stdout"] == "hushhush"
    assert step["left"] == []
    assert not Path("/outside").exists()


def test_dangling_resolv_conf_link_is_followed_inside(run_step, image):
    """The link Ubuntu's images have gets a file to lead to, which is gone afterwards."""
    (image / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")

    step = run_step("cat /etc/resolv.conf")

    assert step["stdout"] == "nameserver 192.0.2.1\n"
    assert step["left"] == []


def test_mount_target_links_in_a_circle_are_an_error(run_step, image):
    """A circle of links is named as such."""
    (image / "proc").symlink_to("proc")

    step = run_step("true")

    assert step["error"]["class"] == "StepSetupError"
    assert "/proc" in step["error"]["message"]


def test_mount_target_of_another_kind_is_an_error(run_step, image):
    """A file where a directory must be mounted is named."""
    (image / "sys").write_text("")

    assert run_step("true")["error"]["message"] == "cannot mount on `/sys`: a file is there"


def test_bind_mounts(run_step, tmp_path):
    """Directories and files are shown, nested ones in order of depth, read-only ones without write access."""
    (tmp_path / "cache/inner").mkdir(parents=True)
    (tmp_path / "file").write_text("content\n")

    step = run_step(
        "cat /cache/inner/file; echo x > /cache/new; echo y >> /cache/inner/file",
        binds=[[str(tmp_path / "file"), "/cache/inner/file", True], [str(tmp_path / "cache"), "/cache", False]],
    )

    assert step["stdout"] == "content\n"
    assert "Read-only" in step["stderr"]
    assert (tmp_path / "cache/new").read_text() == "x\n"
    assert step["left"] == []


def test_missing_bind_source_is_an_error(run_step, tmp_path):
    """A source that does not exist is named with its target."""
    step = run_step("true", binds=[[str(tmp_path / "none"), "/t", False]])

    assert step["error"]["message"] == f"cannot mount `{tmp_path}/none` on `/t`: No such file or directory"


def test_layers_mount_shows_another_image(run_step, tmp_path):
    """A directory of another image is shown; writing to it is refused, or thrown away."""
    (tmp_path / "other/lib").mkdir(parents=True)
    (tmp_path / "other/lib/f").write_text("f")
    layers = [[str(tmp_path / "other")], "/lib"]

    step = run_step(
        "cat /a/f /b/f; echo x > /a/x; echo y > /b/y && cat /b/y",
        layer_mounts=[[*layers, "/a", True], [*layers, "/b", False]],
    )

    assert step["stdout"] == "ffy\n"
    assert "Read-only" in step["stderr"]
    assert sorted(p.name for p in (tmp_path / "other/lib").iterdir()) == ["f"]


def test_tmpfs_mount_has_its_size(run_step):
    """A tmpfs of the step is empty and limited."""
    step = run_step("head -c 100000 /dev/zero > /t/x; status=$?; wc -c < /t/x; exit $status", tmpfs=[["/t", 65536]])

    assert step["status"] != 0
    assert step["stdout"].split() == ["65536"]


def test_ulimits(run_step):
    """Limits are those asked for; unknown ones and ones out of reach are errors."""
    assert run_step("ulimit -n", ulimits=[["nofile", 77, 88]])["stdout"] == "77\n"
    assert "unknown limit: `files`" in run_step("true", ulimits=[["files", 1, 1]])["error"]["message"]


def test_stdin_is_passed_on(run_step):
    """Standard input that is given reaches the command."""
    assert run_step("cat", stdin="hello")["stdout"] == "hello"


def test_huge_passwd_is_refused(run_step, image):
    """A passwd file of absurd size does not fill the memory."""
    with (image / "etc/passwd").open("r+b") as file:
        file.truncate(1 << 30)

    assert "is too large" in run_step("true")["error"]["message"]


def test_fifo_as_passwd_does_not_hang(run_steps, image):
    """A passwd that is no regular file counts as missing."""
    (image / "etc/passwd").unlink()
    os.mkfifo(image / "etc/passwd")

    (step,) = run_steps({"args": ["env"]})

    assert "HOME=/" in step["stdout"].splitlines()


def test_scratch_image_runs(run_steps, tmp_path, image):
    """Without any layer, the upper directory alone is the root."""
    (step,) = run_steps({"args": ["/nosuch"], "lowers": []})

    assert step["error"]["status"] == 127
