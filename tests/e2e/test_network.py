"""The network of RUN: its own where the machine can give it, the host's where not, and what is reached from it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import stat
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.command import Pybuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.userns

NOTICE = "steps run on the network of this machine, with its loopback addresses in reach"
HELPERS = ("slirp4netns", "pasta")
ANSWER = "answer of the test"
NO_TUN = "mount -t tmpfs none /dev/net"
RESOLVER = "127.0.0.77"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere(Pybuild):
    """The command as another user on a machine prepared by *script*, which root runs in a mount namespace."""

    script: str

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start without waiting; all three streams are pipes."""
        account = self.account
        become = [
            shutil.which("setpriv") or "",
            "--reuid",
            str(account.uid),
            "--regid",
            str(account.gid),
            "--init-groups",
        ]
        prepared = ["unshare", "--mount", "sh", "-ec", f'{self.script}; exec "$@"', "sh", *become, "--inh-caps=-all"]
        return subprocess.Popen(
            [*prepared, *self.program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment(),
        )


@pytest.fixture
def on_machine(with_busybox: Pybuild, tmp_path: Path) -> Callable[..., Elsewhere]:
    """Return a function that gives the unprivileged user's command on a machine with a tun device of a mode.

    This machine's own device may be closed to users, unlike that of a usual one; a node of it with another mode is put
    over it for this command alone, which finds no helpers but those that are named.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root to make devices")

    def make(*, tun: int, resolv_conf: str | None = None, helpers: tuple[str, ...] = HELPERS) -> Elsewhere:
        node = tmp_path / "tun"
        os.mknod(node, stat.S_IFCHR, os.stat("/dev/net/tun").st_rdev)
        node.chmod(tun)
        script = f"mount --bind {node} /dev/net/tun"
        if resolv_conf is not None:
            (tmp_path / "resolv.conf").write_text(resolv_conf)
            script += f"; mount --bind {tmp_path}/resolv.conf /etc/resolv.conf"
        programs = with_busybox.folder / "programs"
        programs.mkdir()
        for name in (*helpers, "newuidmap", "newgidmap"):
            (programs / name).symlink_to(shutil.which(name) or "absent")
        return Elsewhere(
            program=with_busybox.program,
            account=with_busybox.account,
            folder=with_busybox.folder,
            script=f"{script}; PATH={programs}",
        )

    return make


@pytest.fixture
def own_address() -> str:
    """Return an address of this machine that is not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            pytest.skip("needs a network interface with an address and a route")
        return str(probe.getsockname()[0])


@contextlib.contextmanager
def serving(address: str) -> Iterator[int]:
    """Send `ANSWER` to whoever connects to *address*; give the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(ANSWER.encode())

    with socketserver.ThreadingTCPServer((address, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def ask(address: str, port: int) -> str:
    """Return a shell command that prints what a server says, and nothing if there is none.

    It keeps its own side open until the answer is there: pasta of Debian 12 repeats bytes to a client that does not.
    """
    return f"echo {address}: $(sleep 0.5 | timeout 3 nc {address} {port} 2>&1)"


@pytest.mark.tun
@pytest.mark.parametrize("helper", HELPERS)
def test_step_reaches_servers_but_not_the_loopback(
    on_machine: Callable[..., Elsewhere], own_address: str, helper: str
) -> None:
    """By default a step of an unprivileged user reaches what is on the network, and no service on 127.0.0.1."""
    pybuild = on_machine(tun=0o666, helpers=(helper,))
    with serving(own_address) as near, serving("127.0.0.1") as loopback:
        lines = [f"RUN {ask(own_address, near)}"]
        lines += [f"RUN {ask(name, loopback)}" for name in ("127.0.0.1", "10.0.2.2", "10.0.2.3", own_address)]
        context = pybuild.context({"Dockerfile": "\n".join(["FROM busybox", *lines, ""])})
        done = pybuild("--progress", "plain", "--context", context)

    assert f"{own_address}: {ANSWER}" in done.err
    assert done.err.count(ANSWER) == 1
    assert NOTICE not in done.err


def test_allowed_step_reaches_the_loopback(with_busybox: Pybuild) -> None:
    """With `--allow network.host`, `RUN --network=host` has the host's loopback, with `--network host` every RUN has."""
    with serving("127.0.0.1") as port:
        one = with_busybox.context({"Dockerfile": f"FROM busybox\nRUN --network=host {ask('127.0.0.1', port)}\n"})
        done = with_busybox("--progress", "plain", "--allow", "network.host", "--context", one)
        every = with_busybox.context({"Dockerfile": f"FROM busybox\nRUN {ask('127.0.0.1', port)} # 2\n"}, "every")
        done_every = with_busybox("--progress", "plain", "--network", "host", "--context", every)

    assert f"127.0.0.1: {ANSWER}" in done.err
    assert f"127.0.0.1: {ANSWER}" in done_every.err
    assert NOTICE not in done.err + done_every.err


def test_missing_tun_is_said_once(on_machine: Callable[..., Elsewhere]) -> None:
    """Where the device is closed to the user, steps get the host's network, and one line says why and what helps."""
    pybuild = on_machine(tun=0o600)
    stages = "".join(f"FROM busybox AS s{n}\nRUN readlink /proc/self/ns/net > /{n}\nRUN true {n}\n" for n in range(3))
    copies = "".join(f"COPY --from=s{n} /{n} /\n" for n in range(3))
    last = f"FROM busybox\n{copies}RUN echo nets $(cat /0 /1 /2)\n"
    context = pybuild.context({"Dockerfile": stages + last})
    done = pybuild("--progress", "plain", "--context", context)
    again = pybuild("--progress", "plain", "--context", context)
    quiet = pybuild("-q", "--no-cache", "--context", context)
    raw = pybuild("--progress", "rawjson", "--no-cache", "--context", context)

    host = os.readlink("/proc/self/ns/net")
    assert f"nets {host} {host} {host}" in done.err
    assert done.err.count(NOTICE) == 1
    assert "/dev/net/tun: permission denied; let your user use it: sudo chmod 666 /dev/net/tun" in done.err
    assert NOTICE not in again.err
    assert quiet.err == ""
    records = [json.loads(line) for line in raw.err.splitlines()]
    shorts = [base64.b64decode(w["short"]).decode() for record in records for w in record.get("warnings", ())]
    assert [short.startswith(NOTICE) for short in shorts] == [True]


def test_missing_helper_is_said(on_machine: Callable[..., Elsewhere]) -> None:
    """Where no helper is in PATH, the build says which package to install."""
    pybuild = on_machine(tun=0o666, helpers=())
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN --network=none true\nRUN echo done\n"})
    done = pybuild("--progress", "plain", "--context", context)

    assert f"{NOTICE}: neither slirp4netns nor pasta is installed; " in done.err
    assert "sudo apt-get install slirp4netns" in done.err


def test_build_without_the_default_network_says_nothing(on_machine: Callable[..., Elsewhere]) -> None:
    """Nobody is told of a missing network that no step wants."""
    pybuild = on_machine(tun=0o666, helpers=())
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN --network=none true\n"})
    done = pybuild("--progress", "plain", "--context", context)

    assert "warning" not in done.err


@pytest.mark.tun
def test_network_that_a_step_had_is_not_in_its_key(on_machine: Callable[..., Elsewhere]) -> None:
    """A step that ran in a network of its own is cached where there is none to give."""
    pybuild = on_machine(tun=0o666)
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN readlink /proc/self/ns/net > /net\n"})
    first = pybuild("-q", "--context", context)
    second = replace(pybuild, script=NO_TUN)("-q", "--context", context)

    assert first.out == second.out


@pytest.mark.tun
@pytest.mark.parametrize("helper", HELPERS)
def test_loopback_resolver_is_asked(on_machine: Callable[..., Elsewhere], helper: str) -> None:
    """A name that only the resolver on the host's loopback knows is found by a step in a network of its own."""
    resolv_conf = f"nameserver {RESOLVER}\nsearch corp.example\n"
    pybuild = on_machine(tun=0o666, resolv_conf=resolv_conf, helpers=(helper,))
    dockerfile = "FROM busybox\nRUN cat /etc/resolv.conf; nslookup -type=a only.here.example\n"
    context = pybuild.context({"Dockerfile": dockerfile})
    with answering(RESOLVER):
        done = pybuild("--progress", "plain", "--context", context)

    assert "nameserver 10.0.2.3" in done.err
    assert "search corp.example" in done.err
    assert RESOLVER not in done.err
    assert "Address: 203.0.113.77" in done.err
    assert NOTICE not in done.err


@contextlib.contextmanager
def answering(address: str) -> Iterator[None]:
    """Answer each DNS query at *address* with one IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((address, 53))
        except OSError as error:
            pytest.skip(f"needs port 53 of {address}: {error.strerror}")

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    query, client = server.recvfrom(512)
                    if not query:
                        return
                    question = query[12 : query.index(0, 12) + 5]
                    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes((203, 0, 113, 77))
                    server.sendto(query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + record, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.sendto(b"", (address, 53))
            thread.join()


@pytest.mark.tun
def test_killed_build_leaves_no_helper(on_machine: Callable[..., Elsewhere]) -> None:
    """KILL of the process that the user started ends what carries the traffic."""
    pybuild = on_machine(tun=0o666)
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN echo started; sleep 300\n"})
    with pybuild.start("--progress", "plain", "--context", context) as process:
        assert process.stderr is not None
        while b" started" not in (line := process.stderr.readline()):
            assert line
        before = [pid for pid in descendants(process.pid) if command_of(pid) == "slirp4netns"]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 10
    while any(map(command_of, before)) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert len(before) == 1
    assert [command_of(pid) for pid in before] == [""]


@pytest.mark.tun
def test_run_has_a_network_of_its_own(on_machine: Callable[..., Elsewhere]) -> None:
    """`pybuild run` gives a command a private network, the host's with `--network host`, and says when it cannot."""
    pybuild = on_machine(tun=0o666)
    script = ("busybox", "readlink", "/proc/self/ns/net")
    host = os.readlink("/proc/self/ns/net")
    own = pybuild("run", *script)
    shared = pybuild("run", "--network", "host", *script)
    closed = replace(pybuild, script=NO_TUN)
    told = closed("run", *script)
    chosen = closed("run", "--network", "host", *script)

    assert own.out.strip().startswith("net:[")
    assert own.out.strip() != host
    assert own.err == ""
    assert (shared.out.strip(), shared.err) == (host, "")
    assert told.out.strip() == host
    assert told.err.startswith("pybuild: warning: the command runs on the network of this machine")
    assert "/dev/net/tun: no such file or directory" in told.err
    assert chosen.err == ""


def descendants(pid: int) -> list[int]:
    """Return the processes below *pid*."""
    done = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(child): int(parent) for child, parent in map(str.split, done.stdout.splitlines())}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def command_of(pid: int) -> str:
    """Return the name of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
