"""From a challenge to an `Authorization` header: basic credentials, or a token bought with them.

A *scope* says what a token is good for: `repository:NAME:pull,push`. Tokens are kept per host and scopes until shortly
before they expire, so that of many blobs only the first meets a challenge.

Source: distribution, docs/spec/auth/token.md, oauth.md, scope.md.
"""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode, urlsplit

from registry.errors import AccessDeniedError, ProtocolError
from registry.hosts import Host, is_loopback
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.auth.challenge import Challenge
    from registry.auth.keychain import Credentials
    from registry.transport import Answer

CLIENT_ID: Final = "pybuild"
DEFAULT_LIFETIME: Final = 60.0
"""Seconds a token lives if the server does not say. Source: token.md, `expires_in`."""

_MAX_TOKEN_ANSWER: Final = 1024 * 1024


@frozen
class Access:
    """What a request wants: *scopes* on a host, for the sake of *repository*, which may have its own credentials."""

    host: Host
    repository: str
    scopes: tuple[str, ...]


class CredentialSource(Protocol):
    """Has credentials, as `registry.auth.keychain.Keychain`."""

    def find(self, host: str, repository: str = "") -> Credentials | None:
        """Return those for a repository on a host, or None."""


class Fetch(Protocol):
    """Sends a request to a token server, with retries; the header is not passed on to other hosts."""

    def __call__(self, method: str, url: str, *, authorization: str | None, form: bytes | None) -> Answer:
        """Return the answer, whatever its status."""


@frozen(kw_only=False)
class _Token:
    header: str
    expires: float


