"""The keychain: which credentials belong to which repository, from the files that container tools share.

    {
      "auths": {
        "registry.example/team": {"auth": "BASE64(user:password)"},     a path: only repositories below it
        "registry.example": {"identitytoken": "…"},                     a host
        "https://index.docker.io/v1/": {"auth": "…"}                    docker's old spelling of docker.io
      },
      "credHelpers": {"registry.example": "NAME"},     docker-credential-NAME has them for this host
      "credsStore": "NAME"                             docker-credential-NAME has them for every other host
    }

Keys match whole host names and whole path parts, nothing less: a look-alike domain never sees a password.

Source: containers-auth.json(5); docker/cli, cli/config/configfile/file.go; docker/docker-credential-helpers, README.md.
"""

from __future__ import annotations

import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from registry.errors import ConfigurationError, CredentialHelperError
from registry.hosts import DOCKER_HUB_ADDRESS
from registry.oci.reference import DEFAULT_REGISTRY
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
"""What docker calls docker.io in its file, and credential helpers expect."""

HELPER_TIMEOUT: Final = 30.0
"""Seconds a credential helper may take; some open a window or ask a cloud."""

_DOCKER_HUB_NAMES: Final = frozenset({DEFAULT_REGISTRY, "index.docker.io", DOCKER_HUB_ADDRESS})
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_IDENTITY_USER: Final = "<token>"
_NOT_FOUND: Final = "credentials not found"


@frozen
class Credentials:
    """A user name and password, or an identity token to get tokens with. The text form shows only the *source*."""

    source: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


class Keychain:
    """Looks credentials up, in one file after the other. Safe to use from any thread; every file is read once.

    Args:
        files: credential files, most wanted first; they need not exist.
        environment: what credential helpers are started with, and the PATH they are looked up on.
    """

    def __init__(self, files: Sequence[Path], *, environment: Mapping[str, str]) -> None:
        self._files = tuple(files)
        self._environment = environment
        self._lock = threading.Lock()
        self._documents: dict[Path, dict[str, Any]] = {}
        self._helped: dict[tuple[str, str], Credentials | None] = {}

    def find(self, host: str, repository: str = "") -> Credentials | None:
        """Return the credentials for a repository on a host, or None if nobody has any.

        In a file, a helper named for the host comes first, then the longest path that covers the repository, then the
        host, then the helper for all hosts.

        Args:
            host: `host[:port]` as written in references.
            repository: without tag; empty for the host itself.

        Raises:
            ConfigurationError: a file cannot be read or has another shape.
            CredentialHelperError: a helper is missing or fails.
        """
        host = _normalize_host(host)
        with self._lock:
            for file in self._files:
                found = self._find_in(file, host, repository)
                if found is not None:
                    return found
        return None

    def _find_in(self, file: Path, host: str, repository: str) -> Credentials | None:
        document = self._documents.get(file)
        if document is None:
            document = self._documents[file] = _read_document(file)
        helper = _find_helper(document, host, file)
        if helper is not None:
            return self._ask(helper, host, file)
        auths = {_normalize_key(key): (key, value) for key, value in _table(document, "auths", file).items()}
        name = f"{host}/{repository}" if repository else host
        while name:
            key, value = auths.get(name, ("", None))
            credentials = _read_entry(value, file, key) if value is not None else None
            if credentials is not None:
                return credentials
            name = name.rpartition("/")[0]
        store = document.get("credsStore")
        return self._ask(_check_helper(store, file), host, file) if store else None

    def _ask(self, helper: str, host: str, file: Path) -> Credentials | None:
        key = (helper, host)
        if key not in self._helped:
            self._helped[key] = _run_helper(helper, host, file, self._environment)
        return self._helped[key]


