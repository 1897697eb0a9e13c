"""HTTP: sessions, TLS, proxies, time-outs, and the words for what goes wrong on the way.

An *exchange* is one request and its answer, without redirects, retries or credentials of its own: those are decided by
`registry.connection`. requests is used nowhere else.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from registry import __version__
from registry.certificates import find_certificates
from registry.errors import CertificateInvalidError, ProtocolError, UnreachableError
from registry.hosts import DOCKER_HUB_ADDRESS, Host, is_loopback
from registry.oci.reference import DEFAULT_REGISTRY
from registry.transfer import CHUNK_SIZE, Cancellation
from registry.value import frozen

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from requests import PreparedRequest, Response, Session

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for name look-up answers, TCP and TLS, each."""

READ_TIMEOUT: Final = 60.0
"""Seconds without a single byte after which an answer is given up."""

_LOG = logging.getLogger("pybuild." + __name__)
_POOL_SIZE: Final = 8


class Upload:
    """The body of a request, read from a blob while it is sent. Every iteration starts anew.

    Args:
        open_blob: opens it; called once per attempt, the reader is closed here.
        size: of the blob in bytes.
        advance: is told how many bytes of the current attempt were handed to the socket.
        cancellation: is looked at before each piece.
    """

    def __init__(
        self,
        open_blob: Callable[[], BinaryIO],
        *,
        size: int,
        advance: Callable[[int], None],
        cancellation: Cancellation,
    ) -> None:
        self._open = open_blob
        self._size = size
        self._advance = advance
        self._cancellation = cancellation

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        with self._open() as blob:
            while piece := blob.read(CHUNK_SIZE):
                self._cancellation.check()
                yield piece
                sent += len(piece)
                self._advance(sent)


