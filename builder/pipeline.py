"""The whole way of a build on one screen: read, plan, ask the cache, solve, assemble, export."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from builder.cache.key import derive_key
from builder.cache.past import name_place
from builder.dockerfile.directives import SYNTAX_ARG
from builder.dockerfile.rules import CHECK_ARG, RULES, Linter, check_dockerfile, rule_url
from builder.dockerfile.stages import parse_dockerfile
from builder.errors import BaseImageError, BuildError, StoreError
from builder.events import EventSink, VertexCompleted, VertexStarted, VertexStatus, Warned
from builder.export.results import Exporter
from builder.image.form import check_outputs
from builder.plan.check_values import PlanChecks
from builder.plan.graph import RunCommand
from builder.plan.platforms import Plans, convert_all, is_multi_platform
from builder.request import BuildRequest, CacheTarget, OutputType, is_attested
from builder.solve.solver import Grants, Solver
from builder.solve.sources import Sources
from registry.content.image import Image, load_image, missing_blobs
from registry.errors import (
    BlobMissingError,
    ContentError,
    LayoutError,
    PlatformMissingError,
    RegistryError,
    StoreFullError,
)
from registry.value import field, frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from builder.attest.attestor import Attestor
    from builder.dockerfile.rules import Violation
    from builder.dockerfile.stages import Dockerfile
    from builder.export.cache import CacheExporter
    from builder.image.assemble import Layer
    from builder.image.index import ImageIndex
    from builder.plan.graph import Vertex
    from builder.request import SbomRequest
    from builder.solve.arrivals import Arrivals
    from builder.solve.devices import Devices
    from builder.solve.explain_cache import CacheExplainer
    from builder.solve.failed_step import FailedStep
    from builder.solve.imported_cache import ImportedCaches
    from builder.solve.layer import LayerMaker
    from builder.source import Span
    from builder.store import Store
    from registry.client import RegistryClient
    from registry.content.store import BlobStore
    from registry.download import Downloaded
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference
    from registry.transfer import ProgressSink, TransferProgress
    from runtime.zygote import Zygote


Connect = Callable[["ProgressSink"], "RegistryClient"]
"""Makes a registry client that reports its transfers."""

LOCAL_OUTPUTS = frozenset({OutputType.LOCAL, OutputType.TAR})
"""Outputs that read the file system of the result."""


@frozen
class BuildResult:
    """What came of a build: the image or an index, the names it was given, and what a metadata file tells of it."""

    image: Image | ImageIndex
    names: tuple[Reference, ...]
    record: Mapping[str, object] = field(default_factory=dict)


class Build:
    """One build. `prepare`, then `finish`, which runs inside the namespace when `prepare` says so.

    Args:
        request: what is asked for.
        store: where everything is kept.
        sink: takes events.
        connect: makes a registry client.
        now: gives the time as RFC 3339 text.
        survey: takes the build checks that fail, for whose sake alone the build is then planned: every stage without
            a target, base images by their configs alone. Such a build cannot be prepared.
    """

    def __init__(
        self,
        request: BuildRequest,
        store: Store,
        sink: EventSink,
        connect: Connect,
        now: Callable[[], str],
        *,
        survey: Callable[[Violation], None] | None = None,
    ) -> None:
        started = now() if is_attested(request) else ""
        self._survey = survey
        self._request = request
        self._store = store
        self._sink = sink
        self._connect = connect
        check_outputs(request, is_index=is_multi_platform(request))
        self._sources = Sources(
            request, store, lambda: _ShownDownloads(self._connect, self._exporting), self._exporting
        )
        self._context = self._sources.open_context()
        self._arrivals: Arrivals | None = None  # until a base turns out not to be in the store
        self._plans = self._plan(parse_dockerfile(self._context.dockerfile, syntax=request.build_args.get(SYNTAX_ARG)))
        self._devices = self._open_devices()
        self._imported = self._import_caches()
        self._solver = Solver(
            self._plans,
            store,
            self._context,
            partial(_open_layers, store, request, now),
            sink,
            grants=Grants(secrets=request.secrets, ssh=request.ssh, devices=self._devices),
            named=self._sources.named,
            network=self._sources.network,
            imported=self._imported,
            arrivals=self._arrivals,
            explainer=self._explain_cache(),
            wants_all_layers=any(target.all_steps for target in request.cache_to),
        )
        self._attestor = self._open_attestor(started, now)
        self._exporter = Exporter(
            request,
            self._plans,
            self._solver,
            store,
            exporting=self._exporting,
            push=self._push,
            attestor=self._attestor,
        )

    def prepare(self) -> bool:
        """Answer what the cache knows; return whether the rest has to run inside the namespace."""
        steps_left = self._solver.probe()
        left = self._solver.left()
        if left:
            from builder.solve.emulation import check_emulation  # noqa: PLC0415  a build that is cached runs nothing

            check_emulation(left, self._request.build_platform)
            if self._devices is not None:
                self._devices.check(left)
        reads_files = any(output.type in LOCAL_OUTPUTS for output in self._request.outputs) or self._exports_mounts()
        return steps_left or reads_files

    def finish(self, zygote: Zygote | None, *, on_failure: Callable[[FailedStep], None] | None = None) -> BuildResult:
        """Carry out what is left, assemble the image, write the outputs.

        Args:
            zygote: starts steps; None outside the namespace.
            on_failure: shown the RUN that failed, when no other work is done any more.

        Raises:
            BuildError, SandboxError, RegistryError: the build failed; nothing is tagged.
        """
        try:
            with self._pushing_early() as on_layer:
                self._solver.run(
                    zygote,
                    jobs=self._request.jobs,
                    is_limit=self._request.limits_jobs,
                    on_layer=on_layer,
                    on_failure=on_failure,
                )
            self._store.state.put_past(name_place(self._request), self._solver.steps())
            image = self._exporter.image()
            self._exporter.write()
            if self._request.cache_to:
                self._export_caches()
        finally:
            if self._arrivals is not None:
                self._arrivals.close()
        record = {} if self._attestor is None else self._attestor.record()
        return BuildResult(image=image, names=self._request.tags, record=record)

    def close(self) -> None:
        """Let go of the context."""
        self._context.close()
        self._sources.close()

    def _plan(self, source: Dockerfile) -> Plans:
        """Plan, and tell of build checks that fail, also when planning fails.

        Raises:
            LintError: some fail, and the Dockerfile makes them binding.
        """
        linter = Linter(source, self._request.build_args.get(CHECK_ARG))
        check_dockerfile(source, linter.warn)
        ignore = self._context.root.ignore
        checks = PlanChecks(
            warn=linter.warn,
            is_ignored=lambda path: ignore is not None and ignore.hides_source(path),
            all_stages=self._survey is not None and self._request.target is None,
        )
        try:
            plans = convert_all(
                source,
                self._request,
                self._resolve_image,
                context_time=self._context.time,
                remote_time=lambda remote, span: self._sources.network().time(remote, span),
                checks=checks,
                contexts=self._sources.named,
            )
        finally:
            for violation in linter.sorted():
                if self._survey is not None:
                    self._survey(violation)
                else:
                    self._sink(_warning(violation))
        linter.raise_if_binding()
        wanted = self._request.sbom
        return plans if wanted is None or self._survey is not None else self._plan_scans(plans, wanted)

    def _plan_scans(self, plans: Plans, wanted: SbomRequest) -> Plans:
        """Plan what lists the software of each result."""
        from builder.attest.sbom import plan_scan  # noqa: PLC0415  only with --sbom

        generator = self._resolve_image(wanted.generator, self._request.build_platform, None)
        return Plans(
            tuple(replace(plan, scan=plan_scan(wanted, plan, self._request, generator)) for plan in plans.plans)
        )

    def _open_attestor(self, started: str, now: Callable[[], str]) -> Attestor | None:
        """Make what tells of the result, if anything is to be told."""
        if not is_attested(self._request):
            return None
        from builder.attest.attestor import Attestor  # noqa: PLC0415  most builds tell nothing

        return Attestor(
            self._request,
            self._plans,
            self._solver,
            self._store,
            dockerfile=self._context.dockerfile,
            network=self._sources.network,
            started=started,
            now=now,
        )

    def _open_devices(self) -> Devices | None:
        """Look for the devices of this machine if a step asks for one; a survey runs no step."""
        wanted = [v for v in self._plans.vertices() if isinstance(v.op, RunCommand) and v.op.devices]
        if not wanted or self._survey is not None:
            return None
        from builder.solve.devices import Devices  # noqa: PLC0415  only with devices

        return Devices(self._request.devices, wanted, self._sink)

    def _resolve_image(self, reference: Reference, platform: Platform, span: Span | None) -> Image:
        """Find a base image: in the store, else in its registry; its layers arrive when they are needed."""
        found, damage = None, None
        if not self._request.pull:
            try:
                found = self._find_stored(reference, platform)
            except (LayoutError, StoreFullError):
                raise  # no image can be found, and none can be named; or what is found cannot be held
            except ContentError as error:
                damage = error
            if found is not None and found.config.platform.matches(platform):
                return found
        try:
            with self._connecting(f"[internal] load metadata for {reference}") as client:
                image = client.pull(reference, platform, self._store.blobs, layers=False)
        except RegistryError as error:
            if found is not None:  # for another platform, which is better than none; a build check tells of it
                return found
            if damage is not None:
                raise StoreError(
                    f"the image is damaged in the store, {damage.message}, and cannot be pulled again, {error.message}: "
                    f"`{reference}`",
                    hint="build, load or import it again",
                    span=span,
                ) from error
            raise BaseImageError(error.message, hint=error.hint, span=span) from error
        if self._survey is None:
            self._await_layers(image, reference, span)
        return image

    def _await_layers(self, image: Image, reference: Reference, span: Span | None) -> None:
        """Have the layers of an image fetched when they are needed, and the image listed when it is whole."""
        from builder.transfer import keep_image  # noqa: PLC0415  only where a base is pulled

        keep = partial(keep_image, self._store)
        if not missing_blobs(self._store.blobs, image.manifest.layers):
            keep(image, reference)
            return
        from builder.solve.arrivals import Arrivals  # noqa: PLC0415  only where a base is pulled

        self._arrivals = self._arrivals or Arrivals(self._store, self._connecting, keep)
        self._arrivals.add(image, reference, span)

    def _find_stored(self, reference: Reference, platform: Platform) -> Image | None:
        """Find a base image in the store.

        Raises:
            ContentError: it is not whole.
        """
        descriptor = self._store.layout.find(reference)
        if descriptor is None:
            return None
        try:
            image = load_image(self._store.blobs, descriptor, platform)
        except PlatformMissingError:
            return None
        missing = missing_blobs(self._store.blobs, image.manifest.layers)
        if missing:
            raise BlobMissingError(missing[0].digest)
        return image

    def _import_caches(self) -> ImportedCaches | None:
        """Read the caches of `--cache-from`; a survey asks no cache."""
        if not self._request.cache_from or self._survey is not None:
            return None
        from builder.cache_places import open_place  # noqa: PLC0415  only with --cache-from
        from builder.solve.imported_cache import ImportedCaches, OpenedSource  # noqa: PLC0415  as above

        places = [
            OpenedSource(
                str(source.location), open_place(source.location, self._store, self._connecting), source.mounts
            )
            for source in self._request.cache_from
        ]
        platforms = self._request.platforms or (self._request.platform,)
        return ImportedCaches(places, platforms, self._store, self._warn)

    def _exports_mounts(self) -> bool:
        """Tell whether contents of cache mounts have to be read, which may belong to ids of the namespace."""
        if not any(target.mounts for target in self._request.cache_to):
            return False
        from builder.dockerfile.mounts import CacheMount  # noqa: PLC0415  only with mounts=true
        from builder.solve.cache_mounts import list_caches  # noqa: PLC0415  as above

        ops = [vertex.op for vertex in self._plans.vertices() if isinstance(vertex.op, RunCommand)]
        has_any = any(isinstance(planned.mount, CacheMount) for op in ops for planned in op.mounts)
        return has_any and bool(list_caches(self._store.root))

    def _explain_cache(self) -> CacheExplainer | None:
        if not self._request.explain_cache or self._survey is not None:
            return None
        from builder.solve.explain_cache import CacheExplainer  # noqa: PLC0415  only with --explain-cache

        place, vertices = name_place(self._request), self._plans.vertices()
        return CacheExplainer(self._store.state, vertices, place, no_cache=self._request.no_cache)

    def _export_caches(self) -> None:
        from builder.export.cache import CacheExporter  # noqa: PLC0415  only with --cache-to

        exporter = CacheExporter(
            self._request, self._plans, self._solver, self._store, imported=self._imported, warn=self._warn
        )
        for target in self._request.cache_to:
            try:
                self._export_cache(exporter, target)
            except (BuildError, RegistryError) as error:
                if not target.ignore_error:
                    raise
                self._warn(f"cache `{target.location}` was not exported, {error.message}")

    def _export_cache(self, exporter: CacheExporter, target: CacheTarget) -> None:
        from builder.cache_places import open_place  # noqa: PLC0415  only with --cache-to

        with self._exporting(f"exporting cache to {target.location}") as note:

            def connecting(_: str) -> AbstractContextManager[RegistryClient]:
                return self._connect(partial(_forward, note))

            exporter.write(target, open_place(target.location, self._store, connecting))

    @contextlib.contextmanager
    def _connecting(self, name: str) -> Iterator[RegistryClient]:
        """Give a registry client that shows its transfers as a piece of work of this name."""
        # Closed, as no connection may be left to two processes once this one has forked.
        with self._exporting(name) as note, self._connect(partial(_forward, note)) as client:
            yield client

    def _pushing_early(self) -> AbstractContextManager[Callable[[Vertex, Layer], None] | None]:
        """Send layers ahead of their image while a block carries out what is left, if something is, and is pushed."""
        names = self._exporter.early_names() if self._solver.left() else ()
        if not names:
            return contextlib.nullcontext()
        from builder.export.early_push import pushing_early  # noqa: PLC0415  only for such builds

        kind = self._request.compression.kind
        return pushing_early(names, self._plans, self._solver, self._store, self._connecting, kind=kind)

    def _warn(self, message: str) -> None:
        self._sink(Warned(vertex=None, message=message, time=time.time()))

    def _push(self, image: Image | ImageIndex, name: Reference) -> None:
        from builder.transfer import push_image  # noqa: PLC0415  only where something is pushed

        with self._connecting(f"pushing {name}") as client:
            push_image(self._store, image.descriptor, name, client)

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


def _open_layers(store: Store, request: BuildRequest, now: Callable[[], str]) -> LayerMaker:
    from builder.solve.layer import LayerMaker  # noqa: PLC0415  a build that is cached makes no layer

    return LayerMaker(store, request.compression, threads=request.jobs, now=now)


def _warning(violation: Violation) -> Warned:
    return Warned(
        vertex=None,
        message=violation.summary,
        detail=RULES[violation.rule],
        location=f"{violation.span.source.name}:{violation.span.line}",
        url=rule_url(violation.rule),
        time=time.time(),
    )


def _forward(note: Note, progress: TransferProgress) -> None:
    note(progress.digest, progress)


class _ShownDownloads:
    """Fetches addresses and shows each as a piece of work."""

    def __init__(self, connect: Connect, exporting: Callable[[str], AbstractContextManager[Note]]) -> None:
        self._connect = connect
        self._exporting = exporting

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
        """Fetch the body of an address into a store; None if it still has these validators."""
        from registry.transport import redact_url  # noqa: PLC0415  only for builds that fetch something

        name = f"[internal] fetch {redact_url(url)}"
        with self._exporting(name) as note, self._connect(partial(_forward, note)) as client:
            return client.download(url, store, etag=etag, modified=modified, authorization=authorization, limit=limit)
