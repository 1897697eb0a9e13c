"""Secrets of a build that open what ADD and contexts fetch.

    HTTP_AUTH_HEADER_<host>                        the whole Authorization header for files from a host
    HTTP_AUTH_TOKEN_<host>                         a token, sent as Bearer
    GIT_AUTH_HEADER.<host>, GIT_AUTH_HEADER        the whole Authorization header for repositories
    GIT_AUTH_TOKEN.<host>, GIT_AUTH_TOKEN          a token, sent as password of x-access-token

The first that is there counts; a host may be written with its port. They are sent over https, and to this machine, to
the origin that an address names and to no other; user and password in the address win over them.

Source: BuildKit, client/llb/source.go, source/git and source/http; Docker's manual, build/building/secrets.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from builder.errors import UsageError
from registry.hosts import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

OF_FILES: Final = "HTTP_AUTH_TOKEN_"
"""Beginning of the ids of tokens for files; the host follows."""

OF_REPOSITORIES: Final = "GIT_AUTH_TOKEN."
"""Beginning of the ids of tokens for repositories; the host follows."""

_HTTPS_HINT = "use https: secrets are not sent in the clear"


class Authorizations:
    """Knows what to say to which host.

    Args:
        find: gives the value of a secret by its id, None if there is none; asked only when something is fetched.
    """

    def __init__(self, find: Callable[[str], bytes | None] = lambda _: None) -> None:
        self._find = find

    def for_file(self, url: str) -> str:
        """Return the Authorization header for a file at an http address, empty if there is none.

        Raises:
            UsageError: a secret cannot be read, or cannot be a header.
        """
        for host in _hosts(url):
            if header := self._read(f"HTTP_AUTH_HEADER_{host}"):
                return header
            if token := self._read(f"{OF_FILES}{host}"):
                return f"Bearer {token}"
        return ""

    def for_repository(self, url: str) -> str:
        """Return the Authorization header for a git repository at an http address, empty if there is none.

        Raises:
            UsageError: as `for_file`.
        """
        hosts = _hosts(url)
        for suffix in (*(f".{host}" for host in hosts), *([""] if hosts else [])):
            if header := self._read(f"GIT_AUTH_HEADER{suffix}"):
                return header
            if token := self._read(f"GIT_AUTH_TOKEN{suffix}"):
                return f"Basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode('ascii')}"
        return ""

    def _read(self, name: str) -> str:
        value = (self._find(name) or b"").strip()
        try:
            text = value.decode("ascii")
        except UnicodeDecodeError:
            text = "\0"
        if not text.isprintable():
            raise UsageError(f"secret cannot be sent, it is not one line of ASCII: `{name}`", hint="check its file")
        return text


def token_hint(url: str, secret: str) -> str:
    """Tell how to give what a server asks for; *secret* is OF_FILES or OF_REPOSITORIES."""
    host = next(iter(_hosts(url)), "")
    return f"give a token: --secret id={secret}{host},env=TOKEN" if host else _HTTPS_HINT


def _hosts(url: str) -> tuple[str, ...]:
    """Name the host of an address with and without its port; nothing where no secret may be sent."""
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.netloc))):
        return ()
    return tuple(dict.fromkeys((parts.netloc.rpartition("@")[2].lower(), parts.hostname)))
