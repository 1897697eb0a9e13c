"""Entering the namespace: what is inside, what ends it, what is said when there is none."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.conftest import driver_command, driver_environment


def run_front(body: str) -> subprocess.Popen[str]:
    """Start a front whose body is the given source."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    source = (
        "import os, sys, signal, time\nfrom runtime.namespace import run_in_namespace\n"
        "from runtime.errors import HostUnsupportedError\n"
        f"def body():\n{lines}\n"
        "try:\n    status = run_in_namespace(body)\n"
        "except HostUnsupportedError as error:\n    print('unsupported', error.message)\n    status = 4\n"
        "print('status', status, flush=True)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=driver_environment(),
    )


def finish(front: subprocess.Popen[str]) -> list[str]:
    """Return the lines that the front wrote, once it has ended."""
    out, err = front.communicate(timeout=30)
    if out.startswith("unsupported"):
        pytest.skip(out.strip())
    return [*out.splitlines(), *err.splitlines()]


@pytest.mark.userns
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 7", 7),
        ("return 256 + 3", 3),
        ("raise SystemExit(9)", 9),
        ("raise KeyboardInterrupt", 130),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", 143),
        ("import ctypes; ctypes.string_at(0)", 139),
    ],
    ids=["return", "byte", "exit", "interrupt", "own-signal", "crash"],
)
def test_status_of_the_body_is_returned(body, status):
    """The front returns the status of the inner process, 128 + n for a signal."""
    assert f"status {status}" in finish(run_front(body))


@pytest.mark.userns
def test_exception_in_the_body_is_shown_and_is_70():
    """An exception is our bug: its traceback is printed."""
    lines = finish(run_front("raise ValueError('oops')"))

    assert "status 70" in lines
    assert "ValueError: oops" in lines


@pytest.mark.userns
def test_inner_process_is_root_and_process_1():
    """Inside, ids are 0, the pid is 1, and /proc/self is right."""
    lines = finish(
        run_front("print(os.getuid(), os.getgid(), os.getpid(), os.path.exists('/proc/self/status'))\nreturn 0")
    )

    assert lines[0] == "0 0 1 True"


@pytest.mark.userns
def test_output_before_is_not_written_twice():
    """What was buffered when the namespace was entered appears once."""
    front = subprocess.run(
        [
            sys.executable,
            "-c",
            "from runtime.namespace import run_in_namespace\nprint('before')\nrun_in_namespace(lambda: 0)",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=driver_environment(),
    )

    assert front.stdout.count("before") == 1


@pytest.mark.userns
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), (signal.SIGINT, 130)]
)
def test_signal_to_the_front_ends_the_inner_process(number, status):
    """A signal that only the front got is passed on, and the status tells it."""
    front = run_front("print('ready', flush=True)\ntime.sleep(30)\nreturn 0")
    if front.stdout.readline() != "ready\n":
        finish(front)

    front.send_signal(number)

    assert f"status {status}" in finish(front)


@pytest.mark.userns
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_that_interrupts_no_system_call_is_heard(number, status):
    """A signal that came just before a blocking call, or to another thread, does not wait for the end of that call."""
    front = run_front(
        "import threading\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
        "print('ready', flush=True)\ntime.sleep(60)\nreturn 0"
    )
    if front.stdout.readline() != "ready\n":
        finish(front)

    front.send_signal(number)

    assert f"status {status}" in finish(front)


@pytest.mark.userns
def test_second_signal_kills_a_deaf_inner_process():
    """An inner process that ignores TERM is killed by the second one."""
    front = run_front("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(30)")
    if front.stdout.readline() != "ready\n":
        finish(front)

    front.send_signal(signal.SIGTERM)
    while front.poll() is None:
        front.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            front.wait(timeout=0.05)

    assert "status 137" in finish(front)


def descendants(pid: int) -> list[int]:
    """Return the pids of all processes below *pid*."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        below = [child for child, its in parents.items() if its == parent]
        found += below
        queue += below
    return found


@pytest.mark.userns
def test_killing_the_front_leaves_no_process(tmp_path, image):
    """When the front is killed, everything inside dies, however deep."""
    scratch = tmp_path / "shared"
    scratch.mkdir()
    os.mkfifo(scratch / "up")
    request = {
        "image": str(image),
        "scratch": str(tmp_path),
        "single_id": False,
        "steps": [
            {
                "args": ["/bin/sh", "-c", "sleep 300 & setsid sleep 300 & echo up > /shared/up; wait"],
                "binds": [[str(scratch), "/shared", False]],
            }
        ],
    }
    front = subprocess.Popen(
        driver_command(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=driver_environment()
    )
    front.stdin.write(json.dumps(request))
    front.stdin.close()
    fifo = os.open(scratch / "up", os.O_RDONLY | os.O_NONBLOCK)
    poller = select.poll()
    poller.register(fifo, select.POLLIN)
    if not poller.poll(20_000):
        front.kill()
        pytest.skip(front.stderr.read())
    inside = {pid: os.pidfd_open(pid) for pid in descendants(front.pid)}

    front.kill()
    front.wait()

    assert len(inside) >= 5  # inner process, zygote, shell, two sleeps
    for pid, pidfd in inside.items():
        assert select.select([pidfd], [], [], 10)[0], f"process {pid} is still there"
    front.stderr.close()


def test_what_is_done_meanwhile_is_done_inside_before_the_body():
    """It happens in the inner process, while that has no ids yet, and the body finds what it left."""
    source = (
        "import os, sys\nfrom runtime.namespace import run_in_namespace\nfrom runtime.errors import HostUnsupportedError\n"
        "seen = []\ndef body():\n    print(seen == [os.getpid()], flush=True)\n    return 0\n"
        "try:\n    run_in_namespace(body, meanwhile=lambda: seen.append(os.getpid()))\n    print(seen)\n"
        "except HostUnsupportedError as error:\n    print('unsupported', error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=30, env=driver_environment(), check=True
    )
    if done.stdout.startswith("unsupported"):
        pytest.skip(done.stdout.strip())

    assert done.stdout.splitlines() == ["True", "[]"]
