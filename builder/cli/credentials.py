"""`--secret`, `--ssh` and `--allow`: what steps are trusted with.

Source: docker/buildx, util/buildflags/{secrets,ssh,entitlements}.go; docs/reference/buildx_build.md.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from builder.devices.name import parse_device_name
from builder.dockerfile.suggest import did_you_mean
from builder.errors import UsageError
from builder.plan.entitlements import DEVICE, ENTITLEMENTS
from builder.request import DeviceGrant, SecretSource, SshSource
from builder.solve.secrets import LARGEST_SECRET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.cli.environment import Environment

_SECRET_KEYS = {"id": "id", "src": "src", "source": "src", "env": "env", "type": "type"}
_SECRET_TYPES = ("file", "env")
_FORM = "write it like id=NAME,src=FILE or id=NAME,env=VARIABLE"


def parse_secret(text: str, fields: Sequence[str], environment: Environment) -> SecretSource:
    """Return one `--secret`, its variable read, its file found.

    With only an id, the variable of that name counts if it is set, else the file.

    Args:
        text: as given, for messages; it holds no value.
        fields: its comma-separated fields.
        environment: where variables and files are.

    Raises:
        UsageError: a key is unknown, the id lacks, or the file or variable does.
    """
    values: dict[str, str] = {}
    for part in fields:
        key, equals, value = part.partition("=")
        known = _SECRET_KEYS.get(key.strip().lower())
        if known is None:
            raise UsageError(
                f"option --secret: unexpected key `{key}`{did_you_mean(key, tuple(_SECRET_KEYS))}", hint=_FORM
            )
        if not equals:
            raise UsageError(f"option --secret: not key=value: `{part}`", hint=_FORM)
        values[known] = value
    name, kind = values.get("id", ""), values.get("type", "")
    if not name:
        raise UsageError(f"option --secret: an id= is missing: `{text}`", hint=_FORM)
    if kind and kind not in _SECRET_TYPES:
        raise UsageError(f"option --secret: unsupported secret type `{kind}`", hint="use file or env")
    variable, file = values.get("env"), values.get("src")
    if variable and file:
        raise UsageError(f"option --secret: both src= and env= are given: `{text}`", hint=_FORM)
    if kind == "env":
        variable, file = variable or file or name, None
    elif not variable and not file:
        variable = name if kind != "file" and name in environment.variables else None
        file = None if variable else name
    if variable:
        return SecretSource(id=name, value=_variable(name, variable, environment))
    return SecretSource(id=name, path=_secret_file(name, environment.path(file or name)))


def parse_ssh(text: str, environment: Environment) -> SshSource:
    """Return one `--ssh`: `default`, `ID`, `ID=SOCKET` or `ID=KEY[,KEY]`.

    Raises:
        UsageError: there is no agent, or a file is missing or mixed with a socket.
    """
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"option --ssh: an id is missing: `{text}`", hint="write --ssh default or --ssh ID=KEY")
    paths = [environment.path(part) for part in value.split(",") if part]
    if not paths:
        agent = environment.variables.get("SSH_AUTH_SOCK")
        if not agent:
            raise UsageError(
                "option --ssh: there is no agent, SSH_AUTH_SOCK is not set",
                hint="start one with `eval $(ssh-agent)` and ssh-add, or give a key: --ssh default=FILE",
            )
        paths = [environment.path(agent)]
    sockets = [path for path in paths if stat.S_ISSOCK(_status("--ssh", path).st_mode)]
    if not sockets:
        return SshSource(id=name, keys=tuple(paths))
    if len(paths) > 1:
        raise UsageError(f"option --ssh: only single socket allowed: `{text}`", hint="give one socket, or keys")
    return SshSource(id=name, socket=sockets[0])


def parse_entitlement(fields: Sequence[str]) -> str | DeviceGrant:
    """Return the entitlement of one `--allow`: its name, or for `device=NAME[,alias=ALIAS]` the device.

    Args:
        fields: the text, split at its commas.

    Raises:
        UsageError: there is no such entitlement, or no such device can be.

    Source: docker/buildx, docs/reference/buildx_build.md; moby/buildkit, util/entitlements/entitlements.go.
    """
    name, equals, device = fields[0].strip().partition("=")
    if name not in ENTITLEMENTS or (equals and name != DEVICE):
        raise UsageError(
            f"option --allow: unknown entitlement `{fields[0].strip()}`{did_you_mean(name, ENTITLEMENTS)}",
            hint=f"use {', '.join(ENTITLEMENTS)}",
        )
    if not equals:
        return name
    alias: str | None = None
    for field in fields[1:]:
        key, _, value = field.partition("=")
        if key != "alias" or not value:
            raise UsageError(
                f"option --allow: unknown part of a device: `{field}`{did_you_mean(key, ('alias',))}",
                hint="write it like device=vendor.com/class=name,alias=NAME",
            )
        alias = value
    if parse_device_name(device) is None:
        raise UsageError(f"option --allow: invalid device: `{device}`", hint="write it like device=vendor.com/class")
    return DeviceGrant(device, alias)


def _variable(name: str, variable: str, environment: Environment) -> bytes:
    value = environment.variables.get(variable)
    if value is None:
        raise UsageError(f"secret {name}: the variable is not set: `{variable}`", hint=f"export {variable} before")
    return _limited(name, os.fsencode(value))


def _limited(name: str, value: bytes) -> bytes:
    if len(value) > LARGEST_SECRET:
        raise UsageError(f"secret {name} too big. max size {LARGEST_SECRET >> 10}KB")
    return value


def _secret_file(name: str, path: Path) -> Path:
    status = _status("--secret", path)
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"secret {name}: not a file: `{path}`", hint="a secret is one file")
    if status.st_size > LARGEST_SECRET:
        raise UsageError(f"secret {name} too big. max size {LARGEST_SECRET >> 10}KB")
    return path


def _status(option: str, path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UsageError(f"option {option}: {reason}: `{path}`", hint="check the path") from error
