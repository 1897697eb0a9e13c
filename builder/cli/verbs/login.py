"""`pybuild login`: check the credentials of a registry and store them where other container tools look too."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from builder.cli.registries import connect
from builder.errors import UsageError
from registry.auth.keychain import save_credentials

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Store user name and password, once the registry has taken them."""
    host = parse_host(arguments.host)
    username, password = _ask(arguments, environment)
    with connect(environment, arguments.insecure_registry) as client:
        client.check_credentials(host, username, password)
    file = environment.login_file()
    save_credentials(file, host, username, password)
    sys.stdout.write("Login Succeeded\n")
    sys.stderr.write(f"credentials are stored, readable by you alone: {file}\n")
    return 0


def parse_host(text: str) -> str:
    """Return `host[:port]` from what people paste, which may be a URL or have a path.

    Raises:
        UsageError: nothing is left.
    """
    host = text.rpartition("://")[2].partition("/")[0]
    if not host or "@" in host or not host.isprintable() or " " in host:
        raise UsageError(f"not the host of a registry: `{text}`", hint="write it like registry.example.com:5000")
    return host


def _ask(arguments: argparse.Namespace, environment: Environment) -> tuple[str, str]:
    """Return user name and password from options, standard input, or the terminal."""
    if arguments.password is not None and arguments.password_stdin:
        raise UsageError("--password and --password-stdin are both given", hint="drop --password")
    username = arguments.username
    if arguments.password_stdin:
        if not username:
            raise UsageError("--password-stdin needs a user name", hint="add --username NAME")
        return username, _decode(environment.read_stdin())
    if username and arguments.password is not None:
        return username, arguments.password
    if not environment.stdin_tty:
        hint = "use --username NAME --password-stdin"
        raise UsageError("user name and password cannot be asked for, standard input is no terminal", hint=hint)
    if not username:
        sys.stderr.write("Username: ")
        sys.stderr.flush()
        username = sys.stdin.readline().strip()
    password = arguments.password
    if password is None:
        from getpass import getpass  # noqa: PLC0415  (only on a terminal)

        password = getpass("Password: ", stream=sys.stderr)
    if not username or not password:
        raise UsageError("user name and password are both needed")
    return username, password


def _decode(data: bytes) -> str:
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError("password on standard input is not UTF-8") from error
