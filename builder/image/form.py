"""The form of an image: everything an output may ask of it that is not its content.

Source: spec, sections 2.4, 2.5 and 3.3; BuildKit, `exporter/containerimage/opts.go` and `exptypes/annotations.go`.
"""

from __future__ import annotations

import re

from builder.errors import UsageError
from builder.request import Annotation, AnnotationLevel, OutputType
from registry.content.compression import Compression
from registry.oci.platform import parse_platform
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from builder.request import BuildRequest, Output
    from registry.oci.platform import Platform

ANNOTATION_LEVELS: tuple[AnnotationLevel, ...] = ("manifest", "index", "manifest-descriptor", "index-descriptor")
"""The levels of annotations as they are spelled."""

CREATED_ANNOTATION: Final = "org.opencontainers.image.created"
"""Says when an image was made. Source: image-spec, annotations.md."""

_BOOLEANS: Final = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_OUTPUT_KEY: Final = r"annotation(?:-([a-z-]+))?(?:\[([^\]]*)\])?\.(.+)"
_OPTION_TYPE: Final = r"([a-z-]+)(?:\[([^\]]*)\])?"


@frozen(kw_only=False)
class ImageForm:
    """How an image is written down.

    Attributes:
        compression: of new layers, and of all where *force* is set.
        force: store layers again that are there in another form, those of the base too.
        rewrite: no time in the new layers is later than the epoch.
        docker_types: Docker's media types instead of OCI's.
        annotations: of manifests, index and their descriptors.
        attested: what the build tells of it stands in an index beside it.
        artifact: that stands there as an OCI artifact, not as what looks like an image.
    """

    compression: Compression
    force: bool = False
    rewrite: bool = False
    docker_types: bool = False
    annotations: tuple[Annotation, ...] = ()
    attested: bool = False
    artifact: bool = False

    def annotations_of(self, level: AnnotationLevel, platform: Platform | None = None) -> dict[str, str]:
        """Give the annotations of one document: those for all platforms, then those for *platform*."""
        return {
            each.name: each.value
            for each in sorted(self.annotations, key=lambda each: each.platform is not None)
            if each.level == level and (each.platform is None or each.platform == platform)
        }


def read_form(output: Output, request: BuildRequest, *, is_index: bool) -> ImageForm:
    """Read what an output asks of the image, on top of what the request asks of all.

    Args:
        output: with its attributes as they were written.
        request: compression and annotations of the whole build.
        is_index: the result is an index.

    Raises:
        UsageError: a value that cannot be, or annotations where they have no place.
        CompressionInvalidError: an unknown compression.
    """
    attributes = output.attributes
    kind, level = attributes.get("compression"), attributes.get("compression-level")
    compression = request.compression
    if kind is not None or level is not None:
        compression = Compression.parse(kind or compression.kind, level)
        if level is None and compression.kind == request.compression.kind:
            compression = request.compression
    own = tuple(
        _parse_output_annotation(key, value) for key, value in attributes.items() if key.startswith("annotation")
    )
    annotations = (*request.annotations, *own)
    docker_types = not parse_boolean(attributes.get("oci-mediatypes", "true"), "oci-mediatypes")
    attested = _is_attested(output, request)
    artifact = parse_boolean(attributes.get("oci-artifact", str(not docker_types)), "oci-artifact")
    if docker_types and (attested or artifact):
        what = "attestations need" if attested else "oci-artifact=true needs"
        raise UsageError(f"{what} OCI media types", hint="drop oci-mediatypes=false")
    _check_annotations(annotations, is_index=is_index or attested, docker_types=docker_types)
    return ImageForm(
        compression=compression,
        force=parse_boolean(attributes.get("force-compression", "false"), "force-compression"),
        rewrite=parse_boolean(attributes.get("rewrite-timestamp", "false"), "rewrite-timestamp"),
        docker_types=docker_types,
        annotations=annotations,
        attested=attested,
        artifact=attested and artifact,
    )


