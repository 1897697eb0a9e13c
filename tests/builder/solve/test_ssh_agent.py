"""Agents for steps: what the proxy lets through, keys, and what is left afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from builder.errors import UsageError
from builder.request import SshSource
from builder.solve.ssh_agent import SshAgents

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent")

OWNER = (os.getuid(), os.getgid())


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return the file of a key without a passphrase."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of the test", "-f", path], check=True)
    return path


def ssh_add(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Talk to the agent behind a socket."""
    command = ["ssh-add", *arguments]
    return subprocess.run(
        command, env={"SSH_AUTH_SOCK": path.name, "PATH": "/usr/bin"}, cwd=path.parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_keys_are_listed_through_the_socket(tmp_path: Path, key: Path) -> None:
    """A step can list the keys that were given."""
    with (
        closing(SshAgents([SshSource(id="k", keys=(key,))], tmp_path)) as agents,
        agents.forwarded("k", mode=0o600, owner=OWNER) as path,
    ):
        assert path is not None
        assert "of the test" in ssh_add(path, "-l").stdout


@pytest.mark.parametrize("arguments", [("-D",), ("-x",)], ids=["remove", "lock"])
def test_agent_cannot_be_changed(tmp_path: Path, key: Path, arguments: tuple[str, ...]) -> None:
    """A step can neither remove keys nor lock the agent."""
    with (
        closing(SshAgents([SshSource(id="k", keys=(key,))], tmp_path)) as agents,
        agents.forwarded("k", mode=0o600, owner=OWNER) as path,
    ):
        assert path is not None
        assert ssh_add(path, *arguments).returncode != 0
        assert ssh_add(path, "-l").returncode == 0


def test_socket_has_the_mode_and_goes_with_the_step(tmp_path: Path, key: Path) -> None:
    """The socket has the mode of the mount, and is gone after the step."""
    with closing(SshAgents([SshSource(id="k", keys=(key,))], tmp_path)) as agents:
        with agents.forwarded("k", mode=0o640, owner=OWNER) as path:
            assert path is not None
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert not path.exists()


def test_agent_of_the_user_is_reached(tmp_path: Path, key: Path) -> None:
    """A socket that was given leads to the agent behind it, also when its path is long."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with (
        closing(SshAgents([SshSource(id="k", keys=(key,))], folder)) as first,
        first.forwarded("k", mode=0o600, owner=OWNER) as agent,
        closing(SshAgents([SshSource(id="default", socket=agent)], tmp_path)) as agents,
        agents.forwarded("default", mode=0o600, owner=OWNER) as path,
    ):
        assert path is not None
        assert "of the test" in ssh_add(path, "-l").stdout


def test_unknown_id_has_no_socket(tmp_path: Path) -> None:
    """An id that was not given has no agent."""
    with SshAgents([], tmp_path).forwarded("k", mode=0o600, owner=OWNER) as path:
        assert path is None


def test_key_with_passphrase_is_refused(tmp_path: Path) -> None:
    """A key with a passphrase fails at once, with the way out."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", path], check=True)

    with (
        closing(SshAgents([SshSource(id="k", keys=(path,))], tmp_path)) as agents,
        pytest.raises(UsageError, match="ssh key cannot be used"),
        agents.forwarded("k", mode=0o600, owner=OWNER),
    ):
        pass


def test_message_that_is_too_long_ends_the_connection(tmp_path: Path, key: Path) -> None:
    """A step cannot make the proxy keep a message of any length."""
    with (
        closing(SshAgents([SshSource(id="k", keys=(key,))], tmp_path)) as agents,
        agents.forwarded("k", mode=0o600, owner=OWNER) as path,
        socket.socket(socket.AF_UNIX) as client,
    ):
        folder = os.open(tmp_path, os.O_PATH)
        client.connect(f"/proc/self/fd/{folder}/{path.name if path else ''}")
        os.close(folder)
        client.sendall(b"\xff\xff\xff\xff")
        assert client.recv(1) == b""
