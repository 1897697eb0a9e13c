"""From a solved build to its outputs: the image in the forms they ask for, and the places they go to.

Images of one form are made once. The platforms of a build become one index, or lie in one folder each.
"""

from __future__ import annotations

from builder.cache.state import Record
from builder.errors import UsageError
from builder.image.assemble import Layer, assemble_image, layer_descriptor
from builder.image.form import CREATED_ANNOTATION, folder_of, parse_boolean, read_form
from builder.plan.epoch import format_epoch
from builder.plan.platforms import is_multi_platform
from builder.request import Output, OutputType
from registry.oci.media_types import is_nondistributable, layer_compression
from registry.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from builder.attest.attestor import Attestor
    from builder.export.filesystem import FileWriter
    from builder.image.form import ImageForm
    from builder.image.index import Attachment, ImageIndex
    from builder.plan.graph import Plan
    from builder.plan.platforms import Plans
    from builder.request import BuildRequest
    from builder.solve.filesystem import FileSystem
    from builder.solve.solver import Solver
    from builder.store import Store
    from registry.content.image import Image
    from registry.oci.descriptor import Descriptor
    from registry.oci.digest import Digest
    from registry.oci.reference import Reference

    Note = Callable[[str, None], None]
    Exporting = Callable[[str], AbstractContextManager[Note]]
    Push = Callable[[Image | ImageIndex, Reference], None]


