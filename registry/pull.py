"""Pulling: from a reference to the blobs of one platform's image in a store.

Blobs come first, the manifest that names them last. What the store has already is not fetched, and a connection that
breaks in the middle of a blob is taken up where it broke.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from registry.content.image import MAX_INDEX_DEPTH, Image, choose_manifest, load_image
from registry.errors import (
    BlobTooLargeError,
    ManifestInvalidError,
    NotFoundError,
    SizeMismatchError,
    UnreachableError,
)
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Manifest
from registry.oci.media_types import is_nondistributable
from registry.oci.platform import host_platform
from registry.transfer import CHUNK_SIZE, PROGRESS_STEP, ProgressSink, TransferProgress, run_parallel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.content.store import BlobStore, BlobWriter
    from registry.endpoints import FetchedManifest, Repository
    from registry.oci.descriptor import Descriptor
    from registry.oci.platform import Platform

PARALLEL_BLOBS: Final = 4
"""How many blobs are pulled or pushed at a time."""

_LOG = logging.getLogger("pybuild." + __name__)


def choose_remote(repository: Repository, fetched: FetchedManifest, platform: Platform | None) -> FetchedManifest:
    """Go down from an index to the manifest of *platform*, the machine's own if None; a manifest is returned as it is.

    Raises:
        PlatformMissingError: the index has none for it.
        ManifestInvalidError: indexes within indexes, or a document breaks the specification.
    """
    for _ in range(MAX_INDEX_DEPTH):
        if isinstance(fetched.document, Manifest):
            return fetched
        subject = repository.name
        chosen = choose_manifest(fetched.document, platform or host_platform(), subject=subject)
        fetched = repository.get_manifest(chosen.digest)
        if fetched.descriptor.size != chosen.size:
            subject = repository.subject(chosen.digest)
            raise SizeMismatchError(expected=chosen.size, actual=fetched.descriptor.size, subject=subject)
    raise ManifestInvalidError(subject=f"index of {repository.name}", path="manifests", reason="indexes within indexes")


def pull_image(
    repository: Repository,
    name: str,
    platform: Platform | None,
    store: BlobStore,
    progress: ProgressSink,
    *,
    layers: bool = True,
) -> Image:
    """Pull the image of one platform into a store and return it, checked.

    Args:
        repository: where from.
        name: tag or digest, of a manifest or an index.
        platform: what to choose from an index, the machine's own if None.
        store: gets config, layers and manifest.
        progress: is told.
        layers: False leaves them where they are, for a look at the config.

    Raises:
        RegistryError: as `Repository` says; what was pulled whole by then stays in the store.
    """
    fetched = choose_remote(repository, repository.get_manifest(name), platform)
    manifest = fetched.document
    assert isinstance(manifest, Manifest)  # noqa: S101  (choose_remote ends with one)
    if manifest.config.size > MAX_DOCUMENT_SIZE:
        raise BlobTooLargeError(manifest.config.digest, size=manifest.config.size, limit=MAX_DOCUMENT_SIZE)
    pull_blobs(repository, (manifest.config, *(manifest.layers if layers else ())), store, progress)
    with store.writer() as writer:
        writer.write(fetched.data)
        writer.commit(fetched.descriptor.digest, fetched.descriptor.size)
    return load_image(store, fetched.descriptor)


def pull_blobs(repository: Repository, blobs: Iterable[Descriptor], store: BlobStore, progress: ProgressSink) -> None:
    """Pull blobs into a store, several at a time; what it has already is not fetched.

    Raises:
        RegistryError: as `Repository` says; what was pulled whole by then stays in the store.
    """
    unique = {blob.digest: blob for blob in blobs}
    run_parallel(
        [partial(_pull_blob, repository, blob, store, progress) for blob in unique.values()],
        workers=PARALLEL_BLOBS,
        cancellation=repository.connection.cancellation,
    )


def _pull_blob(repository: Repository, blob: Descriptor, store: BlobStore, progress: ProgressSink) -> None:
    def tell(action: Literal["pull", "exists"], current: int) -> None:
        progress(TransferProgress(digest=blob.digest, action=action, current=current, total=blob.size))

    if store.has(blob.digest) and store.size(blob.digest) == blob.size:
        tell("exists", blob.size)
        return
    sources = _sources(blob)
    for position, url in enumerate(sources):
        # A new writer per source: what another one has sent is not to be trusted.
        with store.writer() as writer:
            try:
                _Download(repository, blob, writer, partial(tell, "pull"), url).run()
            except (NotFoundError, UnreachableError):
                if position == len(sources) - 1:
                    raise
                _LOG.debug("blob %s is not at source %d", blob.digest, position)
            else:
                writer.commit(blob.digest, blob.size)
                return


def _sources(blob: Descriptor) -> list[str | None]:
    """Return where a blob may be: the repository (None), then the addresses of a layer that is not distributed."""
    elsewhere = [url for url in blob.urls if _is_https(url)]
    return [None, *elsewhere] if is_nondistributable(blob.media_type) else [None]


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class _Download:
    """One blob on its way into a writer, across broken connections."""

    def __init__(
        self, repository: Repository, blob: Descriptor, writer: BlobWriter, tell: partial[None], url: str | None
    ) -> None:
        self._repository = repository
        self._blob = blob
        self._writer = writer
        self._tell = tell
        self._url = url
        self._received = 0

    def run(self) -> None:
        """Receive everything that is missing.

        Raises:
            UnreachableError: the connection broke again and again without anything coming through.
            SizeMismatchError: the server sends more than the blob has.
        """
        attempt = 1
        while True:
            before = self._received
            try:
                self._receive()
            except UnreachableError as error:
                if self._received - before >= PROGRESS_STEP:
                    attempt = 1
                if not error.transient or attempt >= self._repository.connection.policy.attempts:
                    raise
                _LOG.debug("blob %s broke off after %d bytes", self._blob.digest, self._received)
                self._repository.connection.pause(attempt)
                attempt += 1
            else:
                return

    def _receive(self) -> None:
        position, answer = self._repository.get_blob(self._blob.digest, start=self._received, url=self._url)
        told = self._received
        with answer:
            while piece := answer.read(CHUNK_SIZE):
                # A server that does not send parts starts over; skip what is here already.
                fresh = memoryview(piece)[max(0, self._received - position) :]
                position += len(piece)
                if position > self._blob.size:
                    subject = self._repository.subject(self._blob.digest)
                    raise SizeMismatchError(expected=self._blob.size, actual=position, subject=subject)
                self._writer.write(fresh)
                self._received += len(fresh)
                if self._received - told >= PROGRESS_STEP:
                    self._tell(self._received)
                    told = self._received
        if self._received < self._blob.size:
            # Without a Content-Length, an early end looks like a regular one.
            raise UnreachableError(self._repository.host, "the connection broke", transient=True)
        self._tell(self._received)
