"""The whole way of a build on one screen: read, plan, ask the cache, solve, assemble, export."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from builder.cache.key import derive_key
from builder.context.local import LocalContext
from builder.dockerfile.stages import parse_dockerfile
from builder.errors import BaseImageError, UsageError
from builder.events import EventSink, VertexCompleted, VertexStarted, VertexStatus, Warned
from builder.image.assemble import assemble_image, layer_descriptor
from builder.plan.convert import convert
from builder.request import BuildRequest, Output, OutputType
from builder.solve.layer import LayerMaker
from builder.solve.solver import Solver
from builder.transfer import pull_image, push_image
from registry.content.image import Image, load_image, missing_blobs
from registry.errors import RegistryError

if TYPE_CHECKING:
    from builder.plan.graph import Plan
    from builder.source import Span
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference
    from registry.transfer import ProgressSink, TransferProgress
    from runtime.zygote import Zygote


Connect = Callable[["ProgressSink"], "RegistryClient"]
"""Makes a registry client that reports its transfers."""

LOCAL_OUTPUTS = frozenset({OutputType.LOCAL, OutputType.TAR})
"""Outputs that read the file system of the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What came of a build: the image, and the names it was given."""

    image: Image
    names: tuple[Reference, ...]


class Build:
    """One build. `prepare`, then `finish`, which runs inside the namespace when `prepare` says so.

    Args:
        request: what is asked for.
        store: where everything is kept.
        sink: takes events.
        connect: makes a registry client.
        now: gives the time as RFC 3339 text.
    """

    def __init__(
        self, request: BuildRequest, store: Store, sink: EventSink, connect: Connect, now: Callable[[], str]
    ) -> None:
        self._request = request
        self._store = store
        self._sink = sink
        self._connect = connect
        layers = LayerMaker(store, request.compression, threads=request.jobs, now=now)
        self._epoch = _epoch(request)
        self._context = LocalContext(request.context, dockerfile=request.dockerfile, text=request.dockerfile_text)
        self._plan: Plan = convert(parse_dockerfile(self._context.dockerfile), request, self._resolve_image)
        self._solver = Solver(self._plan, store, self._context, layers, sink)

    def prepare(self) -> bool:
        """Answer what the cache knows; return whether the rest has to run inside the namespace."""
        steps_left = self._solver.probe()
        return steps_left or any(output.type in LOCAL_OUTPUTS for output in self._outputs())

    def before_fork(self) -> None:
        """Let go of what must not be carried into another process."""
        self._store.before_fork()

    def finish(self, zygote: Zygote | None) -> BuildResult:
        """Carry out what is left, assemble the image, write the outputs.

        Args:
            zygote: starts steps; None outside the namespace.

        Raises:
            BuildError, SandboxError, RegistryError: the build failed; nothing is tagged.
        """
        self._solver.run(zygote, jobs=self._request.jobs)
        with self._exporting("exporting to image") as note:
            image = self._assemble(note)
        for output in self._outputs():
            self._export(output, image)
        return BuildResult(image=image, names=self._request.tags)

    def close(self) -> None:
        """Let go of the context."""
        self._context.close()

    def _outputs(self) -> tuple[Output, ...]:
        return self._request.outputs or (Output(type=OutputType.IMAGE),)

    def _resolve_image(self, reference: Reference, platform: Platform, span: Span | None) -> Image:
        """Find a base image: in the store, else in its registry, and then in the store."""
        if not self._request.pull:
            found = self._find_stored(reference, platform)
            if found is not None:
                return found
        try:
            with self._exporting(f"[internal] load metadata for {reference}") as note:
                return pull_image(self._store, reference, platform, self._connect(partial(_forward, note)))
        except RegistryError as error:
            raise BaseImageError(error.message, hint=error.hint, span=span) from error

    def _find_stored(self, reference: Reference, platform: Platform) -> Image | None:
        descriptor = self._store.layout.find(reference)
        if descriptor is None:
            return None
        image = load_image(self._store.blobs, descriptor, platform)
        if missing_blobs(self._store.blobs, image.manifest.layers):
            return None
        if not image.config.platform.matches(platform):
            self._sink(
                Warned(
                    vertex=None,
                    message=f"InvalidBaseImagePlatform: base image {reference} was pulled with platform "
                    f'"{image.config.platform}", expected "{platform}" for current build',
                    time=time.time(),
                )
            )
        return image

    def _assemble(self, note: Note) -> Image:
        note("exporting layers", None)
        layers = self._solver.result(self._plan.vertex)
        base = self._plan.base
        kept = dict(zip(base.config.diff_ids, base.manifest.layers, strict=True)) if base else {}
        file_systems = self._solver.file_systems
        descriptors = [
            layer_descriptor(
                kept.get(layer.diff_id) or file_systems.get_blob(layer.diff_id, self._request.compression.kind)
            )
            for layer in layers
        ]
        image = assemble_image(
            self._plan,
            layers,
            self._solver.made(),
            descriptors,
            self._store.blobs,
            annotations=self._request.annotations,
            epoch=self._epoch,
        )
        note(f"exporting manifest {image.descriptor.digest}", None)
        note(f"exporting config {image.manifest.config.digest}", None)
        return image

    def _export(self, output: Output, image: Image) -> None:
        names = output.names or self._request.tags
        match output.type:
            case OutputType.IMAGE | OutputType.REGISTRY:
                self._store_image(image, names)
                if output.push or output.type is OutputType.REGISTRY:
                    self._push(image, names)
            case OutputType.OCI | OutputType.DOCKER:
                self._write_archive(output, image, names)
            case OutputType.TAR | OutputType.LOCAL:
                self._write_file_system(output)
            case OutputType.CACHE_ONLY:
                pass

    def _store_image(self, image: Image, names: tuple[Reference, ...]) -> None:
        with self._exporting("naming the image") as note:
            for name in names or (None,):
                self._store.layout.put(image.descriptor, name)
                if name is not None:
                    note(f"naming to {name}", None)

    def _push(self, image: Image, names: tuple[Reference, ...]) -> None:
        if not names:
            raise UsageError("tag is needed when pushing to registry", hint="name the image with --tag")
        for name in names:
            with self._exporting(f"pushing {name}") as note:
                push_image(self._store, image, name, self._connect(partial(_forward, note)))

    def _write_archive(self, output: Output, image: Image, names: tuple[Reference, ...]) -> None:
        from builder.export.destination import open_destination  # noqa: PLC0415  only for these outputs
        from builder.export.oci_layout import NamedImage, write_archive, write_layout  # noqa: PLC0415  only for these outputs

        docker = output.type is OutputType.DOCKER
        with self._exporting(f"exporting to {'docker' if docker else 'oci'} image format"):
            if not output.tar and output.destination is not None:
                write_layout(image, self._store.blobs, output.destination, names)
                return
            with open_destination(output.destination) as write:
                write_archive([NamedImage(image=image, names=names)], self._store.blobs, write, docker=docker)

    def _write_file_system(self, output: Output) -> None:
        from builder.export.destination import open_destination  # noqa: PLC0415  only for these outputs
        from builder.export.filesystem import write_directory, write_tar  # noqa: PLC0415  only for these outputs

        layers = self._solver.result(self._plan.vertex)
        with self._exporting("exporting to client"), self._solver.file_systems.mounted(layers) as view:
            if output.type is OutputType.LOCAL:
                if output.destination is None:
                    raise UsageError("dest is needed for a local output", hint="write -o type=local,dest=FOLDER")
                write_directory(view, output.destination)
            else:
                with open_destination(output.destination) as write:
                    write_tar(view, write)

    @contextlib.contextmanager
    def _exporting(self, name: str) -> Iterator[Note]:
        """Tell the sink of a piece of work that is no vertex of the plan."""
        vertex = f"sha256:{derive_key([('work', name)])}"
        self._sink(VertexStarted(vertex=vertex, name=name, time=time.time()))

        def note(part: str, progress: TransferProgress | None) -> None:
            current, total = (progress.current, progress.total) if progress else (0, 0)
            done = progress is None or current >= total
            self._sink(
                VertexStatus(vertex=vertex, id=part, current=current, total=total, completed=done, time=time.time())
            )

        try:
            yield note
        except BaseException as error:
            text = getattr(error, "message", str(error))
            self._sink(VertexCompleted(vertex=vertex, error=text, time=time.time()))
            raise
        self._sink(VertexCompleted(vertex=vertex, time=time.time()))


Note = Callable[[str, "TransferProgress | None"], None]
"""Tells of a part of some work by its name, with how far it is if it is a transfer."""


def _forward(note: Note, progress: TransferProgress) -> None:
    note(progress.digest, progress)


def _epoch(request: BuildRequest) -> str | None:
    """Read SOURCE_DATE_EPOCH as RFC 3339 text; empty means unset."""
    text = request.build_args.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(text)))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"invalid SOURCE_DATE_EPOCH: `{text}`", hint="give seconds since 1970 as a number") from error
