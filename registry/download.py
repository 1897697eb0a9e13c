"""Downloads: the body of an ordinary HTTP(S) address into a blob store.

A *validator* is what a server said about a body it sent, ETag and Last-Modified; with them it is asked again and
answers that nothing changed. Credentials come with or in the address and go to its own origin only; from https
nothing leads to http. Texts for people never hold user, password or query.

Source: RFC 9110, sections 8.8 (validators), 13.1 (preconditions) and 15.4 (redirects).
"""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from registry.connection import MAX_REDIRECTS, is_same_origin
from registry.errors import DownloadError, UnreachableError
from registry.hosts import Host
from registry.retries import TRANSIENT
from registry.transfer import CHUNK_SIZE, PROGRESS_STEP, TransferProgress
from registry.transport import redact_url
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.content.store import BlobStore
    from registry.oci.digest import Digest
    from registry.retries import Pacing
    from registry.transfer import Cancellation, ProgressSink
    from registry.transport import Answer, Transport

_LOG = logging.getLogger("pybuild." + __name__)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NOT_MODIFIED: Final = 304


@frozen
class Downloaded:
    """A body that was stored: *digest* and *size*, and the validators *etag* and *modified*, empty if there are none."""

    digest: Digest
    size: int
    etag: str = ""
    modified: str = ""


def download(
    url: str,
    store: BlobStore,
    *,
    transport: Transport,
    pacing: Pacing,
    cancellation: Cancellation,
    progress: ProgressSink,
    etag: str = "",
    modified: str = "",
    authorization: str = "",
    limit: int | None = None,
) -> Downloaded | None:
    """Fetch a body into a store; None if it is still the one with these validators.

    Args:
        url: http or https, credentials in it are used.
        store: takes the body.
        transport: sends requests.
        pacing: how often and how patiently it is tried.
        cancellation: ends it.
        progress: told how far it is, under the address without secrets.
        etag: what the server said when it was asked last.
        modified: as *etag*.
        authorization: a header for the origin of the address; user and password in that win over it.
        limit: bytes that the body may have at most, None for any number.

    Raises:
        DownloadError: it cannot be had.
        StoreFullError: no space is left.
    """
    headers = {}
    if etag:
        headers["If-None-Match"] = etag
    elif modified:
        headers["If-Modified-Since"] = modified
    attempt = 1
    while True:
        is_last = attempt >= pacing.policy.attempts
        try:
            with _follow(url, headers, authorization, transport, cancellation) as answer:
                if is_last or answer.status not in TRANSIENT:
                    if answer.status == _NOT_MODIFIED and headers:
                        return None
                    if answer.status != 200:
                        reason = f"invalid response status {answer.status}"
                        raise DownloadError(redact_url(url), reason, status=answer.status)
                    return _store_body(url, answer, store, limit, progress)
        except UnreachableError as error:
            if is_last or not error.transient:
                raise DownloadError(redact_url(url), error.cause, hint=error.hint) from error
        _LOG.debug("attempt %d for %s failed", attempt, redact_url(url))
        seconds = pacing.policy.delay(attempt, pacing.chance())
        pacing.pause(cancellation, seconds)
        attempt += 1


def _follow(
    url: str, headers: Mapping[str, str], given: str, transport: Transport, cancellation: Cancellation
) -> Answer:
    """Send, and follow redirects; on another origin the credentials stay behind."""
    origin, authorization = _split_credentials(url)
    authorization = authorization or given
    at = origin
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(at)
        if not parts.hostname:
            raise DownloadError(redact_url(url), "the address names no host")
        own = authorization if authorization and is_same_origin(at, origin) else None
        answer = transport.exchange(
            "GET",
            at,
            host=Host(parts.netloc),
            headers={**headers, "Authorization": own} if own else headers,
            cancellation=cancellation,
        )
        location = answer.header("Location")
        if answer.status not in _REDIRECTS or not location:
            return answer
        answer.close()
        try:
            target, _ = _split_credentials(urljoin(at, location))
            is_same_origin(target, origin)  # reads the port
        except ValueError as error:
            raise DownloadError(redact_url(url), "it redirects to something that is no address") from error
        wanted = urlsplit(target).scheme
        if wanted not in {"http", "https"} or (parts.scheme == "https" and wanted != "https"):
            raise DownloadError(redact_url(url), f"it redirects from {parts.scheme} to {wanted or 'nowhere'}")
        at = target
    raise DownloadError(redact_url(url), "it redirects in circles")


def _split_credentials(url: str) -> tuple[str, str | None]:
    """Take user and password out of an address; return it and the header they make."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    clean = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    if not at:
        return clean, None
    user, _, password = userinfo.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return clean, f"Basic {base64.b64encode(pair).decode('ascii')}"


def _store_body(url: str, answer: Answer, store: BlobStore, limit: int | None, progress: ProgressSink) -> Downloaded:
    announced = answer.header("Content-Length") or ""
    total = int(announced) if announced.isdecimal() else 0
    shown = redact_url(url)
    count = told = 0
    with store.writer() as writer:
        while data := answer.read(CHUNK_SIZE):
            count += len(data)
            if limit is not None and count > limit:
                raise DownloadError(shown, f"it is longer than {limit} bytes")
            writer.write(data)
            if count - told >= PROGRESS_STEP:
                told = count
                progress(_progress(shown, count, max(total, count)))
        if announced and count != total:
            raise UnreachableError(urlsplit(url).hostname or "", "the connection ended early", transient=True)
        info = writer.commit()
    progress(_progress(shown, count, count))
    return Downloaded(
        digest=info.digest,
        size=info.size,
        etag=answer.header("ETag") or "",
        modified=answer.header("Last-Modified") or "",
    )


def _progress(name: str, current: int, total: int) -> TransferProgress:
    return TransferProgress(digest=name, action="pull", current=current, total=total)
