"""Layers of base images that are still in their registry.

A build is planned with the manifest and the config of a base alone. Its layers *arrive* when they are asked for: a step
needs the files, or the result is made of them. So the base of a stage that is answered from the cache is not fetched.

All missing layers of an image are fetched together, once among all builds of a store, by threads of their own. A layer
can be read from its first bytes on; only who reads it to the end has read what its digest names.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import BaseImageError, BuildError
from registry.content.image import is_stored, missing_blobs
from registry.errors import RegistryError, StoreFullError
from registry.oci.digest import digest_hex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from builder.cache.turns import Turns
    from builder.source import Span
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.content.growing import GrowingBlob
    from registry.content.image import Image
    from registry.content.store import BlobWriter
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.reference import Reference

    Keep = Callable[[Image, Reference], None]
    """Lists an image whose blobs are all in the store under its name."""

    Connecting = Callable[[str], AbstractContextManager[RegistryClient]]
    """Gives a registry client that shows its transfers as a piece of work of this name."""


class Arrivals:
    """The images that a build may have to fetch. Used from many threads; close it.

    Args:
        store: takes the layers.
        connecting: gives a client for each image that is fetched.
        keep: lists it when it is whole.
    """

    def __init__(self, store: Store, connecting: Connecting, keep: Keep) -> None:
        self._store = store
        self._connecting = connecting
        self._keep = keep
        self._guard = threading.Lock()
        self._arrivals: dict[Digest, _Arrival] = {}
        self._by_blob: dict[Digest, _Arrival] = {}

    def add(self, image: Image, reference: Reference, span: Span | None) -> None:
        """Take note of an image whose documents are in the store, and whose layers are not.

        Args:
            image: of one platform.
            reference: where it is, and what it is called once it is whole.
            span: where it is asked for, for errors.
        """
        if image.descriptor.digest in self._arrivals:
            return
        arrival = self._arrivals[image.descriptor.digest] = _Arrival(image, reference, span)
        for blob in image.manifest.layers:
            self._by_blob.setdefault(blob.digest, arrival)

    def awaits(self, blob: Descriptor) -> bool:
        """Tell whether a blob is not stored and can be had."""
        return blob.digest in self._by_blob and not is_stored(self._store.blobs, blob)

    def follow(self, blob: Descriptor, turns: Turns) -> BinaryIO | None:
        """Open a blob that is awaited; None if there is nothing to read before `wait` has returned.

        Returns:
            A reader that waits for what is not there yet. It is at its end when the blob is stored, verified; if that
            fails, reading raises BlobAbandonedError, and `wait` tells why or has it from another place.
        """
        arrival = self._by_blob[blob.digest]
        self._begin(arrival, turns)
        return arrival.open(blob.digest)

    def wait(self, blob: Descriptor, turns: Turns) -> None:
        """Wait until a blob that is awaited is stored.

        Raises:
            BaseImageError: it cannot be fetched.
            StoreFullError: no space is left.
        """
        arrival = self._by_blob[blob.digest]
        self._begin(arrival, turns)
        arrival.wait()

    def fetch(self, image: Image, turns: Turns) -> None:
        """Have an image in the store, whole and under its name; nothing happens to one that was not added.

        Raises:
            BaseImageError: it cannot be fetched.
            StoreFullError: no space is left.
        """
        arrival = self._arrivals.get(image.descriptor.digest)
        if arrival is not None:
            self._begin(arrival, turns)
            arrival.wait()

    def cancel(self) -> None:
        """Fetch nothing any more, now or later; who waits gets an error soon."""
        for arrival in self._arrivals.values():
            arrival.cancel()

    def close(self) -> None:
        """Cancel what is still fetched, and wait until its threads have ended. Idempotent."""
        self.cancel()
        for arrival in self._arrivals.values():
            arrival.join()

    def _begin(self, arrival: _Arrival, turns: Turns) -> None:
        with self._guard:
            if arrival.thread is None:
                # A daemon, so that it cannot keep the interpreter from ending where nothing was closed.
                work = threading.Thread(target=self._run, args=(arrival, turns), name="arrival", daemon=True)
                arrival.thread = work
                work.start()

    def _run(self, arrival: _Arrival, turns: Turns) -> None:
        failure: BaseException | None = None
        try:
            with turns.taken(f"pull-{digest_hex(arrival.image.descriptor.digest)}"):
                missing = missing_blobs(self._store.blobs, arrival.image.manifest.layers)
                if missing:  # nobody else has fetched it by now
                    with self._connecting(f"pulling {arrival.reference}") as client:
                        arrival.receive(client, missing, self._store)
                self._keep(arrival.image, arrival.reference)
        except BaseException as error:  # noqa: BLE001  (whoever waits raises it)
            failure = error
        arrival.end(failure)


class _Arrival:
    """One image on its way."""

    def __init__(self, image: Image, reference: Reference, span: Span | None) -> None:
        self.image = image
        self.reference = reference
        self.thread: threading.Thread | None = None
        self._span = span
        self._changed = threading.Condition()
        self._growing: dict[Digest, GrowingBlob] = {}
        self._client: RegistryClient | None = None
        self._has_ended = False
        self._is_canceled = False
        self._failure: BaseException | None = None

    def receive(self, client: RegistryClient, missing: Iterable[Descriptor], store: Store) -> None:
        """Fetch layers, to be read as they come."""
        with self._changed:
            self._client = client
            if self._is_canceled:
                raise BuildError("canceled while a base image was pulled")
        try:
            client.pull_blobs(self.reference, missing, store.blobs, on_start=self._note_start)
        finally:
            with self._changed:
                self._client = None

    def open(self, digest: Digest) -> BinaryIO | None:
        """Open a layer as soon as it is begun; None if all that can come is there."""
        with self._changed:
            while not self._has_ended:
                growing = self._growing.get(digest)
                if growing is not None:
                    return growing.open()
                self._changed.wait()
        return None

    def wait(self) -> None:
        """Wait until the image is whole.

        Raises:
            BaseImageError: it cannot be had.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended)
        error = self._failure
        if isinstance(error, RegistryError) and not isinstance(error, StoreFullError):
            raise BaseImageError(error.message, hint=error.hint, span=self._span) from error
        if error is not None:
            raise error

    def cancel(self) -> None:
        """Make `receive` fail soon."""
        with self._changed:
            self._is_canceled = True
            client = self._client
        if client is not None:
            client.cancel()

    def join(self) -> None:
        """Wait until nothing is done any more."""
        if self.thread is not None:
            self.thread.join()

    def end(self, failure: BaseException | None) -> None:
        """Note that nothing more will come."""
        with self._changed:
            self._failure = failure
            self._has_ended = True
            self._changed.notify_all()

    def _note_start(self, blob: Descriptor, writer: BlobWriter) -> None:
        growing = writer.follow()
        with self._changed:
            self._growing[blob.digest] = growing
            self._changed.notify_all()
