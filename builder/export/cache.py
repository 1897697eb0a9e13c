"""Writing the cache of a build for others: what `--cache-to` asks for. The form is that of `builder.cache.document`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cache.document import CACHE_CONFIG, CachedLayer, CachedMount, ExportedCache
from builder.errors import BuildError
from builder.plan.graph import RunCommand
from registry.oci.descriptor import Descriptor
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Manifest
from runtime.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.cache.place import CachePlace
    from builder.plan.graph import Plan, Vertex
    from builder.plan.platforms import Plans
    from builder.request import BuildRequest, CacheTarget
    from builder.solve.cache_mounts import PlannedCache
    from builder.solve.filesystem import FileSystem
    from builder.solve.imported_cache import ImportedCaches
    from builder.solve.solver import Solver
    from builder.store import Store


class CacheExporter:
    """Writes the records and layers of a solved build to the places of `--cache-to`.

    Args:
        request: says how layers are compressed.
        plans: of the build.
        solver: has carried them out.
        store: has the layers, and takes the documents.
        imported: the caches that were imported; None if there are none.
        warn: is told which cache mount cannot be exported, and why.
    """

    def __init__(
        self,
        request: BuildRequest,
        plans: Plans,
        solver: Solver,
        store: Store,
        *,
        imported: ImportedCaches | None,
        warn: Callable[[str], None],
    ) -> None:
        self._request = request
        self._imported = imported
        self._warn = warn
        self._plans = plans
        self._solver = solver
        self._store = store

    def write(self, target: CacheTarget, place: CachePlace) -> None:
        """Export to one place.

        Raises:
            BuildError, RegistryError: it cannot be written.
        """
        chains = (vertex for plan in self._plans.plans for vertex in _chain(plan))
        vertices = self._plans.vertices() if target.all_steps else tuple(chains)
        records = tuple(record for _, record in sorted({each.key: each for each in self._records(vertices)}.items()))
        steps = ExportedCache(records=records)
        place.put(steps.layers(), self._store.blobs)
        cache = ExportedCache(records=records, mounts=self._put_mounts(target, place) if target.mounts else ())
        data = cache.to_bytes()
        if len(data) > MAX_DOCUMENT_SIZE:
            raise BuildError("cache has too many steps to be exported", hint="export with mode=min")
        stored = self._store.blobs.put(data)
        config = Descriptor(media_type=CACHE_CONFIG, digest=stored.digest, size=stored.size)
        place.put([config], self._store.blobs)
        manifest = Manifest(config=config, layers=cache.layers())
        stored = self._store.blobs.put(manifest.to_bytes())
        descriptor = Descriptor(media_type=manifest.media_type, digest=stored.digest, size=stored.size)
        place.name(descriptor, self._store.blobs)

    def _records(self, vertices: tuple[Vertex, ...]) -> Iterator[CachedLayer]:
        made = self._solver.made()
        for vertex in vertices:
            layer = made.get(vertex.digest)
            if layer is None:
                continue
            blob = self._solver.file_systems.get_blob(layer.diff_id, self._request.compression.kind)
            plain = Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size)
            for record in self._store.state.find_records(layer.diff_id, vertex.text):
                yield CachedLayer(key=record.key, created=record.created, diff_id=layer.diff_id, blob=plain)

    def _put_mounts(self, target: CacheTarget, place: CachePlace) -> tuple[CachedMount, ...]:
        """Bring the contents of all cache mounts of the plan to a place: as they are here, else as they were imported."""
        from builder.solve.cache_mounts import planned_caches  # noqa: PLC0415  only with mounts=true

        planned: dict[str, PlannedCache] = {}
        for vertex in self._plans.vertices():
            if isinstance(vertex.op, RunCommand):
                sources = [self._solver.result(source) for source in vertex.sources]
                planned |= {cache.moved_key: cache for cache in planned_caches(vertex.op, sources)}
        moved: list[CachedMount] = []
        for key, cache in sorted(planned.items()):
            mount = self._pack_mount(key, cache, target.mounts_limit)
            if mount is not None:
                place.put([mount.blob], self._store.passing_blobs)
            elif self._imported is not None:
                mount = self._hand_on(key, self._imported, place)
            if mount is not None:
                moved.append(mount)
        return tuple(moved)

    def _pack_mount(self, key: str, cache: PlannedCache, limit: int | None) -> CachedMount | None:
        """Store what a cache mount holds here; None if it is not here, or cannot be exported, which is a warning."""
        from builder.solve.cache_mounts import CacheMounts  # noqa: PLC0415  only with mounts=true
        from builder.solve.moved_mounts import pack_mount  # noqa: PLC0415  as above

        caches = CacheMounts(self._store.root, self._store.temporary, lambda: False)
        form = self._request.compression
        try:
            with caches.read(cache.key) as tree:
                if tree is None:
                    return None
                blob = pack_mount(tree, self._store.passing_blobs, form, threads=self._request.jobs, limit=limit)
        except (BuildError, SandboxError, OSError) as error:
            reason = error.message if isinstance(error, BuildError | SandboxError) else error.strerror
            self._warn(f"cache mount `{cache.id}` is not exported as it is, {reason}")
            return None
        return CachedMount(key=key, diff_id=blob.diff_id, blob=blob.descriptor)

    def _hand_on(self, key: str, imported: ImportedCaches, place: CachePlace) -> CachedMount | None:
        """Bring what was imported for a cache mount, and no step needed, to a place that does not have it."""
        while (mount := imported.find_mount(key)) is not None:
            if place.has(mount.blob):
                return mount
            blobs = imported.fetch_mount(mount)
            if blobs is not None:
                place.put([mount.blob], blobs)
                return mount
        return None


def find_keys(plan: Plan, layers: FileSystem, solver: Solver, store: Store) -> Iterator[tuple[str, int]]:
    """Give the keys of the steps that the layers of a result come from, each with the position of its layer.

    Args:
        plan: carried out.
        layers: those of the image, base first; a layer whose times were rewritten answers no key.
        solver: has carried it out.
        store: has the records.
    """
    made = solver.made()
    for vertex in _chain(plan):
        layer = made.get(vertex.digest)
        position = len(solver.result(vertex)) - 1
        if layer is not None and layers[position].diff_id == layer.diff_id:
            for record in store.state.find_records(layer.diff_id, vertex.text):
                yield record.key, position


def _chain(plan: Plan) -> Iterator[Vertex]:
    """Give what the layers of a result come from, the last first."""
    vertex = plan.vertex
    while vertex is not None:
        yield vertex
        vertex = vertex.parent
