"""Dockerfile instructions applied to a config alone, as `import --change` takes them.

Source: docker import, option --change: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
VOLUME, WORKDIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from builder.dockerfile import instructions as dockerfile
from builder.dockerfile.stages import parse_dockerfile
from builder.errors import DockerfileError, UsageError
from builder.plan.convert import convert
from builder.request import BuildRequest
from builder.source import SourceFile, Span
from registry.content.compression import Compression
from registry.oci.image_config import ImageConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.oci.platform import Platform
    from registry.oci.reference import Reference

ALLOWED = (
    dockerfile.Cmd,
    dockerfile.Entrypoint,
    dockerfile.Env,
    dockerfile.Expose,
    dockerfile.Healthcheck,
    dockerfile.Label,
    dockerfile.Maintainer,
    dockerfile.OnBuild,
    dockerfile.Shell,
    dockerfile.StopSignal,
    dockerfile.User,
    dockerfile.Volume,
    dockerfile.Workdir,
)
"""Instructions that change nothing but the config."""


def config_from_changes(platform: Platform, changes: Sequence[str]) -> ImageConfig:
    """Give the config that *changes*, one instruction each, make of an empty one.

    Raises:
        DockerfileError: one cannot be read.
        UsageError: one would change files.
    """
    if not changes:
        return ImageConfig(platform=platform)
    source = parse_dockerfile(SourceFile("--change", "\n".join(["FROM scratch", *changes])))
    for stage in source.stages:
        for instruction in stage.instructions:
            if not isinstance(instruction, ALLOWED) or stage.index:
                raise UsageError(
                    f"not a change of the config alone: `{instruction.original}`", hint="build an image for it"
                )
    nowhere = Path("/nonexistent")
    request = BuildRequest(
        context=nowhere, root=nowhere, platform=platform, build_platform=platform, compression=Compression()
    )
    return convert(source, request, _no_images).config


def _no_images(reference: Reference, _platform: Platform, span: Span | None) -> NoReturn:
    raise DockerfileError(f"FROM is no change of a config: `{reference}`", span=span)
