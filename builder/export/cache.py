"""Writing the cache of a build for others: what `--cache-to` asks for. The form is that of `builder.cache.document`.

An image layout that a cache is written to again keeps the blobs it has; the older cache loses its entry.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.cache.document import CACHE_CONFIG, CachedLayer, write_records
from builder.errors import BuildError
from builder.export.oci_layout import copy_blob
from builder.solve.imported_cache import cache_name
from registry.content.layout import ImageLayout
from registry.content.local import LocalBlobStore
from registry.oci.descriptor import Descriptor
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.plan.graph import Vertex
    from builder.plan.platforms import Plans
    from builder.request import BuildRequest, CacheTarget
    from builder.solve.solver import Solver
    from builder.store import Store
    from registry.oci.digest import Digest
    from registry.oci.reference import Reference

    Push = Callable[[Descriptor, list[Digest], Reference], None]
    """Brings a manifest with these layers to a registry."""


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

    def write(self, target: CacheTarget, push: Push) -> None:
        """Export to one place.

        Raises:
            BuildError, RegistryError: it cannot be written.
        """
        vertices = self._plans.vertices() if target.all_steps else tuple(self._result_vertices())
        records = [record for _, record in sorted({each.key: each for each in self._records(vertices)}.items())]
        layers = {record.blob.digest: record.blob for record in records}
        data = write_records(records)
        if len(data) > MAX_DOCUMENT_SIZE:
            raise BuildError("cache has too many steps to be exported", hint="export with mode=min")
        config = self._store.blobs.put(data)
        manifest = Manifest(
            config=Descriptor(media_type=CACHE_CONFIG, digest=config.digest, size=config.size),
            layers=tuple(layers.values()),
        )
        stored = self._store.blobs.put(manifest.to_bytes())
        descriptor = Descriptor(media_type=manifest.media_type, digest=stored.digest, size=stored.size)
        if target.reference is not None:
            push(descriptor, list(layers), target.reference)
        elif target.folder is not None:
            self._write_folder(target.folder, descriptor, [*layers, config.digest, stored.digest], target.tag)

    def _result_vertices(self) -> Iterator[Vertex]:
        """Give what the layers of the results come from."""
        for plan in self._plans.plans:
            vertex = plan.vertex
            while vertex is not None:
                yield vertex
                vertex = vertex.parent

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

    def _write_folder(self, folder: Path, manifest: Descriptor, digests: list[Digest], tag: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BuildError(f"cache cannot be written, {os.strerror(error.errno or 0)}: `{folder}`") from error
        target = LocalBlobStore(folder, temporary=folder)
        for digest in digests:
            if not target.has(digest):
                copy_blob(self._store.blobs, target, digest)
        layout, name = ImageLayout(folder), cache_name(tag)
        older = layout.find(name)
        layout.put(manifest, name)
        if older is not None and older.digest != manifest.digest:
            layout.remove_digest(older.digest)
