"""Pushing: from the blobs of an image or index in a store to a registry.

Children go before parents, so that at no moment a registry has a manifest whose blobs it lacks. A failure that leaves
open whether the registry has a blob is settled by asking it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from registry.content.image import MAX_INDEX_DEPTH
from registry.errors import (
    AccessDeniedError,
    ManifestInvalidError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RegistryError,
    UnreachableError,
)
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Index, Manifest, parse_manifest
from registry.oci.media_types import is_nondistributable
from registry.pull import PARALLEL_BLOBS
from registry.transfer import PROGRESS_STEP, ProgressSink, TransferProgress, run_parallel
from registry.transport import Upload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from registry.content.store import BlobStore
    from registry.endpoints import Repository
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest

_LOG = logging.getLogger("pybuild." + __name__)
_PASSING: Final = (UnreachableError, NotFoundError, ProtocolError, RateLimitedError)


def push_image(
    repository: Repository,
    name: str,
    descriptor: Descriptor,
    store: BlobStore,
    *,
    mount_from: Mapping[Digest, str],
    progress: ProgressSink,
) -> None:
    """Push a manifest or index with everything below it, and name it last.

    Args:
        repository: where to.
        name: tag or digest it gets.
        descriptor: of the manifest or index.
        store: has all blobs.
        mount_from: repositories on the same registry that are known to have a blob.
        progress: is told.

    Raises:
        BlobMissingError: a blob is not in the store.
        ManifestInvalidError: a document breaks the specification.
        RegistryError: as `Repository` says.
    """
    documents: dict[Digest, tuple[Descriptor, bytes]] = {}
    blobs: dict[Digest, Descriptor] = {}
    _collect(descriptor, store, documents, blobs, depth=0)
    push_blobs(repository, blobs.values(), store, mount_from=mount_from, progress=progress)
    for child, data in documents.values():
        target = name if child.digest == descriptor.digest else child.digest
        repository.put_manifest(target, data, media_type=child.media_type, digest=child.digest)


def push_blobs(
    repository: Repository,
    blobs: Iterable[Descriptor],
    store: BlobStore,
    *,
    mount_from: Mapping[Digest, str],
    progress: ProgressSink,
) -> None:
    """Push blobs, several at a time; those that the repository has are not sent. The rest is as for `push_image`."""
    run_parallel(
        [partial(_push_blob, repository, blob, store, mount_from, progress) for blob in blobs],
        workers=PARALLEL_BLOBS,
        cancellation=repository.connection.cancellation,
    )


def _collect(
    descriptor: Descriptor,
    store: BlobStore,
    documents: dict[Digest, tuple[Descriptor, bytes]],
    blobs: dict[Digest, Descriptor],
    *,
    depth: int,
) -> None:
    """List every document below *descriptor*, children first, and every blob they name."""
    if depth > MAX_INDEX_DEPTH:
        subject = f"index {descriptor.digest}"
        raise ManifestInvalidError(subject=subject, path="manifests", reason="indexes within indexes")
    if descriptor.digest in documents:
        return
    data = store.read_bytes(descriptor.digest, limit=MAX_DOCUMENT_SIZE)
    match parse_manifest(data, descriptor.media_type, subject=f"manifest {descriptor.digest}"):
        case Index(manifests=children):
            for child in children:
                _collect(child, store, documents, blobs, depth=depth + 1)
        case Manifest(config=config, layers=layers):
            for blob in (config, *layers):
                if not (is_nondistributable(blob.media_type) and blob.urls):
                    blobs[blob.digest] = blob
    documents[descriptor.digest] = (descriptor, data)


def _push_blob(
    repository: Repository,
    blob: Descriptor,
    store: BlobStore,
    mount_from: Mapping[Digest, str],
    progress: ProgressSink,
) -> None:
    def tell(action: Literal["push", "mount", "exists"], current: int) -> None:
        progress(TransferProgress(digest=blob.digest, action=action, current=current, total=blob.size))

    if repository.has_blob(blob.digest):
        tell("exists", blob.size)
        return
    location: str | None = None
    source = mount_from.get(blob.digest)
    if source is not None and source != repository.connection.endpoint.repository:
        try:
            location = repository.mount_blob(blob.digest, source=source)
        except (AccessDeniedError, NotFoundError, ProtocolError) as error:
            # Registries differ in what they do where they cannot mount; sending the bytes always works.
            _LOG.debug("blob %s cannot be mounted from %s: %s", blob.digest, source, error.message)
        else:
            if location is None:
                tell("mount", blob.size)
                return
    _upload(repository, blob, store, partial(tell, "push"), location)


def _upload(
    repository: Repository, blob: Descriptor, store: BlobStore, tell: partial[None], location: str | None
) -> None:
    connection = repository.connection
    told = 0

    def advance(sent: int) -> None:
        nonlocal told
        if sent < told or sent - told >= PROGRESS_STEP:
            tell(sent)
            told = sent

    body = Upload(
        lambda: store.open_verified(blob.digest, size=blob.size),
        size=blob.size,
        advance=advance,
        cancellation=connection.cancellation,
    )
    attempt = 1
    while True:
        try:
            repository.finish_upload(location or repository.start_upload(blob.digest), blob.digest, body)
        except _PASSING as error:
            if not _may_pass(error, connection.retries.policy.longest_wait):
                raise
            # The answer may have been lost after the registry had stored everything.
            if repository.has_blob(blob.digest):
                break
            if attempt >= connection.retries.policy.attempts:
                raise
            _LOG.debug("upload of %s failed, attempt %d: %s", blob.digest, attempt, error.message)
            connection.retries.pause(attempt, wanted=error.seconds if isinstance(error, RateLimitedError) else None)
            attempt += 1
            location = None
        else:
            break
    tell(blob.size)


def _may_pass(error: RegistryError, longest_wait: float) -> bool:
    """Tell whether a new upload may fare better: the connection broke, the server failed, the session was lost."""
    match error:
        case UnreachableError(transient=transient):
            return transient
        case ProtocolError(status=int(status)):
            return status >= 500 or status in {408, 416}
        case RateLimitedError(seconds=seconds):
            return seconds is None or seconds <= longest_wait
        case _:
            return isinstance(error, NotFoundError)
