"""Pulling: from a reference to the blobs of one platform's image in a store.

Blobs come first, the manifest that names them last. What the store has already is not fetched, and a connection that
breaks in the middle of a blob is taken up where it broke.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from registry.content.image import MAX_INDEX_DEPTH, Image, choose_manifest, is_stored, load_image
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
from registry.receive import Reception
from registry.transfer import ProgressSink, TransferProgress, run_parallel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.content.store import BlobStore, BlobWriter
    from registry.endpoints import FetchedManifest, Repository
    from registry.oci.descriptor import Descriptor
    from registry.oci.platform import Platform
    from registry.transport import Answer

OnStart = Callable[["Descriptor", "BlobWriter"], None]
"""Told of a blob that is going to be fetched and of its writer, by the thread that writes, before it does."""

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


def pull_blobs(
    repository: Repository,
    blobs: Iterable[Descriptor],
    store: BlobStore,
    progress: ProgressSink,
    on_start: OnStart | None = None,
) -> None:
    """Pull blobs into a store, several at a time; what it has already is not fetched.

    Args:
        repository: where from.
        blobs: what is wanted; those that come first are begun first.
        store: takes them.
        progress: is told.
        on_start: is told of each blob that is fetched, anew for each place that it is fetched from.

    Raises:
        RegistryError: as `Repository` says; what was pulled whole by then stays in the store.
    """
    unique = {blob.digest: blob for blob in blobs}
    run_parallel(
        [partial(_pull_blob, repository, blob, store, progress, on_start) for blob in unique.values()],
        workers=PARALLEL_BLOBS,
        cancellation=repository.connection.cancellation,
    )


def _pull_blob(
    repository: Repository, blob: Descriptor, store: BlobStore, progress: ProgressSink, on_start: OnStart | None
) -> None:
    def tell(action: Literal["pull", "exists"], current: int) -> None:
        progress(TransferProgress(digest=blob.digest, action=action, current=current, total=blob.size))

    if is_stored(store, blob):
        tell("exists", blob.size)
        return
    sources = _sources(blob)
    for position, url in enumerate(sources):
        # A new writer per source: what another one has sent is not to be trusted.
        with store.writer() as writer:
            if on_start is not None:
                on_start(blob, writer)
            try:
                Reception(
                    blob,
                    writer,
                    partial(_open_at, repository, blob, url),
                    retries=repository.connection.retries,
                    host=repository.host,
                    subject=repository.subject(blob.digest),
                    tell=partial(tell, "pull"),
                ).run()
            except (NotFoundError, UnreachableError):
                if position == len(sources) - 1:
                    raise
                _LOG.debug("blob %s is not at source %d", blob.digest, position)
            else:
                writer.commit(blob.digest, blob.size)
                return


def _open_at(repository: Repository, blob: Descriptor, url: str | None, start: int) -> tuple[int, Answer]:
    return repository.get_blob(blob.digest, start=start, url=url)


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