class Authenticator:
    """Knows how each host wants to be talked to. Safe to use from any thread.

    Args:
        keychain: where credentials come from.
        clock: monotonic seconds.
    """

    def __init__(self, keychain: CredentialSource, *, clock: Callable[[], float]) -> None:
        self._keychain = keychain
        self._clock = clock
        self._lock = threading.Lock()
        self._challenges: dict[Host, Challenge] = {}
        self._tokens: dict[tuple[Host, tuple[str, ...]], _Token] = {}

    def authorization(self, access: Access, fetch: Fetch) -> str | None:
        """Return the header to send with a request, None before the host has said how.

        Raises:
            AccessDeniedError: the token server refuses.
            ProtocolError: its answer is no token, or its address is not to be trusted.
        """
        with self._lock:
            challenge = self._challenges.get(access.host)
            if challenge is None:
                return None
            if challenge.scheme == "basic":
                credentials = self.find_credentials(access)
                return _basic(credentials) if credentials is not None and credentials.username else None
            token = self._tokens.get((access.host, access.scopes))
            if token is None or token.expires <= self._clock():
                token = self._buy(access, challenge, access.scopes, fetch)
            return token.header

    def answer(self, access: Access, challenges: Sequence[Challenge], *, refused: str | None, fetch: Fetch) -> None:
        """Learn from a 401, so that `authorization` can do better.

        Args:
            access: what was asked for.
            challenges: what came back.
            refused: the header that was sent, None if none was.
            fetch: for the token server.

        Raises:
            AccessDeniedError: there is nothing better to send.
            ProtocolError: the challenge or the token server makes no sense.
        """
        bearer = next((each for each in challenges if each.scheme == "bearer" and each.parameters.get("realm")), None)
        basic = next((each for each in challenges if each.scheme == "basic"), None)
        with self._lock:
            if bearer is not None:
                self._answer_bearer(access, bearer, refused, fetch)
                return
            if basic is None:
                detail = "it asks for credentials in a way that we do not know"
                raise ProtocolError(access.host.name, access.repository or "/v2/", status=401, detail=detail)
            credentials = self.find_credentials(access)
            if credentials is None or not credentials.username or _basic(credentials) == refused:
                raise self.denied(access, status=401)
            self._challenges[access.host] = basic

    def find_credentials(self, access: Access) -> Credentials | None:
        """Return what the keychain has for the access."""
        return self._keychain.find(access.host.name, access.repository)

    def denied(self, access: Access, *, status: int, detail: str = "") -> AccessDeniedError:
        """Make the error for a refused access, with a hint that says whether credentials were there."""
        host = access.host.name
        credentials = self.find_credentials(access)
        if credentials is None:
            hint = f"log in with `pybuild login {host}`, or check the name: registries deny what does not exist"
        elif status == 401:
            hint = f"the credentials for {host} in {credentials.source} were refused, log in again with `pybuild login {host}`"
        else:
            hint = f"the credentials for {host} in {credentials.source} do not allow it, ask for access or use others"
        subject = access.repository or host
        return AccessDeniedError(host, f"{subject}: {detail}" if detail else subject, status=status, hint=hint)

    def _answer_bearer(self, access: Access, bearer: Challenge, refused: str | None, fetch: Fetch) -> None:
        self._challenges[access.host] = bearer
        key = (access.host, access.scopes)
        token = self._tokens.get(key)
        if token is not None and token.header != refused and token.expires > self._clock():
            return  # another thread has bought one since
        scopes = access.scopes
        asked = tuple(bearer.parameters.get("scope", "").split())
        if not scopes or bearer.parameters.get("error") == "insufficient_scope":
            scopes = tuple(dict.fromkeys((*scopes, *asked)))
        self._buy(access, bearer, scopes, fetch)

    def _buy(self, access: Access, challenge: Challenge, scopes: tuple[str, ...], fetch: Fetch) -> _Token:
        realm = challenge.parameters["realm"]
        service = challenge.parameters.get("service", "")
        _check_realm(realm, access)
        credentials = self.find_credentials(access)
        fields = [("service", service)] if service else []
        if credentials is not None and credentials.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                *fields,
                ("client_id", CLIENT_ID),
                ("scope", " ".join(scopes)),
                ("refresh_token", credentials.identity_token),
            ]
            answer = fetch("POST", realm, authorization=None, form=urlencode(form).encode())
        else:
            fields += [("scope", scope) for scope in scopes]
            header = None
            if credentials is not None:
                header = _basic(credentials)
                fields = [("account", credentials.username), *fields]
            separator = "&" if urlsplit(realm).query else "?"
            url = realm + separator + urlencode(fields) if fields else realm
            answer = fetch("GET", url, authorization=header, form=None)
        token = self._read_token(access, answer)
        self._tokens[access.host, access.scopes] = token
        return token

    def _read_token(self, access: Access, answer: Answer) -> _Token:
        status = answer.status
        data = answer.read_all(limit=_MAX_TOKEN_ANSWER)
        if status in {401, 403}:
            raise self.denied(access, status=401)
        if status != 200:
            raise self._token_error(access, f"the token server answers {status}")
        try:
            document = json.loads(data or b"")
        except (ValueError, RecursionError):
            document = None
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._token_error(access, "the token server gives no token")
        lifetime = document.get("expires_in") if isinstance(document, dict) else None
        if not isinstance(lifetime, int | float) or lifetime <= 0:
            lifetime = DEFAULT_LIFETIME
        # Renewed a little early, because the request still has to travel.
        return _Token(f"Bearer {token}", self._clock() + lifetime * 0.9)

    @staticmethod
    def _token_error(access: Access, detail: str) -> ProtocolError:
        return ProtocolError(access.host.name, access.repository or "/v2/", status=None, detail=detail)


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()


def _check_realm(realm: str, access: Access) -> None:
    subject = access.repository or "/v2/"
    no_address = ProtocolError(access.host.name, subject, status=401, detail="its token server has no proper address")
    try:
        parts = urlsplit(realm)
        if not parts.hostname or "@" in parts.netloc or parts.port == 0:
            raise no_address
    except ValueError as error:
        raise no_address from error
    may_be_plain = access.host.insecure or is_loopback(parts.netloc)
    if not (parts.scheme == "https" or (parts.scheme == "http" and may_be_plain)):
        detail = "its token server is not reached by https, credentials are not sent there"
        raise ProtocolError(access.host.name, subject, status=401, detail=detail)
