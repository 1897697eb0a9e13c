"""Storage outside of registries: blobs by digest, and a document under a name, in an object store.

`BlobStorage` is the seam; `registry.s3` and `registry.actions_cache` are behind it. What they share is here: requests
that are tried again, and blobs several at a time.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol
from urllib.parse import urlsplit

from registry.errors import NotFoundError, ProtocolError, StorageError, UnreachableError
from registry.hosts import Host
from registry.receive import Reception
from registry.transfer import PROGRESS_STEP, ProgressSink, TransferCancelledError, TransferProgress, run_parallel
from registry.transport import READ_TIMEOUT, Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from registry.content.store import BlobStore
    from registry.errors import RegistryError
    from registry.oci.descriptor import Descriptor
    from registry.retries import Retries
    from registry.transfer import Cancellation
    from registry.transport import Answer, Transport

_MAX_ERROR_BODY: Final = 64 * 1024
_MAX_DETAIL: Final = 200
_XML_ERROR = re.compile(r"<(?:Code|Message)>([^<]*)<")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-", re.ASCII)


class BlobStorage(Protocol):
    """One place in an object store. Safe to use from any thread."""

    name: str
    """What messages call it."""

    exchange: Exchange
    """What its requests go through."""

    parallelism: int
    """How many blobs are moved at a time."""

    def get_document(self, *, limit: int) -> bytes:
        """Return what lies under the name.

        Raises:
            NotFoundError: nothing does.
            StorageError: it cannot be had, or is longer than *limit*.
        """
        ...

    def put_document(self, data: bytes) -> None:
        """Put a document under the name; readers see the older one or the new one.

        Raises:
            StorageError: it cannot be written.
        """
        ...

    def has_blob(self, blob: Descriptor) -> bool:
        """Ask for a blob, and keep one that is there from being tidied up for its age.

        Raises:
            StorageError: the storage does not say.
        """
        ...

    def get_blob(self, blob: Descriptor, start: int) -> tuple[int, Answer]:
        """Ask for a blob from a byte on; return the position of the first byte that comes, and the open answer.

        Raises:
            NotFoundError: it is not there.
            StorageError: it cannot be had.
        """
        ...

    def put_blob(self, blob: Descriptor, body: Upload) -> None:
        """Store a blob that was not there; readers see all of it or nothing.

        Raises:
            StorageError: it cannot be written.
        """
        ...


class Exchange:
    """Requests to object stores, with retries and without redirects. Safe to use from any thread.

    Args:
        transport: sends them.
        retries: how often and how patiently.
        cancellation: ends them.
        progress: is told how blobs get on.
        patience: seconds without a single byte after which an answer is given up.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        retries: Retries,
        cancellation: Cancellation,
        progress: ProgressSink,
        patience: float = READ_TIMEOUT,
    ) -> None:
        self._patience = patience
        self.retries = retries
        self.cancellation = cancellation
        self.progress = progress
        self._transport = transport

    def request(
        self,
        method: str,
        url: str,
        *,
        subject: str,
        accept: Collection[int],
        headers: Callable[[], Mapping[str, str]],
        body: bytes | Upload | None = None,
    ) -> Answer:
        """Send a request until there is an answer to keep, and return it.

        Args:
            method: of HTTP.
            url: where to; what it has as query is no one's business.
            subject: what it is about, for errors.
            accept: the status codes the caller understands.
            headers: makes those of one attempt, credentials included.
            body: is read again for every attempt.

        Raises:
            NotFoundError: the answer is 404, and that is none to keep.
            StorageError: another status, or no answer.
            TransferCancelledError: the work was given up.
        """
        address = urlsplit(url).netloc

        def send() -> Answer:
            return self._transport.exchange(
                method,
                url,
                host=Host(address),
                headers=headers(),
                body=body,
                cancellation=self.cancellation,
                patience=self._patience,
            )

        try:
            answer = self.retries.persist(send, subject=subject)
        except UnreachableError as error:
            raise StorageError(address, subject, cause=error.cause, hint=error.hint) from error
        except ProtocolError as error:
            raise StorageError(address, subject, cause=error.detail) from error
        if answer.status in accept:
            return answer
        raise self._refusal(answer, address, subject)

    def _refusal(self, answer: Answer, address: str, subject: str) -> RegistryError:
        if answer.status == 404:
            answer.close()
            return NotFoundError(address, subject)
        seconds = self.retries.read_retry_after(answer)
        detail = _read_detail(answer)
        if answer.status == 429:
            detail = "too many requests" + (f", wait {seconds:.0f} seconds" if seconds is not None else "")
        elif answer.status in {401, 403}:
            detail = "access is denied" + (f" ({detail})" if detail else "")
        return StorageError(address, subject, cause=detail or "it gives no reason", status=answer.status)