def _is_attested(output: Output, request: BuildRequest) -> bool:
    """Tell whether an output holds an image with what the build tells of it.

    What is for images alone (`inline-only`) is left out where `attestation-inline=false` says so.

    Raises:
        UsageError: it is an archive for docker, which holds no index.
    """
    is_archive = output.type is OutputType.DOCKER
    inline = parse_boolean(output.attributes.get("attestation-inline", str(not is_archive)), "attestation-inline")
    provenance = request.provenance is not None and (inline or not request.provenance.inline_only)
    attested = request.sbom is not None or provenance
    if attested and is_archive:
        raise UsageError(
            "docker exporter does not currently support exporting manifest lists",
            hint="attestations need one: use type=oci, or --provenance=false --sbom=false",
        )
    return attested and output.type not in {OutputType.LOCAL, OutputType.TAR, OutputType.CACHE_ONLY}


def parse_boolean(text: str, key: str) -> bool:
    """Read the value of an output's key that is true or false.

    Raises:
        UsageError: it is neither.
    """
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise UsageError(f"option --output: {key} is true or false, not `{text}`")
    return value


def parse_annotations(text: str) -> tuple[Annotation, ...]:
    """Read one `--annotation`: `[LEVEL[PLATFORM],…:]NAME=VALUE`.

    Raises:
        UsageError: no name, or an unknown level.

    Source: docker/buildx, util/buildflags/export.go, ParseAnnotations.
    """
    name, equals, value = text.partition("=")
    levels, colon, rest = name.partition(":")
    if colon:
        name = rest
    if not name or not equals:
        raise UsageError(f"option --annotation: not a name and a value: `{text}`", hint="write it like NAME=VALUE")
    found: list[Annotation] = []
    for part in levels.split(",") if colon else ("manifest",):
        match = re.fullmatch(_OPTION_TYPE, part.strip())
        if match is None:
            raise UsageError(f"option --annotation: not a level: `{part}`", hint=_levels_hint())
        found.append(Annotation(_level(match[1], text), _platform(match[2]), name, value))
    return tuple(found)


def folder_of(platform: Platform) -> str:
    """Name the folder of one platform's files where several are written."""
    return str(platform).replace("/", "_")


def check_outputs(request: BuildRequest, *, is_index: bool) -> None:
    """Refuse outputs that cannot take an image for several platforms or its attestations, before anything runs.

    Raises:
        UsageError: one cannot.
    """
    for output in request.outputs:
        _is_attested(output, request)
    if is_index and any(output.type is OutputType.DOCKER for output in request.outputs):
        raise UsageError(
            "docker exporter does not currently support exporting manifest lists", hint="use type=oci, or one platform"
        )


def _parse_output_annotation(key: str, value: str) -> Annotation:
    match = re.fullmatch(_OUTPUT_KEY, key)
    if match is None:
        raise UsageError(f"option --output: not an annotation: `{key}`", hint="write it like annotation.NAME=VALUE")
    return Annotation(_level(match[1] or "manifest", key), _platform(match[2]), match[3], value)


def _level(text: str, whole: str) -> AnnotationLevel:
    for level in ANNOTATION_LEVELS:
        if level == text:
            return level
    raise UsageError(f"unknown level of an annotation, {text}: `{whole}`", hint=_levels_hint())


def _levels_hint() -> str:
    return f"use one of {', '.join(ANNOTATION_LEVELS)}"


def _platform(text: str | None) -> Platform | None:
    return parse_platform(text) if text else None


def _check_annotations(annotations: tuple[Annotation, ...], *, is_index: bool, docker_types: bool) -> None:
    if annotations and docker_types:
        raise UsageError("annotations need OCI media types", hint="drop oci-mediatypes=false")
    if not is_index and any(each.level.startswith("index") for each in annotations):
        raise UsageError(
            "index annotations are not supported for a single platform",
            hint="use the level manifest, or make an index with --build-arg BUILDKIT_MULTI_PLATFORM=1",
        )
