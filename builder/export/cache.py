"""Writing the cache of a build for others: what `--cache-to` asks for. The form is that of `builder.cache.document`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cache.document import CACHE_CONFIG, CachedLayer, write_records
from builder.errors import BuildError
from registry.oci.descriptor import Descriptor
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.cache.place import CachePlace
    from builder.plan.graph import Plan, Vertex
    from builder.plan.platforms import Plans
    from builder.request import BuildRequest, CacheTarget
    from builder.solve.filesystem import FileSystem
    from builder.solve.solver import Solver
    from builder.store import Store


class CacheExporter:
    """Writes the records and layers of a solved build to the places of `--cache-to`.

    Args:
        request: says how layers are compressed.
        plans: of the build.
        solver: has carried them out.
        store: has the layers, and takes the documents.
    """

    def __init__(self, request: BuildRequest, plans: Plans, solver: Solver, store: Store) -> None:
        self._request = request
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
        records = [record for _, record in sorted({each.key: each for each in self._records(vertices)}.items())]
        layers = tuple({record.blob.digest: record.blob for record in records}.values())
        data = write_records(records)
        if len(data) > MAX_DOCUMENT_SIZE:
            raise BuildError("cache has too many steps to be exported", hint="export with mode=min")
        stored = self._store.blobs.put(data)
        config = Descriptor(media_type=CACHE_CONFIG, digest=stored.digest, size=stored.size)
        manifest = Manifest(config=config, layers=layers)
        stored = self._store.blobs.put(manifest.to_bytes())
        descriptor = Descriptor(media_type=manifest.media_type, digest=stored.digest, size=stored.size)
        place.write(descriptor, (*layers, config))

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
