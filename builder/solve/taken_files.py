"""What steps take from elsewhere than the file system below them: from contexts, from the network, from other stages.

It is selected, digested for the key of the step, and listed for who keeps the key. A build that copies and mounts
nothing has no use for this.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from builder.cache.fingerprints import StoredFingerprints
from builder.context.digest import digest_files
from builder.context.select import has_file
from builder.plan.graph import CopyFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from builder.cache.key import Ingredient
    from builder.cache.listing import Listing
    from builder.context.local import Context, LocalContext
    from builder.context.named import NamedContexts
    from builder.context.remote import Network, RemoteContext
    from builder.context.select import Selection
    from builder.plan.graph import Vertex
    from builder.plan.mounts import PlannedMount
    from builder.store import Store

_MANY = 1 << 16
"""Bytes of records that are kept as they are."""


class TakenFiles:
    """The files of the steps of a build. Used from many threads, for one vertex by one at a time.

    Args:
        store: where fingerprints are, and what is unfinished.
        context: the build context.
        named: the named contexts; None if no step reads from one.
        network: gives what fetches the sources of ADD; None if no step needs it.

    Attributes:
        fingerprints: those of the store.
    """

    def __init__(
        self,
        store: Store,
        context: LocalContext | RemoteContext,
        *,
        named: NamedContexts | None,
        network: Callable[[], Network] | None,
    ) -> None:
        self.fingerprints = StoredFingerprints(store.state)
        self._folder = store.temporary
        self._context = context
        self._named = named
        self._network = network
        self._digests: dict[str, str] = {}
        self._asked: dict[str, AskedFiles] = {}

    def select(self, vertex: Vertex, op: CopyFiles) -> Selection:
        """Find what a COPY takes of a context.

        Raises:
            ContextError: it is not there.
        """
        context: Context = self._context
        if op.context is not None and self._named is not None:
            context = self._named.get(op.context)
        return context.select(op.paths, excludes=op.exclude, parents=op.parents, span=vertex.span)

    def fetch(self, vertex: Vertex, op: CopyFiles) -> list[Selection]:
        """Bring what an ADD takes from the network into folders of the build."""
        return [self._needed_network().select(remote, op.exclude, vertex.span) for remote in op.remotes]

    def ask_network(self, vertex: Vertex, op: CopyFiles) -> None:
        """Have all that `ingredients` and `fetch` need of the network."""
        for remote in op.remotes:
            self._needed_network().ingredients(remote, vertex.span)
        self.fetch(vertex, op)

    def may_be_archives(self, vertex: Vertex, op: CopyFiles) -> bool:
        """Tell whether what a COPY or ADD takes of a context may be archives that it unpacks.

        Raises:
            ContextError: it is not there.
        """
        selection = self.select(vertex, op)
        return op.unpack and has_file(selection)

    def ingredients(self, vertex: Vertex, op: CopyFiles) -> list[Ingredient]:
        """Give what the files of a COPY put into its key, if they are not another vertex's; they are digested once."""
        found: list[Ingredient] = []
        if op.paths:
            if not self.is_digested(vertex):
                self._digests[vertex.digest] = self.digest(vertex, self.select(vertex, op), is_stored=True)
            found.append(("files", self._digests[vertex.digest]))
        for remote in op.remotes:
            found.extend(self._needed_network().ingredients(remote, vertex.span))
        return found

    def is_digested(self, vertex: Vertex) -> bool:
        """Tell whether the digest of what a COPY takes of a context is known."""
        return vertex.digest in self._digests

    def put_digest(self, vertex: Vertex, digest: str) -> None:
        """Note the digest of what a COPY took of a context."""
        self._digests[vertex.digest] = digest

    def digest(self, vertex: Vertex, selection: Selection, *, is_stored: bool) -> str:
        """Digest a selection for the key of a vertex, and forget other files that were in it.

        Args:
            vertex: the one that takes it.
            selection: what it takes.
            is_stored: whether fingerprints are kept of it; not of views of stages.
        """
        self.forget(vertex)
        fingerprints = self.fingerprints if is_stored else None
        return digest_files(selection, fingerprints, span=vertex.span, listed=partial(self.begin_listing, vertex))

    def digest_mounted(
        self, vertex: Vertex, mount: PlannedMount, opened: Callable[[int], AbstractContextManager[int]]
    ) -> str:
        """Digest and list, beside others, what a mount shows of the context, or of the file system of another vertex.

        Args:
            vertex: the one that mounts it.
            mount: one of its mounts.
            opened: gives the root of a source of the vertex, by its number.
        """
        from builder.solve.mount_inputs import select_mounted, select_mounted_from  # noqa: PLC0415  only with mounts

        listed = partial(self.begin_listing, vertex)
        if mount.source is None:
            selection = select_mounted(self._context, vertex, mount)
            return digest_files(selection, self.fingerprints, span=vertex.span, listed=listed, at_sight=False)
        with opened(mount.source) as root_fd:
            return digest_files(select_mounted_from(root_fd, vertex, mount), None, span=vertex.span, listed=listed)

    def begin_listing(self, vertex: Vertex) -> AskedFiles:
        """Give what takes the files in the key of a vertex."""
        return self._asked.setdefault(vertex.digest, AskedFiles(self._folder))

    def list_files(self, vertex: Vertex) -> Listing | None:
        """List the files in the key of a vertex, also those of the context that were known at sight."""
        if self.is_digested(vertex) and vertex.digest not in self._asked and isinstance(vertex.op, CopyFiles):
            selection, listed = self.select(vertex, vertex.op), partial(self.begin_listing, vertex)
            digest_files(selection, self.fingerprints, span=vertex.span, listed=listed, at_sight=False)
        asked = self._asked.get(vertex.digest)
        return None if asked is None else asked.listing()

    def forget(self, vertex: Vertex) -> None:
        """Let go of the list of files in the key of a vertex."""
        self._asked.pop(vertex.digest, None)

    def _needed_network(self) -> Network:
        if self._network is None:
            raise AssertionError("a step needs the network, and none was given")
        return self._network()


class AskedFiles:
    """The files in the key of a step; implements `builder.context.digest.Listed`.

    They become a listing when they are many or somebody wants it, as a step that is found wants none.

    Args:
        folder: for the listing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources: list[tuple[bytes, bytes, list[bytes]]] = []
        self._size = 0
        self._listing: Listing | None = None

    def begin(self, name: bytes, prefix: bytes) -> None:
        """Begin a source."""
        if self._listing is not None:
            self._listing.begin(name, prefix)
        else:
            self._sources.append((name, prefix, []))

    def add(self, records: bytes) -> None:
        """Take further records of the source."""
        if self._listing is not None:
            self._listing.add(records)
            return
        self._sources[-1][2].append(records)
        self._size += len(records)
        if self._size >= _MANY:
            self.listing()

    def listing(self) -> Listing:
        """Give what was taken as a listing."""
        if self._listing is None:
            from builder.cache.listing import Listing  # noqa: PLC0415  a step that is found lists nothing

            self._listing = Listing(self._folder)
            for name, prefix, pieces in self._sources:
                self._listing.begin(name, prefix)
                for records in pieces:
                    self._listing.add(records)
            self._sources = []
        return self._listing
