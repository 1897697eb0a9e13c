"""`--secret`, `--ssh` and `--allow` as the user writes them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from builder.cli.credentials import parse_entitlement, parse_secret, parse_ssh
from builder.cli.environment import Environment
from builder.errors import UsageError
from builder.request import DeviceGrant, SecretSource
from builder.solve.secrets import LARGEST_SECRET, Secrets

if TYPE_CHECKING:
    from pathlib import Path


def surroundings(folder: Path, **variables: str) -> Environment:
    """Return surroundings in a folder that holds the file `s`."""
    (folder / "s").write_text("of the file")
    return Environment(variables=variables, cwd=folder, home=None)


def value(text: str, environment: Environment) -> bytes | None:
    """Return the value that `--secret` gives."""
    source = parse_secret(text, text.split(","), environment)
    return Secrets([source]).find(source.id)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=a,src=s", b"of the file"),
        ("id=a,source=s", b"of the file"),
        ("id=a,type=file,src=s", b"of the file"),
        ("id=a,env=V", b"of the variable"),
        ("id=a,type=env,src=V", b"of the variable"),
        ("id=V", b"of the variable"),
        ("type=env,id=V", b"of the variable"),
        ("id=s", b"of the file"),
    ],
)
def test_secret_comes_from(tmp_path: Path, text: str, expected: bytes) -> None:
    """A secret is a file or a variable; with only an id the variable comes first."""
    assert value(text, surroundings(tmp_path, V="of the variable")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src=s", "an id= is missing"),
        ("id=a,src=none", "no such file or directory"),
        ("id=a,env=NONE", "the variable is not set: `NONE`"),
        ("id=a,scr=s", "unexpected key `scr`.*did you mean src"),
        ("id=a,type=x", "unsupported secret type `x`"),
        ("id=a,src=s,env=V", "both src= and env="),
        ("id=a,src=.", "not a file"),
        ("id", "not key=value"),
    ],
)
def test_secret_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong with a secret is said."""
    with pytest.raises(UsageError, match=message):
        parse_secret(text, text.split(","), surroundings(tmp_path))


def test_large_secret_is_refused(tmp_path: Path) -> None:
    """A secret has at most 500 KiB, also if it grew since."""
    environment = surroundings(tmp_path)
    source = parse_secret("id=s", ["id=s"], environment)
    (tmp_path / "s").write_bytes(bytes(LARGEST_SECRET + 1))

    with pytest.raises(UsageError, match="too big"):
        parse_secret("id=s", ["id=s"], environment)
    with pytest.raises(UsageError, match="too big"):
        Secrets([source]).find("s")


def test_value_of_a_secret_is_not_shown() -> None:
    """The representation of a secret does not hold its value."""
    assert "hidden" not in repr(SecretSource(id="a", value=b"hidden"))


def test_ssh_default_is_the_agent_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`default` is the socket that SSH_AUTH_SOCK names."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("agent")

        source = parse_ssh("default", surroundings(tmp_path, SSH_AUTH_SOCK="agent"))
    assert (source.id, source.socket, source.keys) == ("default", tmp_path / "agent", ())


def test_ssh_keys(tmp_path: Path) -> None:
    """Files that are no sockets are keys."""
    assert parse_ssh("k=s,s", surroundings(tmp_path)).keys == (tmp_path / "s", tmp_path / "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [("default", "SSH_AUTH_SOCK is not set"), ("=s", "an id is missing"), ("a=none", "no such file")],
)
def test_ssh_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong with an agent is said."""
    with pytest.raises(UsageError, match=message):
        parse_ssh(text, surroundings(tmp_path))


def test_entitlements() -> None:
    """Known entitlements are taken, near names are suggested."""
    assert parse_entitlement(["device"]) == "device"
    with pytest.raises(UsageError, match=r"did you mean security\.insecure"):
        parse_entitlement(["security.insecur"])


@pytest.mark.parametrize(
    ("fields", "grant"),
    [
        (["device=vendor.com/x"], DeviceGrant("vendor.com/x")),
        (["device=vendor.com/x=*"], DeviceGrant("vendor.com/x=*")),
        (["device=vendor.com/x=0", "alias=gpu"], DeviceGrant("vendor.com/x=0", "gpu")),
    ],
)
def test_one_device_is_granted(fields, grant) -> None:
    """A device is granted by its name, and perhaps under another."""
    assert parse_entitlement(fields) == grant


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["device="], "invalid device: ``"),
        (["device=gpu"], "invalid device: `gpu`"),
        (["device=v/c", "alas=x"], r"unknown part of a device: `alas=x` \(did you mean alias\?\)"),
        (["device=v/c", "alias="], "unknown part of a device: `alias=`"),
        (["network.host=x"], "unknown entitlement `network.host=x`"),
    ],
)
def test_grant_is_refused(fields, message) -> None:
    """An empty name allows nothing, least of all everything."""
    with pytest.raises(UsageError, match=message):
        parse_entitlement(fields)
