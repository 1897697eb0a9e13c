"""Requests to one endpoint: credentials and redirects around the exchanges of the transport.

Credentials go to the registry's own address and to nowhere else: an upload location or a redirect on another host gets
none, and plain HTTP is only ever reached from plain HTTP.

Source: distribution-spec, Error Codes; RFC 9110, section 15.4 (redirects).
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from registry.auth.challenge import parse_challenges
from registry.auth.tokens import Access
from registry.errors import (
    AccessDeniedError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RegistryError,
    UnreachableError,
)
from registry.retries import Retries

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from registry.auth.tokens import Authenticator
    from registry.hosts import Endpoint
    from registry.retries import Pacing
    from registry.transfer import Cancellation
    from registry.transport import Answer, Transport, Upload

MAX_REDIRECTS: Final = 8

_LOG = logging.getLogger("pybuild." + __name__)
_MAX_ERROR_BODY: Final = 64 * 1024
_MAX_DETAIL: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}


class Connection:
    """Sends requests for one endpoint within one pull or push, with *retries*. Safe to use from any thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        transport: Transport,
        authenticator: Authenticator,
        pacing: Pacing,
        cancellation: Cancellation,
    ) -> None:
        self.endpoint = endpoint
        self.cancellation = cancellation
        self._transport = transport
        self._authenticator = authenticator
        self.retries = Retries(pacing, cancellation)

    def request(
        self,
        method: str,
        target: str,
        *,
        actions: str,
        subject: str,
        accept: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | Upload | None = None,
        also: tuple[str, ...] = (),
        retry: bool = True,
    ) -> Answer:
        """Send a request until there is an answer to keep, and return it.

        Args:
            method: of HTTP.
            target: a path from the root of the host, or a whole address.
            actions: what the token must allow on the repository: "pull" or "pull,push"; empty for the host itself.
            subject: what it is about, for errors.
            accept: the status codes the caller understands.
            headers: besides credentials.
            body: is read again for every attempt.
            also: further scopes the token must allow.
            retry: whether to try again after transient failures; without, the first one is raised.

        Raises:
            AccessDeniedError, NotFoundError, RateLimitedError, ProtocolError: the answer has another status.
            UnreachableError: there was no answer.
            TransferCancelledError: the work was given up.
        """
        host = self.endpoint.host
        base = self._transport.base_url(host, self.cancellation)
        url = target if "://" in target else base + target
        scope = (f"repository:{self.endpoint.repository}:{actions}",) if actions else ()
        access = Access(host=host, repository=self.endpoint.repository, scopes=(*scope, *also))
        ours = is_same_origin(url, base)

        def send(authorization: str | None) -> Answer:
            return self.retries.persist(
                lambda: self._follow(method, url, headers=headers or {}, authorization=authorization, body=body),
                subject=subject,
                retry=retry,
            )

        authorization = self._authenticator.authorization(access, self._fetch) if ours else None
        answer = send(authorization)
        if answer.status == 401 and ours and is_same_origin(answer.url, base):
            challenges = parse_challenges(answer.header("WWW-Authenticate") or "")
            answer.read_all(limit=_MAX_ERROR_BODY)
            self._authenticator.answer(access, challenges, refused=authorization, fetch=self._fetch)
            answer = send(self._authenticator.authorization(access, self._fetch))
        if answer.status in accept:
            return answer
        raise self._error(answer, access, subject)

    def resolve_location(self, answer: Answer, subject: str) -> str:
        """Return the address in the Location header of *answer*.

        Raises:
            ProtocolError: there is none, or it would be a step down from TLS.
        """
        location = answer.header("Location")
        if not location:
            raise ProtocolError(self.endpoint.host.name, subject, status=answer.status, detail="it has no Location")
        return self._join(answer.url, location, subject=subject, status=answer.status)

    def _fetch(self, method: str, url: str, *, authorization: str | None, form: bytes | None) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        return self.retries.persist(
            lambda: self._follow(method, url, headers=headers, authorization=authorization, body=form),
            subject="token",
            retry=True,
        )

    def _follow(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        authorization: str | None,
        body: bytes | Upload | None,
    ) -> Answer:
        """Send, and follow redirects; once on another origin, the credentials stay behind."""
        origin = url
        for _ in range(MAX_REDIRECTS + 1):
            if not is_same_origin(url, origin):
                authorization = None
            answer = self._transport.exchange(
                method,
                url,
                host=self.endpoint.host,
                headers={**headers, "Authorization": authorization} if authorization else headers,
                body=body,
                cancellation=self.cancellation,
            )
            if answer.status not in _REDIRECTS or not answer.header("Location"):
                return answer
            try:
                next_url = self._join(url, answer.header("Location") or "", subject=method, status=answer.status)
            except ProtocolError:
                answer.close()
                raise
            is_safe = method in {"GET", "HEAD"}
            keeps_body = answer.status in {307, 308} and (method != "POST" or is_same_origin(next_url, origin))
            if not (is_safe or keeps_body):
                return answer
            answer.read_all(limit=_MAX_ERROR_BODY)
            url = next_url
        raise ProtocolError(self.endpoint.host.name, "redirect", status=None, detail="it redirects in circles")

    def _join(self, base: str, location: str, *, subject: str, status: int) -> str:
        try:
            old, new = urlsplit(base), urlsplit(urljoin(base, location))
            _origin(new.geturl())
        except ValueError as error:
            detail = "it sends us to something that is no address"
            raise ProtocolError(self.endpoint.host.name, subject, status=status, detail=detail) from error
        address = new.netloc.rpartition("@")[2]
        scheme = new.scheme
        if old.scheme == "https" and scheme == "http" and old.hostname == new.hostname:
            # A registry behind a proxy that ends TLS often does not know that it is spoken to by https.
            scheme, address = "https", old.netloc
        if not address or scheme not in _PORTS or (old.scheme == "https" and scheme == "http"):
            detail = "it sends us from https to elsewhere"
            raise ProtocolError(self.endpoint.host.name, subject, status=status, detail=detail)
        return urlunsplit((scheme, address, new.path, new.query, ""))

    def _error(self, answer: Answer, access: Access, subject: str) -> RegistryError:
        host = self.endpoint.host.name
        status = answer.status
        codes, detail = _read_errors(answer)
        match status:
            case 401 | 403:
                error: AccessDeniedError = self._authenticator.denied(access, status=status, detail=detail)
                return error
            case 404:
                return NotFoundError(host, subject, hint=_not_found_hint(codes, self.endpoint.repository))
            case 429:
                seconds = self.retries.read_retry_after(answer)
                hint = None
                if self._authenticator.find_credentials(access) is None:
                    hint = f"log in with `pybuild login {host}`: many registries grant more to those they know"
                return RateLimitedError(host, subject, seconds=seconds, hint=hint)
            case _:
                return ProtocolError(host, subject, status=status, detail=detail or "it gives no reason")


def is_same_origin(one: str, other: str) -> bool:
    """Tell whether two addresses have the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port; ValueError if the port is none."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _not_found_hint(codes: Collection[str], repository: str) -> str:
    if "MANIFEST_UNKNOWN" in codes:
        return f"the repository {repository} may exist, but not with this tag or digest"
    return f"check the spelling of {repository}"


def _read_errors(answer: Answer) -> tuple[frozenset[str], str]:
    """Return the codes in the body of a refusal, and one line for people.

    Source: distribution-spec, Error Codes.
    """
    try:
        data = answer.read_all(limit=_MAX_ERROR_BODY)
        document = json.loads(data or b"")
    except (UnreachableError, ValueError, RecursionError):
        return frozenset(), ""
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return frozenset(), ""
    known = [each for each in errors if isinstance(each, dict)]
    codes = [str(each.get("code", "")) for each in known]
    texts = [f"{each.get('message') or each.get('code') or ''}" for each in known]
    line = "".join(each if each.isprintable() else " " for each in ", ".join(filter(None, texts)))
    return frozenset(codes), line[:_MAX_DETAIL]