@contextmanager
def limited(cancellation: Cancellation, seconds: float, *, name: str) -> Iterator[None]:
    """Cancel what runs in the block when it takes too long.

    Args:
        cancellation: of the work.
        seconds: that it may take.
        name: of the storage, for the error.

    Raises:
        StorageError: it took longer.
    """
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        cancellation.cancel()

    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        yield
    except TransferCancelledError as error:
        if expired.is_set():
            raise StorageError(name, "cache", cause=f"it took longer than {seconds:.0f} seconds") from error
        raise
    finally:
        timer.cancel()
        timer.join()  # a process that forks has one thread


def read_position(answer: Answer, start: int, subject: str) -> int:
    """Return the position of the first byte that an answer to a request for *start* brings.

    Raises:
        StorageError: it is another part.
    """
    if answer.status == 200:
        return 0
    match = _CONTENT_RANGE.match(answer.header("Content-Range") or "")
    if match is None or int(match[1]) != start:
        answer.close()
        address = urlsplit(answer.url).netloc
        raise StorageError(address, subject, cause="it sends another part than asked for", status=answer.status)
    return start


def fetch_blobs(storage: BlobStorage, blobs: Iterable[Descriptor], store: BlobStore) -> None:
    """Bring blobs into a store, several at a time, verified; what it has already is not fetched.

    Raises:
        RegistryError: as `BlobStorage` says; what came whole by then stays in the store.
    """
    unique = {blob.digest: blob for blob in blobs if not store.has(blob.digest)}
    run_parallel(
        [partial(_fetch_blob, storage, blob, store) for blob in unique.values()],
        workers=storage.parallelism,
        cancellation=storage.exchange.cancellation,
    )


def put_blobs(storage: BlobStorage, blobs: Iterable[Descriptor], store: BlobStore) -> None:
    """Bring blobs of a store to a storage, several at a time; those that it has are not sent.

    Raises:
        RegistryError: as `BlobStorage` says.
    """
    unique = {blob.digest: blob for blob in blobs}
    run_parallel(
        [partial(_put_blob, storage, blob, store) for blob in unique.values()],
        workers=storage.parallelism,
        cancellation=storage.exchange.cancellation,
    )


def _fetch_blob(storage: BlobStorage, blob: Descriptor, store: BlobStore) -> None:
    exchange = storage.exchange
    with store.writer() as writer:
        try:
            Reception(
                blob,
                writer,
                partial(storage.get_blob, blob),
                retries=exchange.retries,
                host=storage.name,
                subject=blob.digest,
                tell=partial(_tell, exchange.progress, blob, "pull"),
            ).run()
        except UnreachableError as error:
            raise StorageError(error.host, blob.digest, cause=error.cause, hint=error.hint) from error
        writer.commit(blob.digest, blob.size)


def _put_blob(storage: BlobStorage, blob: Descriptor, store: BlobStore) -> None:
    exchange = storage.exchange
    if storage.has_blob(blob):
        _tell(exchange.progress, blob, "exists", blob.size)
        return
    told = 0

    def advance(sent: int) -> None:
        nonlocal told
        if sent < told or sent - told >= PROGRESS_STEP:
            _tell(exchange.progress, blob, "push", sent)
            told = sent

    body = Upload(
        lambda: store.open_verified(blob.digest, size=blob.size),
        size=blob.size,
        advance=advance,
        cancellation=exchange.cancellation,
    )
    storage.put_blob(blob, body)
    _tell(exchange.progress, blob, "push", blob.size)


def _tell(progress: ProgressSink, blob: Descriptor, action: Literal["pull", "push", "exists"], current: int) -> None:
    progress(TransferProgress(digest=blob.digest, action=action, current=current, total=blob.size))


def _read_detail(answer: Answer) -> str:
    """Return what a refusal says, as one line for people: XML of S3 and Azure, or JSON of Twirp."""
    try:
        text = (answer.read_all(limit=_MAX_ERROR_BODY) or b"").decode("utf-8", "replace")
    except UnreachableError:
        return ""
    found = _XML_ERROR.findall(text)
    if not found:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            found = [str(document[name]) for name in ("code", "msg") if document.get(name)]
    line = "".join(each if each.isprintable() else " " for each in ", ".join(filter(None, found)))
    return line[:_MAX_DETAIL]