class OneLogin:
    """A keychain that has the same credentials for everything, to try them out."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def find(self, host: str, repository: str = "") -> Credentials | None:  # noqa: ARG002  (as in Keychain)
        """Return the credentials."""
        return self._credentials


def save_credentials(file: Path, host: str, username: str, password: str) -> None:
    """Write the credentials for a host into a credential file; what else is in the file stays.

    The file is replaced at once and readable by its owner only. An entry for the host under another spelling is reused.

    Raises:
        ConfigurationError: the file cannot be read or written, or leaves the host to a credential helper.
    """
    import base64  # noqa: PLC0415  (only for login)

    host = _normalize_host(host)

    def change(document: dict[str, Any]) -> None:
        helper = _find_helper(document, host, file)
        if helper is not None:
            raise ConfigurationError(
                str(file),
                f"credHelpers leaves {host} to docker-credential-{helper}",
                hint=f"log in with that helper, or remove {host} from credHelpers",
            )
        auths = _table(document, "auths", file)
        key = next((key for key in auths if _normalize_key(key) == host), None)
        if key is None:
            # docker looks for nothing but its old spelling; the other tools know both.
            is_dockers = file.name == "config.json" and host == DEFAULT_REGISTRY
            key = DOCKER_HUB_KEY if is_dockers else host
        secret = base64.b64encode(f"{username}:{password}".encode()).decode()
        document["auths"] = {**auths, key: {"auth": secret}}

    _change_document(file, change)


def remove_credentials(file: Path, host: str) -> bool:
    """Remove the credentials for a host, in any spelling, from a credential file; those for its paths stay.

    Returns:
        Whether there were any.

    Raises:
        ConfigurationError: the file cannot be read or written.
    """
    host = _normalize_host(host)
    if not any(_normalize_key(key) == host for key in _table(_read_document(file), "auths", file)):
        return False

    def change(document: dict[str, Any]) -> None:
        auths = _table(document, "auths", file)
        document["auths"] = {key: value for key, value in auths.items() if _normalize_key(key) != host}

    _change_document(file, change)
    return True


def _change_document(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = dict(_read_document(file))
    change(document)
    # A file that is a symbolic link, as in managed home directories, stays one.
    target = os.path.realpath(file)
    temporary = f"{target}.{os.urandom(6).hex()}"
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="utf-8") as stream:
                json.dump(document, stream, indent="\t")
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigurationError(str(file), f"it cannot be written ({error.strerror})") from error


def _read_document(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(str(file), f"it cannot be read ({error.strerror})") from error
    if not data.strip():
        return {}
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        # The parser's own text may quote the file.
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigurationError(str(file), f"it is not JSON{place}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(str(file), "it is not a JSON object")
    return document


def _table(document: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(str(file), f"{name} is not an object")
    return value


def _normalize_host(host: str) -> str:
    host = host.lower()
    return DEFAULT_REGISTRY if host in _DOCKER_HUB_NAMES else host


def _normalize_key(key: str) -> str:
    """Return `host[/path]` for a key in any of its spellings; one that no address can have stays as it is."""
    if "://" in key:
        try:
            parts = urlsplit(key)
        except ValueError:
            return key
        key = parts.netloc + parts.path
    host, _, path = key.strip("/").partition("/")
    # Docker's keys once were the addresses of the API's versions.
    if path in {"v1", "v2"}:
        path = ""
    host = _normalize_host(host)
    return f"{host}/{path}" if path else host


def _read_entry(value: object, file: Path, key: str) -> Credentials | None:
    import base64  # noqa: PLC0415  (only where there are credentials)

    if not isinstance(value, dict):
        raise ConfigurationError(str(file), f'auths["{key}"] is not an object')
    fields = {name: value.get(name) or "" for name in ("auth", "identitytoken", "username", "password")}
    for name, text in fields.items():
        if not isinstance(text, str):
            raise ConfigurationError(str(file), f'auths["{key}"].{name} is not a string')
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            decoded = base64.b64decode(fields["auth"], validate=True).decode()
        except ValueError as error:
            raise ConfigurationError(str(file), f'auths["{key}"].auth is not base64') from error
        username, colon, password = decoded.partition(":")
        if not colon:
            raise ConfigurationError(str(file), f'auths["{key}"].auth is not user:password')
        password = password.rstrip("\0")
    if not (username or fields["identitytoken"]):
        return None
    return Credentials(source=str(file), username=username, password=password, identity_token=fields["identitytoken"])


def _find_helper(document: Mapping[str, Any], host: str, file: Path) -> str | None:
    for key, name in _table(document, "credHelpers", file).items():
        if name and _normalize_key(key) == host:
            return _check_helper(name, file)
    return None


def _check_helper(name: object, file: Path) -> str:
    if not isinstance(name, str) or not _HELPER_NAME.fullmatch(name):
        raise ConfigurationError(str(file), "the name of a credential helper is not a word")
    return name


def _run_helper(helper: str, host: str, file: Path, environment: Mapping[str, str]) -> Credentials | None:
    import shutil  # noqa: PLC0415  (only with helpers)
    import subprocess  # noqa: PLC0415  (only with helpers)

    program = f"docker-credential-{helper}"
    path = shutil.which(program, path=environment.get("PATH", os.defpath))
    if path is None:
        hint = f"install it, or remove {helper} from {file}"
        raise CredentialHelperError(program, "it is not on the PATH", hint=hint)
    server = DOCKER_HUB_KEY if host == DEFAULT_REGISTRY else host
    try:
        done = subprocess.run(
            [path, "get"],
            input=server.encode(),
            capture_output=True,
            env=dict(environment),
            timeout=HELPER_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CredentialHelperError(program, f"it gave no answer within {HELPER_TIMEOUT:.0f} seconds") from error
    except OSError as error:
        raise CredentialHelperError(program, f"it cannot be started ({error.strerror})") from error
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        # Helpers write what went wrong to standard output; only a success has a secret there.
        if _NOT_FOUND in said.lower():
            return None
        lines = (said.strip() or done.stderr.decode(errors="replace").strip() or "no message").splitlines()
        raise CredentialHelperError(program, f"it failed for {host} with status {done.returncode} ({lines[0][:200]})")
    try:
        answer = json.loads(said)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        # Without the cause: it holds what the helper said.
        raise CredentialHelperError(program, f"its answer for {host} cannot be read") from None
    if username == _IDENTITY_USER:
        return Credentials(source=program, identity_token=secret)
    return Credentials(source=program, username=username, password=secret) if username else None
