"""Lists of software (SBOMs): a generator is run on the result as a step of the build, and what it wrote is collected.

The generator's image runs with these places in its root, all but the first read-only:

    /run/out/                   where it writes, one in-toto statement a file
    /run/src/core/sbom          the result
    /run/src/extras/sbom-NAME   other stages and the build context, where a Dockerfile asks for them

It is a step like any other: cached by what it is shown, in the network that the build's steps have, as root of its own
image, with nothing of the host. What it writes is a layer that becomes part of no image.

Source: BuildKit, docs/attestations/sbom-protocol.md, and frontend/attestations/sbom/sbom.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Final

from builder import __version__
from builder.attest.statement import MAX_SIZE, PROVENANCE_PREFIX, READABLE_TYPES, SPDX, Attestation, Subject
from builder.dockerfile.mounts import BindMount, TmpfsMount
from builder.errors import AttestationError, UsageError
from builder.plan.convert import DEFAULT_HOSTNAME
from builder.plan.graph import BaseImage, EmptyFileSystem, MakeDirectory, RunCommand, Vertex
from builder.plan.image_state import DEFAULT_PATH, parse_environ
from builder.plan.mounts import PlannedMount
from builder.plan.scan_scope import ScanScope
from registry.errors import ManifestInvalidError
from registry.oci.canonical_json import decode_json
from registry.value import replace
from runtime.layers.entry import EntryKind
from runtime.layers.read import read_archive
from runtime.layers.whiteouts import WHITEOUT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from builder.plan.graph import Plan
    from builder.request import BuildRequest, SbomRequest
    from registry.content.image import Image
    from registry.oci.digest import Digest
    from registry.oci.image_config import ImageConfig

OUTPUT: Final = "/run/out"
RESULT: Final = "/run/src/core/sbom"
EXTRAS: Final = "/run/src/extras"
CORE_NAME: Final = "sbom"
"""What the list of the result itself is called; others begin with it and a dash."""

_CREATOR: Final = f"Tool: pybuild-{__version__}"
_EMPTY: Final = Vertex(op=EmptyFileSystem(), name="empty file system", text="", stage="")


def plan_scan(wanted: SbomRequest, plan: Plan, request: BuildRequest, image: Image) -> Vertex:
    """Plan the step that lists the software of a result.

    Args:
        wanted: generator and parameters.
        plan: of the result.
        request: network and caching wishes.
        image: the generator.

    Raises:
        UsageError: the generator's image has no command.
    """
    config = image.config
    words = (*(config.entrypoint or ()), *(config.cmd or ()))
    if not words:
        raise UsageError(
            f"sbom scanner {wanted.generator} does not have cmd",
            hint="name an image that is made for it with generator=",
        )
    mounts, sources = _show_trees(plan)
    generator = str(wanted.generator)
    prefix = f"[{plan.platform}]"
    base = Vertex(
        op=BaseImage(reference=generator, image=image),
        name=f"{prefix} FROM {generator}",
        text=f"FROM {generator}",
        stage="",
    )
    folder = Vertex(
        op=MakeDirectory(path=OUTPUT, user="", epoch=plan.epoch),
        parent=base if config.diff_ids else None,
        name=f"{prefix} prepare {generator}",
        text=f"prepare {generator}",
        stage="",
    )
    command = RunCommand(
        args=words,
        environ=_variables(wanted, config, has_extras=len(mounts) > 1),
        cwd=config.working_directory or "/",
        user="",
        platform=str(request.build_platform),
        network=request.network,
        hostname=DEFAULT_HOSTNAME,
        shm_size=request.shm_size,
        mounts=(*mounts, PlannedMount(mount=TmpfsMount(target="/tmp"))),  # noqa: S108  a place in the step's root
    )
    return Vertex(
        op=command,
        parent=folder,
        sources=sources,
        name=f"{prefix} generating sbom using {generator}",
        text=f"generating sbom using {generator}",
        stage="",
        no_cache=request.no_cache,
    )


def _show_trees(plan: Plan) -> tuple[list[PlannedMount], tuple[Vertex, ...]]:
    """Plan the mounts of what is scanned, the result first; return them and what they read from."""
    scope = plan.scope or ScanScope()
    extras = {f"{EXTRAS}/{CORE_NAME}-{name}": vertex for name, vertex in scope.stages}
    sources: dict[str, Vertex] = {}
    mounts: list[PlannedMount] = []
    for target, vertex in ({RESULT: plan.vertex} | extras).items():
        source = vertex or _EMPTY
        sources.setdefault(source.digest, source)
        number = list(sources).index(source.digest)
        mounts.append(PlannedMount(mount=BindMount(target=target), source=number))
    if scope.context:
        mounts.append(PlannedMount(mount=BindMount(target=f"{EXTRAS}/{CORE_NAME}-context")))
    return mounts, tuple(sources.values())


def _variables(wanted: SbomRequest, config: ImageConfig, *, has_extras: bool) -> tuple[tuple[str, str], ...]:
    variables = {"PATH": DEFAULT_PATH, **parse_environ(config.env)}
    variables |= {f"BUILDKIT_SCAN_{name}": value for name, value in wanted.parameters}
    variables |= {"BUILDKIT_SCAN_DESTINATION": f"{OUTPUT}/", "BUILDKIT_SCAN_SOURCE": RESULT}
    return tuple((variables | ({"BUILDKIT_SCAN_SOURCE_EXTRAS": EXTRAS} if has_extras else {})).items())


def read_documents(layer: BinaryIO, generator: str) -> tuple[Attestation, ...]:
    """Collect what a generator wrote, the list of the result first and then by name.

    Args:
        layer: the tar of what it left in its root.
        generator: for messages.

    Raises:
        AttestationError: it wrote nothing, or what is no statement, too long, or about how the image was made.
    """
    found: dict[str, Attestation] = {}
    prefix = f"{OUTPUT.lstrip('/')}/".encode()
    for member in read_archive(layer):
        entry = member.entry
        if not entry.path.startswith(prefix):
            continue
        name = entry.path.removeprefix(prefix).decode("utf-8", "backslashreplace")
        if entry.kind is not EntryKind.FILE or "/" in name or entry.path[len(prefix) :].startswith(WHITEOUT_PREFIX):
            raise AttestationError(f"sbom generator wrote what is no file: `{name}`", hint=_hint(generator))
        if entry.size > MAX_SIZE:
            raise AttestationError(
                f"sbom generator wrote a statement larger than {MAX_SIZE >> 20} MiB: `{name}`", hint=_hint(generator)
            )
        found[name] = _read_document(name, member.read(), generator)
    if not found:
        raise AttestationError(f"sbom generator wrote no statement: `{generator}`", hint=_hint(generator))
    names = sorted(found, key=lambda name: (not is_core(name), name))
    return tuple(found[name] for name in names)


def is_core(name: str) -> bool:
    """Tell whether a file is the list of the result itself."""
    return name.partition(".")[0] == CORE_NAME


def add_layers(document: Attestation, find_layer: Callable[[bytes], Digest | None]) -> Attestation:
    """Tell in an SPDX document of the result which layer each of its files came with, and who told it.

    A file that has a comment keeps it, and one that is in no layer gets none.

    Args:
        document: any attestation; all but such documents are returned as they are.
        find_layer: finds the digest of the layer that has a path.

    Source: BuildKit, exporter/containerimage/attestations.go; SPDX 2.3, sections 6.8 and 8.12.
    """
    if document.predicate_type != SPDX or not is_core(document.file):
        return document
    predicate = dict(document.predicate)
    if isinstance(predicate.get("files"), list):
        predicate["files"] = [_tell_layer(file, find_layer) for file in predicate["files"]]
    info = predicate.get("creationInfo")
    if isinstance(info, dict) and isinstance(info.get("creators"), list):
        predicate["creationInfo"] = {**info, "creators": [*info["creators"], _CREATOR]}
    return replace(document, predicate=predicate)


def _tell_layer(file: Any, find_layer: Callable[[bytes], Digest | None]) -> Any:
    if not isinstance(file, dict) or file.get("comment") or not isinstance(file.get("fileName"), str):
        return file
    path = file["fileName"].removeprefix("./").lstrip("/").encode("utf-8", "surrogateescape")
    digest = find_layer(path)
    return file if digest is None else {**file, "comment": f"layerID: {digest}"}


def _read_document(name: str, data: bytes, generator: str) -> Attestation:
    subject = f"sbom generator's statement {name}"
    try:
        value = decode_json(data, subject=subject)
    except ManifestInvalidError as error:
        raise AttestationError(error.message, hint=_hint(generator)) from error
    if not isinstance(value, dict) or value.get("_type") not in READABLE_TYPES:
        raise AttestationError(f"{subject} is no in-toto statement of a version that is known", hint=_hint(generator))
    predicate_type, predicate = value.get("predicateType"), value.get("predicate")
    if not isinstance(predicate_type, str) or not predicate_type or not isinstance(predicate, dict):
        raise AttestationError(f"{subject} has no predicate", hint=_hint(generator))
    if predicate_type.startswith(PROVENANCE_PREFIX):
        raise AttestationError(f"{subject} is a provenance, which only the builder may write", hint=_hint(generator))
    return Attestation(
        predicate_type=predicate_type,
        predicate=predicate,
        file=name,
        subjects=tuple(_read_subjects(value.get("subject") or (), subject, generator)),
    )


def _read_subjects(values: Any, subject: str, generator: str) -> Iterable[Subject]:
    for value in values if isinstance(values, list | tuple) else (None,):
        name = value.get("name") if isinstance(value, dict) else None
        digest: Mapping[Any, Any] | None = value.get("digest") if isinstance(value, dict) else None
        if not isinstance(digest, dict) or not all(isinstance(text, str) for text in digest.values()):
            raise AttestationError(f"{subject} has a subject without digest", hint=_hint(generator))
        yield Subject(name=name if isinstance(name, str) and name else "_", digest=digest)


def _hint(generator: str) -> str:
    return f"use another --sbom=generator=IMAGE than {generator}"
