"""The client: what the rest of the program does with registries."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self, TypeVar

from registry.auth.keychain import Credentials, Keychain, OneLogin
from registry.auth.tokens import Authenticator
from registry.connection import Connection
from registry.content.image import Image
from registry.endpoints import FetchedManifest, Repository
from registry.errors import (
    AccessDeniedError,
    BlobTooLargeError,
    DigestMismatchError,
    ManifestInvalidError,
    NotFoundError,
    PlatformMissingError,
    ProtocolError,
    RateLimitedError,
    ReferenceInvalidError,
    SizeMismatchError,
    UnreachableError,
)
from registry.hosts import Endpoint
from registry.oci.manifest import MAX_DOCUMENT_SIZE
from registry.oci.media_types import is_index
from registry.oci.reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY
from registry.pull import OnStart, choose_remote, pull_blobs, pull_image
from registry.push import push_blobs, push_image
from registry.retries import Pacing, Retries
from registry.transfer import Cancellation
from registry.transport import READ_TIMEOUT, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from registry.actions_cache import ActionsCache
    from registry.content.store import BlobStore
    from registry.download import Downloaded
    from registry.hosts import RegistrySettings
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference
    from registry.s3 import Bucket
    from registry.storage import BlobStorage
    from registry.transfer import ProgressSink, TransferProgress

_LOG = logging.getLogger("pybuild." + __name__)
_Result = TypeVar("_Result")

_NEXT_MIRROR: Final = (
    AccessDeniedError,
    BlobTooLargeError,
    DigestMismatchError,
    ManifestInvalidError,
    NotFoundError,
    PlatformMissingError,
    ProtocolError,
    RateLimitedError,
    SizeMismatchError,
    UnreachableError,
)
"""What a mirror may do wrong without the pull failing. What goes wrong on this machine is not among it."""


class RegistryClient:
    """Talks to registries. Safe to use from any thread; connections and tokens are shared by all calls.

    Args:
        settings: which hosts, how they are trusted, and where credentials are.
        environment: gives the proxies and what credential helpers are started with.
        progress: is told how blobs get on, from several threads but one at a time.
        pacing: how retries are carried out.
        clock: monotonic seconds, for the life of tokens.
        authenticator: has the tokens; None begins without any.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        environment: Mapping[str, str],
        progress: ProgressSink | None = None,
        pacing: Pacing | None = None,
        clock: Callable[[], float] = time.monotonic,
        authenticator: Authenticator | None = None,
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._progress = progress
        self._pacing = pacing or Pacing()
        self._clock = clock
        self._lock = threading.Lock()
        self._progress_lock = threading.Lock()
        self._running: set[Cancellation] = set()
        self._authenticator = authenticator or Authenticator(
            Keychain(settings.auth_files, environment=environment), clock=clock
        )
        self._transport = Transport(
            certificate_directories=settings.certificate_directories,
            environment=environment,
            clock=self._pacing.wall_clock,
        )

    def another(self, progress: ProgressSink | None = None) -> RegistryClient:
        """Make a client with other connections that need not sign in again where this one has; it may be closed by then.

        Args:
            progress: as of this one.
        """
        return RegistryClient(
            self._settings,
            environment=self._environment,
            progress=progress,
            pacing=self._pacing,
            clock=self._clock,
            authenticator=self._authenticator,
        )

    def resolve(self, reference: Reference, platform: Platform | None = None) -> Descriptor:
        """Return the descriptor that a reference stands for now, at the price of one small request if possible.

        Args:
            reference: its digest wins over its tag.
            platform: what to choose from an index; None returns the index itself.

        Raises:
            NotFoundError: the registry does not have it.
            PlatformMissingError: the index has nothing for *platform*.
            RegistryError: it cannot be reached, denies access, or does not keep to the protocol.
        """

        def work(repository: Repository) -> Descriptor:
            name = _remote_name(reference)
            descriptor = repository.head_manifest(name)
            if descriptor is not None and (platform is None or not is_index(descriptor.media_type)):
                return descriptor
            fetched = repository.get_manifest(name)
            return fetched.descriptor if platform is None else choose_remote(repository, fetched, platform).descriptor

        return self._from_first(reference, work)

    def fetch_manifest(self, reference: Reference) -> FetchedManifest:
        """Return a manifest or index as the registry has it, verified; `data` and `descriptor` come first.

        Raises:
            NotFoundError: the registry does not have it.
            RegistryError: as `resolve`.
        """
        return self._from_first(reference, lambda repository: repository.get_manifest(_remote_name(reference)))

    def pull(self, reference: Reference, platform: Platform | None, store: BlobStore, *, layers: bool = True) -> Image:
        """Put the image of one platform into a store and return it; `descriptor` names the platform's manifest.

        Args:
            reference: its digest wins over its tag.
            platform: what to choose from an index, the machine's own if None.
            store: what it has already is not fetched; what was fetched whole stays, also after a failure.
            layers: False leaves the layers where they are, for a look at the config.

        Raises:
            NotFoundError: the registry does not have it.
            PlatformMissingError: the index has nothing for *platform*.
            ContentError: bytes are not what they were announced as, or the store cannot be written.
            RegistryError: as `resolve`.
        """

        def work(repository: Repository) -> Image:
            return pull_image(repository, _remote_name(reference), platform, store, self._tell, layers=layers)

        return self._from_first(reference, work)

    def pull_blobs(
        self,
        reference: Reference,
        blobs: Iterable[Descriptor],
        store: BlobStore,
        *,
        on_start: OnStart | None = None,
    ) -> None:
        """Put blobs of a repository into a store, verified.

        Args:
            reference: the repository; its tag and digest do not count.
            blobs: what is wanted.
            store: what it has already is not fetched; what was fetched whole stays, also after a failure.
            on_start: is told of each blob that is fetched and of its writer, anew for each place that it comes from.

        Raises:
            NotFoundError: the registry does not have one.
            ContentError: bytes are not what they were announced as, or the store cannot be written.
            RegistryError: as `resolve`.
        """
        wanted = tuple(blobs)
        self._from_first(reference, lambda repository: pull_blobs(repository, wanted, store, self._tell, on_start))

    def has_blob(self, reference: Reference, digest: Digest) -> bool:
        """Ask the repository that a push would go to for a blob.

        Raises:
            RegistryError: as `resolve`.
        """
        with self._open(self._settings.push_endpoint(reference), self._authenticator) as repository:
            return repository.has_blob(digest)

    def push_blobs(
        self,
        reference: Reference,
        blobs: Iterable[Descriptor],
        store: BlobStore,
        *,
        mount_from: Mapping[Digest, str] | None = None,
    ) -> None:
        """Send blobs to a repository, for a manifest that is still to come; `push` says the rest.

        Args:
            reference: the repository; its tag and digest do not count.
            blobs: what is sent, unless the repository has it.
            store: has them.
            mount_from: as of `push`.
        """
        with self._open(self._settings.push_endpoint(reference), self._authenticator) as repository:
            push_blobs(repository, blobs, store, mount_from=mount_from or {}, progress=self._tell)

    def push_manifest(self, reference: Reference, manifest: Descriptor, store: BlobStore) -> None:
        """Name a manifest whose blobs are in the repository already.

        Raises:
            BlobMissingError: the store lacks the manifest.
            RegistryError: as `resolve`.
        """
        data = store.read_bytes(manifest.digest, limit=MAX_DOCUMENT_SIZE)
        with self._open(self._settings.push_endpoint(reference), self._authenticator) as repository:
            name = reference.tag or _remote_name(reference)
            repository.put_manifest(name, data, media_type=manifest.media_type, digest=manifest.digest)

    def push(
        self,
        image: Image | Descriptor,
        reference: Reference,
        store: BlobStore,
        *,
        mount_from: Mapping[Digest, str] | None = None,
    ) -> Descriptor:
        """Send an image, or an index with all its images, and return the descriptor of what was named.

        Args:
            image: an image, or the descriptor of a manifest or index.
            reference: the name it gets; a digest in it must be the image's own.
            store: has every blob.
            mount_from: for blobs that are known to be in another repository of the same registry, that repository;
                they are linked there instead of sent, if the registry can.

        Raises:
            ReferenceInvalidError: the reference names another digest.
            BlobMissingError: the store lacks a blob.
            RegistryError: as `resolve`.
        """
        descriptor = image.descriptor if isinstance(image, Image) else image
        if reference.digest not in {None, descriptor.digest}:
            reason = f"the image has the digest {descriptor.digest}"
            raise ReferenceInvalidError(reference.familiar(), reason, hint="push to a tag")
        endpoint = self._settings.push_endpoint(reference)
        try:
            with self._open(endpoint, self._authenticator) as repository:
                push_image(
                    repository,
                    reference.tag or _remote_name(reference),
                    descriptor,
                    store,
                    mount_from=mount_from or {},
                    progress=self._tell,
                )
        except AccessDeniedError as error:
            if reference.registry == DEFAULT_REGISTRY and _is_official(reference):
                error.hint = f"{reference.familiar_name()} is kept for Docker's own images, push to YOU/NAME"
            raise
        return descriptor

    def check_credentials(self, host: str, username: str, password: str) -> None:
        """Find out whether a registry takes a user name and password. A registry that asks for none takes any.

        Args:
            host: `host[:port]` as written in references.
            username: of the account.
            password: or an access token that stands for one.

        Raises:
            AccessDeniedError: it does not take them.
            RegistryError: as `resolve`.
        """
        login = OneLogin(Credentials(source="this login", username=username, password=password))
        endpoint = Endpoint(host=self._settings.find_host(host), repository="")
        with self._open(endpoint, Authenticator(login, clock=self._clock)) as repository:
            try:
                repository.ping()
            except AccessDeniedError as error:
                error.hint = "check user name and password; some registries want an access token instead"
                raise

    def download(
        self,
        url: str,
        store: BlobStore,
        *,
        etag: str = "",
        modified: str = "",
        authorization: str = "",
        limit: int | None = None,
    ) -> Downloaded | None:
        """Fetch the body of an ordinary address into a store; None if it still has these validators.

        Args:
            url: http or https; credentials in it are used.
            store: takes the body.
            etag: what the server said when it was asked last, empty if it said nothing.
            modified: its Last-Modified, as *etag*.
            authorization: a header for the origin of the address; credentials in that win over it.
            limit: bytes that the body may have at most.

        Raises:
            DownloadError: it cannot be had.
            StoreFullError: no space is left.
        """
        from registry.download import download  # noqa: PLC0415  (registries alone do not need it)

        with self._cancellation() as cancellation:
            return download(
                url,
                store,
                transport=self._transport,
                pacing=self._pacing,
                cancellation=cancellation,
                progress=self._tell,
                etag=etag,
                modified=modified,
                authorization=authorization,
                limit=limit,
            )

    @contextmanager
    def storage(self, place: Bucket | ActionsCache) -> Iterator[BlobStorage]:
        """Give a place in an object store for the time of the block, which methods that take too long end.

        Raises:
            StorageError: as `BlobStorage` says, or the block took longer than the place allows.
        """
        from registry.actions_cache import ActionsCache, ActionsStorage  # noqa: PLC0415  (registries do not need it)
        from registry.s3 import S3Storage  # noqa: PLC0415  (as above)
        from registry.storage import Exchange, limited  # noqa: PLC0415  (as above)

        with self._cancellation() as cancellation:
            patience = min(READ_TIMEOUT, place.timeout) if isinstance(place, ActionsCache) else READ_TIMEOUT
            exchange = Exchange(
                self._transport,
                retries=Retries(self._pacing, cancellation),
                cancellation=cancellation,
                progress=self._tell,
                patience=patience,
            )
            if isinstance(place, ActionsCache):
                with limited(cancellation, place.timeout, name=str(place)):
                    yield ActionsStorage(place, exchange)
            else:
                yield S3Storage(place, exchange, self._pacing.wall_clock)

    def cancel(self) -> None:
        """Make all calls that run in other threads fail soon with TransferCancelledError."""
        with self._lock:
            running = tuple(self._running)
        for each in running:
            each.cancel()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _from_first(self, reference: Reference, work: Callable[[Repository], _Result]) -> _Result:
        """Do *work* on the first endpoint on which it succeeds."""
        *mirrors, origin = self._settings.pull_endpoints(reference)
        for endpoint in mirrors:
            try:
                with self._open(endpoint, self._authenticator) as repository:
                    return work(repository)
            except _NEXT_MIRROR as error:
                _LOG.debug("mirror %s is passed over: %s", endpoint.host.name, error.message)
        with self._open(origin, self._authenticator) as repository:
            return work(repository)

    @contextmanager
    def _open(self, endpoint: Endpoint, authenticator: Authenticator) -> Iterator[Repository]:
        with self._cancellation() as cancellation:
            connection = Connection(
                endpoint,
                transport=self._transport,
                authenticator=authenticator,
                pacing=self._pacing,
                cancellation=cancellation,
            )
            yield Repository(connection)

    @contextmanager
    def _cancellation(self) -> Iterator[Cancellation]:
        """Give a cancellation that `cancel` reaches for the time of the block."""
        cancellation = Cancellation()
        with self._lock:
            self._running.add(cancellation)
        try:
            yield cancellation
        finally:
            with self._lock:
                self._running.discard(cancellation)

    def _tell(self, event: TransferProgress) -> None:
        if self._progress is not None:
            with self._progress_lock:
                self._progress(event)


def _remote_name(reference: Reference) -> str:
    return reference.digest or reference.tag or "latest"


def _is_official(reference: Reference) -> bool:
    return reference.repository.startswith(f"{DEFAULT_NAMESPACE}/")
