"""What the user asked a build for, fully explicit: no environment, no defaults left to look up."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.content.compression import Compression
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference

NetworkMode = Literal["default", "host", "none"]
"""The network of RUN steps; `default` is the host's until private networks come."""


class OutputType(Enum):
    """Kinds of `--output`, spelled as BuildKit does."""

    IMAGE = "image"
    OCI = "oci"
    DOCKER = "docker"
    LOCAL = "local"
    TAR = "tar"
    REGISTRY = "registry"
    CACHE_ONLY = "cacheonly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One `--output`. *destination* is None for standard output and where the type has none."""

    type: OutputType
    destination: Path | None = None
    names: tuple[Reference, ...] = ()
    tar: bool = True
    push: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build.

    *dockerfile* None means `Dockerfile` (or `dockerfile`) in the context. *platform* is the target platform. *tags*
    are the names the image gets in the store. *no_cache_stages* holds the stages of `--no-cache-filter`. *ulimits*
    are name, soft and hard limit, -1 for no limit.
    """

    context: Path
    root: Path
    platform: Platform
    build_platform: Platform
    dockerfile: Path | None = None
    dockerfile_text: str | None = None
    tags: tuple[Reference, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    compression: Compression
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    network: NetworkMode = "default"
    add_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 64 * 1024 * 1024
    ulimits: tuple[tuple[str, int, int], ...] = ()
    jobs: int = 2
