"""Pushing layers while the build that makes them goes on.

A push sends what the registry lacks, whoever sent the rest. So layers of a result can be sent as soon as they are made,
and the push of the image finds them there. A build that fails leaves layers in the registry that no manifest names, as a
push that was interrupted does; registries remove such by themselves.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from builder.errors import BuildError
from builder.transfer import push_blobs
from registry.content.image import is_stored
from registry.errors import RegistryError
from registry.oci.media_types import is_nondistributable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from builder.image.assemble import Layer
    from builder.plan.graph import Vertex
    from builder.plan.platforms import Plans
    from builder.solve.solver import Solver
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.reference import Reference

    Connecting = Callable[[str], AbstractContextManager[RegistryClient]]
    """Gives a registry client that shows its transfers as a piece of work of this name."""

_LOG = logging.getLogger("pybuild." + __name__)


@contextmanager
def pushing_early(
    names: Sequence[Reference], plans: Plans, solver: Solver, store: Store, connecting: Connecting, *, kind: str
) -> Iterator[Callable[[Vertex, Layer], None]]:
    """Send layers of the results while a block carries out what is left of them.

    Layers of base images that are in the store, and those that the cache had, are sent first.

    Args:
        names: what the results are called in their registries.
        plans: of the build.
        solver: knows what the cache had.
        store: has the layers.
        connecting: gives a client for each name.
        kind: the compression that is preferred where a layer is stored in several.

    Yields:
        What to tell of each layer that is made.
    """
    path: set[str] = set()
    for vertex in (plan.vertex for plan in plans.plans):
        at = vertex
        while at is not None:
            path.add(at.digest)
            at = at.parent
    with ExitStack() as stack:
        pushes = [stack.enter_context(EarlyPush(store, name, connecting)) for name in names]

        def send(blob: Descriptor | None) -> None:
            if blob is not None and not is_nondistributable(blob.media_type) and is_stored(store.blobs, blob):
                for push in pushes:
                    push.offer(blob)

        def note(vertex: Vertex, layer: Layer) -> None:
            if vertex.digest in path:
                send(solver.file_systems.find_blob(layer.diff_id, kind))

        for plan in plans.plans:
            for blob in plan.base.manifest.layers if plan.base is not None else ():
                send(blob)
        made = solver.made()
        for digest in path & made.keys():
            send(solver.file_systems.find_blob(made[digest].diff_id, kind))
        yield note


class EarlyPush:
    """Sends layers to one repository, in a thread of its own.

    A context manager: a block that ends well waits for what was offered, another one cancels it. What cannot be sent
    is no error here, since the push of the image tries it again and says why.

    Args:
        store: has the layers.
        reference: names the repository.
        connecting: gives a client.
    """

    def __init__(self, store: Store, reference: Reference, connecting: Connecting) -> None:
        self._store = store
        self._reference = reference
        self._connecting = connecting
        self._offered: SimpleQueue[Descriptor | None] = SimpleQueue()
        self._seen: set[Digest] = set()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._client: RegistryClient | None = None
        self._is_canceled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with self._guard:
                self._is_canceled = True
                client = self._client
            if client is not None:
                client.cancel()
        self._offered.put(None)
        if self._thread is not None:
            self._thread.join()

    def offer(self, layer: Descriptor) -> None:
        """Have a layer sent, once. Called from any thread, and not before this process has made its last fork."""
        with self._guard:
            if layer.digest in self._seen:
                return
            self._seen.add(layer.digest)
            if self._thread is None:
                # A daemon, so that it cannot keep the interpreter from ending where nothing was closed.
                self._thread = threading.Thread(target=self._run, name="early push", daemon=True)
                self._thread.start()
        self._offered.put(layer)

    def _run(self) -> None:
        try:
            with self._connecting(f"pushing layers for {self._reference}") as client:
                self._send(client)
        except (BuildError, RegistryError, OSError) as error:
            _LOG.debug("no client to push layers early: %s", error)

    def _send(self, client: RegistryClient) -> None:
        with self._guard:
            self._client = client
        try:
            while not self._is_canceled and (layer := self._offered.get()) is not None:
                push_blobs(self._store, [layer], self._store.blobs, self._reference, client)
        except (BuildError, RegistryError, OSError) as error:
            _LOG.debug("layers are pushed with their image, not early: %s", error)
        finally:
            with self._guard:
                self._client = None