class Exporter:
    """Makes images of a solved build and writes its outputs.

    Args:
        request: what is asked for.
        plans: of the build.
        solver: has carried them out.
        store: has the layers, and takes what is made of them.
        exporting: tells the user of a piece of work while its block runs.
        push: brings an image to a registry.
        attestor: tells of the results; None if nothing is told.
    """

    def __init__(
        self,
        request: BuildRequest,
        plans: Plans,
        solver: Solver,
        store: Store,
        *,
        exporting: Exporting,
        push: Push,
        attestor: Attestor | None = None,
    ) -> None:
        self._request = request
        self._plans = plans.plans
        self._solver = solver
        self._store = store
        self._exporting = exporting
        self._push = push
        self._attestor = attestor
        self._is_index = is_multi_platform(request)
        self._plain = read_form(Output(type=OutputType.IMAGE), request, is_index=self._is_index)
        self._forms = {
            position: read_form(output, request, is_index=self._is_index)
            for position, output in enumerate(request.outputs)
        }
        self._made: dict[tuple[ImageForm, tuple[Reference, ...]], Image | ImageIndex] = {}

    def image(self) -> Image | ImageIndex:
        """Give what the build made, in the form of its first output that holds an image, else in the plain one."""
        for position, output in enumerate(self._request.outputs):
            if output.type not in {OutputType.LOCAL, OutputType.TAR, OutputType.CACHE_ONLY}:
                return self._image(self._forms[position], self._names(output))
        attested = self._plain.attested and not self._request.outputs  # files have theirs beside them
        return self._image(replace(self._plain, attested=attested), self._request.tags)

    def write(self) -> None:
        """Write all outputs; without any, the image goes to the store."""
        if not self._request.outputs:
            self._store_image(self._image(self._plain, self._request.tags), self._request.tags)
        for position, output in enumerate(self._request.outputs):
            self._write(output, self._forms[position])

    def early_names(self) -> tuple[Reference, ...]:
        """List the names under which images are pushed that are made of layers as they are stored."""
        return tuple(
            name
            for output, form in zip(self._request.outputs, self._forms.values(), strict=True)
            if _is_pushed(output) and not (form.rewrite or form.force) and form.compression == self._request.compression
            for name in self._names(output)
        )

    def _names(self, output: Output) -> tuple[Reference, ...]:
        return output.names or self._request.tags

    def _write(self, output: Output, form: ImageForm) -> None:
        names = self._names(output)
        match output.type:
            case OutputType.IMAGE | OutputType.REGISTRY:
                image = self._image(form, names)
                self._store_image(image, names)
                if _is_pushed(output):
                    self._push_all(image, names)
            case OutputType.OCI | OutputType.DOCKER:
                self._write_archive(output, self._image(form, names), names)
            case OutputType.TAR | OutputType.LOCAL:
                self._write_files(output)
            case OutputType.CACHE_ONLY:
                pass

    # Images

    def _image(self, form: ImageForm, names: tuple[Reference, ...]) -> Image | ImageIndex:
        """Give the image of a form; only what is told of it knows its names."""
        question = (form, names if form.attested else ())
        if question not in self._made:
            with self._exporting("exporting to image") as note:
                self._made[question] = self._assemble(form, names, note)
        return self._made[question]

    def _assemble(self, form: ImageForm, names: tuple[Reference, ...], note: Note) -> Image | ImageIndex:
        note("exporting layers", None)
        images = []
        for plan in self._plans:
            image = self._assemble_plan(plan, form)
            note(f"exporting manifest {image.descriptor.digest}", None)
            note(f"exporting config {image.manifest.config.digest}", None)
            images.append(image)
        if not self._is_index and not form.attested:
            return images[0]
        from builder.image.index import write_index  # noqa: PLC0415  most builds make one image

        attachments = self._attest(images, form, names, note)
        epoch = self._plans[0].epoch
        created = {} if epoch is None or form.docker_types else {CREATED_ANNOTATION: format_epoch(epoch)}
        index = write_index(
            [
                replace(image, descriptor=replace(image.descriptor, platform=plan.platform))
                for image, plan in zip(images, self._plans, strict=True)
            ],
            self._store.blobs,
            attachments=attachments,
            annotations={**created, **form.annotations_of("index")},
            descriptor_annotations=form.annotations_of("index-descriptor"),
            docker_types=form.docker_types,
        )
        note(f"exporting manifest list {index.descriptor.digest}", None)
        return index

    def _attest(
        self, images: Sequence[Image], form: ImageForm, names: tuple[Reference, ...], note: Note
    ) -> list[Attachment]:
        """Write what is told of each image, if anything is."""
        if self._attestor is None or not form.attested:
            return []
        attachments = []
        for plan, image in zip(self._plans, images, strict=True):
            attached = self._attestor.attach(plan, image, names, artifact=form.artifact)
            note(f"exporting attestation manifest {attached.descriptor.digest}", None)
            attachments.append(attached)
        return attachments

    def _assemble_plan(self, plan: Plan, form: ImageForm) -> Image:
        layers = self._solver.result(plan.vertex)
        base = plan.base
        if base is not None:
            self._solver.file_systems.fetch(base)
        kept = dict(zip(base.config.diff_ids, base.manifest.layers, strict=True)) if base else {}
        if form.rewrite and plan.epoch is not None:
            layers = self._rewrite(layers, len(base.config.diff_ids) if base else 0, plan.epoch, form)
        descriptors = [
            layer_descriptor(self._stored(layer.diff_id, kept.get(layer.diff_id), form), docker_types=form.docker_types)
            for layer in layers
        ]
        return assemble_image(
            plan,
            layers,
            self._solver.made(),
            descriptors,
            self._store.blobs,
            annotations=form.annotations_of("manifest", plan.platform),
            descriptor_annotations=form.annotations_of("manifest-descriptor", plan.platform),
            docker_types=form.docker_types,
            epoch=None if plan.epoch is None else format_epoch(plan.epoch),
            cache=self._inline_cache(plan, layers) if self._request.inline_cache else {},
        )

    def _inline_cache(self, plan: Plan, layers: FileSystem) -> dict[str, object]:
        from builder.cache.inline import inline_cache  # noqa: PLC0415  only with --cache-to type=inline
        from builder.export.cache import find_keys  # noqa: PLC0415  as above

        return inline_cache(find_keys(plan, layers, self._solver, self._store))

    def _stored(self, diff_id: Digest, base: Descriptor | None, form: ImageForm) -> Descriptor:
        """Find the stored form of a layer that an image of *form* is made of, or make it."""
        wanted = form.compression
        stored = base or self._solver.file_systems.get_blob(diff_id, wanted.kind)
        if layer_compression(stored.media_type) == wanted.kind or is_nondistributable(stored.media_type):
            return stored
        if not form.force and (base is not None or wanted == self._request.compression):
            return stored
        from registry.content.layer_sink import recompress  # noqa: PLC0415  a build that is cached compresses nothing

        known = self._solver.file_systems.find_blob(diff_id, wanted.kind)
        if known is not None and layer_compression(known.media_type) == wanted.kind:
            return known
        self._solver.file_systems.prove(diff_id)
        made = recompress(self._store.blobs, stored, wanted, threads=self._request.jobs)
        self._store.state.put_blob(made.diff_id, made.descriptor)
        return made.descriptor

    def _rewrite(self, layers: FileSystem, base_count: int, epoch: int, form: ImageForm) -> FileSystem:
        """Give the file system with no later times than *epoch* in the layers above the base."""
        return (
            *layers[:base_count],
            *(self._rewrite_layer(layer, epoch, form) for layer in layers[base_count:]),
        )

    def _rewrite_layer(self, layer: Layer, epoch: int, form: ImageForm) -> Layer:
        from builder.image.rewrite import clamp_times, rewrite_key  # noqa: PLC0415  only where times are rewritten
        from builder.solve.layer import LayerMaker  # noqa: PLC0415  as above

        key, ingredients = rewrite_key(layer.diff_id, epoch)
        known = self._store.state.find_answer(key)
        if known is not None and self._solver.file_systems.find_blob(known[0]) is not None:
            return replace(layer, diff_id=known[0])
        created = layer.created or ""
        maker = LayerMaker(self._store, form.compression, threads=self._request.jobs, now=lambda: created)
        with self._solver.file_systems.open_tar(layer.diff_id) as tar:
            made = maker.make(lambda writer, note: clamp_times(tar, writer, epoch, note))
        self._store.state.put_record(
            Record(
                key=key,
                op=key,
                diff_id=made.diff_id,
                created=created,
                name="rewrite timestamps",
                ingredients=ingredients,
            )
        )
        return replace(layer, diff_id=made.diff_id)

    # Places

    def _store_image(self, image: Image | ImageIndex, names: Sequence[Reference]) -> None:
        with self._exporting("naming the image") as note:
            for name in names or (None,):
                self._store.layout.put(image.descriptor, name)
                if name is not None:
                    note(f"naming to {name}", None)

    def _push_all(self, image: Image | ImageIndex, names: Sequence[Reference]) -> None:
        if not names:
            raise UsageError("tag is needed when pushing to registry", hint="name the image with --tag")
        for name in names:
            self._push(image, name)

    def _write_archive(self, output: Output, image: Image | ImageIndex, names: tuple[Reference, ...]) -> None:
        from builder.export.destination import open_destination  # noqa: PLC0415  only for these outputs
        from builder.export.oci_layout import NamedImage, write_archive, write_layout  # noqa: PLC0415  only for these outputs

        docker = output.type is OutputType.DOCKER
        with self._exporting(f"exporting to {'docker' if docker else 'oci'} image format"):
            if not output.tar and output.destination is not None:
                write_layout(image, self._store.blobs, output.destination, names)
                return
            with open_destination(output.destination) as write:
                write_archive([NamedImage(image=image, names=names)], self._store.blobs, write, docker=docker)

    def _write_files(self, output: Output) -> None:
        from builder.export.destination import open_destination  # noqa: PLC0415  only for these outputs
        from builder.export.filesystem import FileWriter, write_directory  # noqa: PLC0415  only for these outputs

        split = parse_boolean(output.attributes.get("platform-split", str(self._is_index)), "platform-split")
        with self._exporting("exporting to client"):
            if output.type is OutputType.LOCAL:
                if output.destination is None:
                    raise UsageError("dest is needed for a local output", hint="write -o type=local,dest=FOLDER")
                write_directory(output.destination, lambda writer: self._write_plans(writer, output, split=split))
            else:
                with open_destination(output.destination) as write:
                    writer = FileWriter(write)
                    self._write_plans(writer, output, split=split)
                    writer.finish()

    def _write_plans(self, writer: FileWriter, output: Output, *, split: bool) -> None:
        prefix = output.attributes.get("attestation-prefix", "")
        for plan in self._plans:
            folder = folder_of(plan.platform)
            with self._solver.file_systems.mounted(self._solver.result(plan.vertex)) as view:
                writer.add_view(view, epoch=plan.epoch, folder=folder if split else "")
                for name, content in self._attestor.files(plan, view) if self._attestor else ():
                    stem, dot, suffix = name.rpartition(".")
                    whole = f"{stem}.{folder}{dot}{suffix}" if self._is_index and not split else name
                    writer.add_file(f"{prefix}{whole}", content)


def _is_pushed(output: Output) -> bool:
    return output.push or output.type is OutputType.REGISTRY