class Answer:
    """The answer to one request; its body is read from the socket on demand. Close it, or read it to the end."""

    def __init__(self, response: Response, host: Host, cancellation: Cancellation) -> None:
        self._response = response
        self._host = host
        self._cancellation = cancellation
        self.status = response.status_code
        self.url = response.url
        cancellation.add(self)

    def header(self, name: str) -> str | None:
        """Return a header's value, several of the same name joined by commas; the name is in any case."""
        return self._response.headers.get(name)

    def read(self, size: int = CHUNK_SIZE) -> bytes:
        """Return up to *size* bytes of the body as they were sent, b"" at its end.

        Raises:
            UnreachableError: the connection broke, timed out, or ended before the announced length.
            TransferCancelledError: the work was given up.
        """
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  (loaded with requests)

        self._cancellation.check()
        try:
            data: bytes = self._response.raw.read(size, decode_content=False)
        except (HTTPError, OSError, ValueError) as error:
            self.close()
            # A cancelled read fails like a broken one.
            self._cancellation.check()
            raise _explain(error, self._host, answered=True) from error
        if not data:
            self.close()
        return data

    def read_all(self, *, limit: int) -> bytes | None:
        """Return the whole body, content encodings undone, or None if it is longer than *limit* bytes. Closes.

        Raises:
            UnreachableError: as `read`.
        """
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  (loaded with requests)

        pieces: list[bytes] = []
        length = 0
        try:
            while length <= limit:
                piece = self._response.raw.read(min(CHUNK_SIZE, limit + 1 - length), decode_content=True)
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
                length += len(piece)
        except (HTTPError, OSError, ValueError) as error:
            self._cancellation.check()
            raise _explain(error, self._host, answered=True) from error
        finally:
            self.close()
        return None

    def close(self) -> None:
        """Give the connection back if the body was read, else end it. Idempotent."""
        self._cancellation.remove(self)
        self._response.close()

    def interrupt(self) -> None:
        """Make a blocked `read` in another thread fail."""
        # urllib3 can do so since 2.3; before that a cancelled read ends with the next byte or the time-out.
        shutdown = getattr(self._response.raw, "shutdown", None)
        if shutdown is not None:
            try:
                shutdown()
            except (OSError, ValueError, RuntimeError) as error:
                _LOG.debug("answer was already over when it was interrupted: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@frozen(kw_only=False)
class _SessionKey:
    """Sessions are shared by requests that trust the same: *address* is connected to on behalf of *host*."""

    scheme: str
    address: str
    host: Host


class Transport:
    """The connections of one client, pooled per host. Safe to use from any thread.

    Args:
        certificate_directories: certs.d directories, most wanted first.
        environment: gives proxies (`https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`) and `SSL_CERT_FILE`.
        clock: seconds since the epoch, to judge certificates by.
    """

    def __init__(
        self, *, certificate_directories: Sequence[Path], environment: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        self._certificate_directories = tuple(certificate_directories)
        self._environment = environment
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[_SessionKey, Session] = {}
        self._base_urls: dict[Host, str] = {}
        self._answered: set[str] = set()

    def base_url(self, host: Host, cancellation: Cancellation) -> str:
        """Return `scheme://address` for a host, finding out once whether it speaks TLS if it need not.

        Raises:
            UnreachableError: neither way leads to it.
            CertificateInvalidError: certs.d is wrong.
        """
        known = self._base_urls.get(host)
        if known is None:
            known = self._find_base_url(host, cancellation)
            self._base_urls[host] = known
        return known

    def exchange(
        self,
        method: str,
        url: str,
        *,
        host: Host,
        headers: Mapping[str, str],
        body: bytes | Upload | None = None,
        cancellation: Cancellation,
        patience: float = READ_TIMEOUT,
    ) -> Answer:
        """Send one request and return when the headers of its answer are there.

        Args:
            method: of HTTP.
            url: where to; redirects and token servers make it another host than *host*.
            host: on whose behalf, which decides whose authorities are trusted and how errors name it.
            headers: all of them, credentials included.
            body: of the request.
            cancellation: ends the wait for the answer's body.
            patience: seconds without a single byte after which the answer is given up.

        Raises:
            UnreachableError: no connection, or it broke before the answer; *transient* if trying again can help.
            CertificateInvalidError: certs.d is wrong.
        """
        from requests.exceptions import RequestException  # noqa: PLC0415  (slow)
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  (loaded with requests)

        cancellation.check()
        parts = urlsplit(url)
        session = self._session(parts.scheme, parts.netloc, host)
        request = _prepare(session, method, url, headers, body)
        proxy = find_proxy(url, self._environment)
        _LOG.debug("%s %s", method, redact_url(url))
        try:
            response = session.send(
                request,
                stream=True,
                allow_redirects=False,
                timeout=(min(CONNECT_TIMEOUT, patience), patience),
                verify=self._verifies(host, parts.netloc),
                proxies={parts.scheme: proxy} if proxy else {},
            )
        except (RequestException, HTTPError, OSError, ValueError) as error:
            cancellation.check()
            shown = host if parts.netloc == host.address else Host(parts.netloc)
            known = parts.netloc in self._answered
            raise _explain(error, shown, answered=known, proxy=proxy, patience=patience) from error
        self._answered.add(parts.netloc)
        _LOG.debug("%s %s: %d", method, redact_url(url), response.status_code)
        return Answer(response, host, cancellation)

    def close(self) -> None:
        """Close all idle connections. The transport can still be used."""
        with self._lock:
            sessions = tuple(self._sessions.values())
            self._sessions.clear()
        for session in sessions:
            session.close()

    def _find_base_url(self, host: Host, cancellation: Cancellation) -> str:
        secure = f"https://{host.address}"
        try:
            urlsplit(secure).port  # noqa: B018  (reading it is the check)
        except ValueError as error:
            raise UnreachableError(host.name, "no port has that number", hint="use one from 1 to 65535") from error
        if not host.allows_plain_http:
            return secure
        try:
            self.exchange("GET", secure + "/v2/", host=host, headers={}, cancellation=cancellation).close()
        except UnreachableError as error:
            plain = f"http://{host.address}"
            try:
                answer = self.exchange("GET", plain + "/v2/", host=host, headers={}, cancellation=cancellation)
            except UnreachableError:
                # What TLS said is more to the point.
                raise error from error.__cause__
            answer.close()
            if answer.status == 400:
                # So do TLS servers answer plain HTTP, also those that have just turned down our certificate.
                raise
            return plain
        return secure

    def _session(self, scheme: str, address: str, host: Host) -> Session:
        key = _SessionKey(scheme, address, host)
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                context = self._make_context(address, host) if scheme == "https" else None
                session = self._sessions[key] = _make_session(context)
            return session

    def _verifies(self, host: Host, address: str) -> bool:
        if host.insecure:
            return False
        # This machine needs no voucher, unless somebody took the trouble to give one.
        return not is_loopback(address) or self._has_authorities(address)

    def _has_authorities(self, address: str) -> bool:
        return any((directory / address).is_dir() for directory in self._certificate_directories)

    def _make_context(self, address: str, host: Host) -> ssl.SSLContext:
        import ssl  # noqa: PLC0415  (loaded with requests)

        verifies = self._verifies(host, address)
        # Where nobody is to be vouched for, no authority is loaded: a bundle of all takes tens of milliseconds.
        context = self._load_authorities() if verifies else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A registry's token server and storage are often vouched for by the registry's own authority.
        for name in dict.fromkeys((host.name, _certificate_name(address))):
            found = find_certificates(name, self._certificate_directories, now=self._now())
            for file in found.authorities if verifies else ():
                context.load_verify_locations(str(file))
            if name == _certificate_name(address):
                for pair in found.client_pairs:
                    try:
                        context.load_cert_chain(pair.certificate, pair.key)
                    except ssl.SSLError as error:
                        reason = f"OpenSSL refuses it ({error.reason})"
                        raise CertificateInvalidError(str(pair.certificate), reason) from error
        if not verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _load_authorities(self) -> ssl.SSLContext:
        """Make a context with the authorities of the system, or those that SSL_CERT_FILE names instead."""
        import ssl  # noqa: PLC0415  (loaded with requests)

        bundle = self._environment.get("SSL_CERT_FILE") or None
        try:
            context = ssl.create_default_context(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            raise CertificateInvalidError(str(bundle), "SSL_CERT_FILE names it, and it cannot be read") from error
        capath = ssl.get_default_verify_paths().capath
        if not context.cert_store_stats()["x509_ca"] and not (capath and os.listdir(capath)):
            from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415  (where the system has no authorities)

            context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
        return context

    def _now(self) -> Any:
        from datetime import UTC, datetime  # noqa: PLC0415  (loaded with requests)

        return datetime.fromtimestamp(self._clock(), UTC)


def find_proxy(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy that *environment* wants for *url*, or None.

    Names are taken in lower case first, then in upper case. Loopback is never sent to a proxy. `no_proxy` holds hosts
    (with their sub-domains), `host:port`, addresses, networks as `10.0.0.0/8`, or `*`.

    requests could do it, but by changing os.environ for a moment, which other threads see.

    Source: golang.org/x/net/http/httpproxy, whose rules container tools share.
    """

    def look_up(name: str) -> str:
        return environment.get(name) or environment.get(name.upper()) or ""

    parts = urlsplit(url)
    proxy = look_up(f"{parts.scheme}_proxy") or look_up("all_proxy")
    if not proxy or is_loopback(parts.netloc):
        return None
    for entry in re.split(r"[,\s]+", look_up("no_proxy").lower()):
        if entry and _is_exempt(parts.hostname or "", parts.port, entry):
            return None
    return proxy if "://" in proxy else f"http://{proxy}"


def redact_url(url: str) -> str:
    """Return *url* without user, password, query and fragment, any of which may hold a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _is_exempt(hostname: str, port: int | None, entry: str) -> bool:
    import ipaddress  # noqa: PLC0415  (only behind proxies)

    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(hostname) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name, colon, number = entry.rpartition(":")
        if colon and number.isdecimal():
            if port != int(number):
                return False
            entry = name
        domain = entry.removeprefix("*").removeprefix(".")
        return hostname == domain or hostname.endswith("." + domain)


def _certificate_name(address: str) -> str:
    return DEFAULT_REGISTRY if address == DOCKER_HUB_ADDRESS else address


def _make_session(context: ssl.SSLContext | None) -> Session:
    from http.cookiejar import DefaultCookiePolicy  # noqa: PLC0415  (loaded with requests)

    import requests  # noqa: PLC0415  (80 ms)
    import urllib3  # noqa: PLC0415  (loaded with requests)
    from requests.adapters import HTTPAdapter  # noqa: PLC0415  (loaded with requests)

    class Adapter(HTTPAdapter):
        """Uses our TLS context, where requests would load its own bundle of authorities."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, ssl_context=context, **options)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=context, **options)

        def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002  (the signature of requests)
            conn.cert_reqs = "CERT_REQUIRED" if verify else "CERT_NONE"

        def close(self) -> None:
            # urllib3 leaves idle connections to the garbage collection since its version 2. That may come in a process
            # that was forked in the meantime, where their descriptors are other files.
            for manager in (self.poolmanager, *self.proxy_manager.values()):
                for key in list(manager.pools.keys()):
                    pool = manager.pools.get(key)
                    if pool is not None:
                        pool.close()
            super().close()

    class PlainSession(requests.Session):
        """Leaves redirects alone: even looking at one would rewind the body of a request."""

        def get_redirect_target(self, resp: Response) -> str | None:  # noqa: ARG002  (the signature of requests)
            return None

    if context is not None and not context.check_hostname:
        # The user has allowed it in so many words; a warning per request says nothing new.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    session = PlainSession()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"User-Agent": f"pybuild/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"})
    adapter = Adapter(pool_connections=_POOL_SIZE, pool_maxsize=_POOL_SIZE)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _prepare(
    session: Session, method: str, url: str, headers: Mapping[str, str], body: bytes | Upload | None
) -> PreparedRequest:
    import requests  # noqa: PLC0415  (80 ms)

    # requests sends an empty stream in chunks, and an empty string with a length.
    data: Any = b"" if isinstance(body, Upload) and not len(body) else body
    try:
        return session.prepare_request(requests.Request(method, url, headers=dict(headers), data=data))
    except (requests.exceptions.RequestException, UnicodeError) as error:
        raise ProtocolError(
            urlsplit(url).netloc.rpartition("@")[2], redact_url(url), status=None, detail="not an address"
        ) from error


def _explain(
    error: BaseException, host: Host, *, answered: bool, proxy: str | None = None, patience: float = READ_TIMEOUT
) -> UnreachableError:
    """Say in words why an exchange failed. The text of *error* is not used: it has whole addresses in it.

    Args:
        error: what requests or urllib3 raised.
        host: whom to name.
        answered: whether the host has answered before; then even a refused connection may be a passing state.
        proxy: the proxy in use.
        patience: how many seconds we waited for a byte.
    """
    import ssl  # noqa: PLC0415  (loaded with requests)

    from requests.exceptions import ProxyError  # noqa: PLC0415  (slow)
    from urllib3.exceptions import NewConnectionError, ReadTimeoutError  # noqa: PLC0415  (loaded with requests)

    causes = _causes(error)

    def find(kind: type[BaseException]) -> Any:
        return next((cause for cause in causes if isinstance(cause, kind)), None)

    insecure_hint = f'set insecure = true for "{host.name}" in registries.conf if that is intended'
    if proxy is not None and find(ProxyError):
        return UnreachableError(
            host.name, f"the proxy {urlsplit(proxy).netloc.rpartition('@')[2]} does not let us through",
            transient=answered, hint="check https_proxy and no_proxy",
        )  # fmt: skip
    if (untrusted := find(ssl.SSLCertVerificationError)) is not None:
        return UnreachableError(
            host.name, f"its TLS certificate is not trusted ({untrusted.verify_message})",
            hint=f"put the certificate of its authority into ~/.config/containers/certs.d/{host.name}/ca.crt, or {insecure_hint}",
        )  # fmt: skip
    handshake = find(ssl.SSLError)
    if handshake is not None and not find(ssl.SSLEOFError):
        if handshake.reason in {
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
            "RECORD_LAYER_FAILURE",
            "PACKET_LENGTH_TOO_LONG",
        }:
            return UnreachableError(host.name, "it does not speak TLS", hint=insecure_hint)
        if handshake.reason is not None:
            reason = handshake.reason.lower().replace("_", " ")
            return UnreachableError(
                host.name, f"the TLS handshake failed ({reason})", hint=f"check certs.d/{host.name}"
            )
    if (unknown := find(socket.gaierror)) is not None:
        if unknown.errno == socket.EAI_AGAIN:
            return UnreachableError(
                host.name, "its name cannot be looked up now", transient=answered, hint="check the network"
            )
        return UnreachableError(host.name, "its name is not known", hint="check the spelling of the registry")
    if find(ConnectionRefusedError):
        return UnreachableError(
            host.name, "connection refused", transient=answered, hint="check the port, and that it runs"
        )
    if find(ReadTimeoutError):
        return UnreachableError(host.name, f"no answer for {patience:.0f} seconds", transient=True)
    if find(NewConnectionError) or find(TimeoutError):
        refusal = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno), None)
        if refusal is not None and refusal.errno is not None:
            return UnreachableError(host.name, os.strerror(refusal.errno).lower(), transient=answered)
        return UnreachableError(host.name, f"no connection within {CONNECT_TIMEOUT:.0f} seconds", transient=answered)
    return UnreachableError(host.name, "the connection broke", transient=True)


def _causes(error: BaseException) -> list[BaseException]:
    """Return *error* and everything it stems from; urllib3 hides causes in arguments and `reason`."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return found
