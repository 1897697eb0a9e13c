"""What the user asked a build for, fully explicit: no environment, no defaults left to look up."""

from __future__ import annotations

from enum import Enum

from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO, Literal, TypeAlias

    from registry.actions_cache import ActionsCache
    from registry.content.compression import Compression
    from registry.oci.digest import Digest
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference
    from registry.s3 import Bucket

NetworkMode: TypeAlias = 'Literal["default", "host", "none"]'
"""The network of RUN steps. `default` is a private one where the machine can give it, else the host's."""

AnnotationLevel: TypeAlias = 'Literal["manifest", "index", "manifest-descriptor", "index-descriptor"]'
"""Where an annotation stands. Source: BuildKit, docs/annotations.md."""


@frozen(kw_only=False)
class Annotation:
    """One annotation of the result.

    Attributes:
        level: the document it goes to; a descriptor is that of the manifest or index in what lists it.
        platform: only the image of this platform gets it; None means all of them.
        name: its key.
        value: its text.
    """

    level: AnnotationLevel
    platform: Platform | None
    name: str
    value: str


@frozen(kw_only=False)
class SecretSource:
    """One `--secret`: the file *path*, or the *value* of a variable that was read already."""

    id: str
    path: Path | None = None
    value: bytes | None = None

    def __repr__(self) -> str:
        return f"SecretSource(id={self.id!r}, path={self.path!r})"


@frozen(kw_only=False)
class SshSource:
    """One `--ssh`: the socket of an agent, or files with keys."""

    id: str
    socket: Path | None = None
    keys: tuple[Path, ...] = ()


@frozen(kw_only=False)
class DeviceGrant:
    """One `--allow device=NAME[,alias=ALIAS]`: a device name that a RUN may ask for, by its alias too if it has one."""

    name: str
    alias: str | None = None


CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi")
"""Where device files lie, the folder that counts most last. Source: BuildKit, docs/cdi.md."""


@frozen(kw_only=False)
class DeviceRules:
    """What a RUN may be given with `--device`: *all* of the devices, or those of the *grants*; read from *folders*."""

    all: bool = False
    grants: tuple[DeviceGrant, ...] = ()
    folders: tuple[Path, ...] = ()


@frozen(kw_only=False)
class CacheFolder:
    """A cache in an OCI image layout on this machine, by *tag* or *digest*."""

    path: Path
    tag: str = "latest"
    digest: Digest | None = None

    def __str__(self) -> str:
        return str(self.path)


@frozen(kw_only=False)
class CacheRepository:
    """A cache, or an image with one, in a registry; *insecure* lets that be reached without TLS."""

    reference: Reference
    insecure: bool = False

    def __str__(self) -> str:
        return str(self.reference)


CacheLocation: TypeAlias = "CacheFolder | CacheRepository | Bucket | ActionsCache"
"""Where a cache is kept. Its text is what messages call it, without credentials."""


@frozen(kw_only=False)
class CacheSource:
    """One `--cache-from`; *mounts* begins cache mounts with what it has of them."""

    location: CacheLocation
    mounts: bool = True


@frozen(kw_only=False)
class CacheTarget:
    """One `--cache-to`, but `type=inline`.

    *all_steps* takes the layers of all steps (mode=max), not only of the result; *ignore_error* makes an error a
    warning; *mounts* takes the contents of cache mounts, those with no more than *mounts_limit* bytes each if it is given.
    """

    location: CacheLocation
    all_steps: bool = False
    ignore_error: bool = False
    mounts: bool = False
    mounts_limit: int | None = None


SlsaVersion: TypeAlias = 'Literal["v1", "v0.2"]'
"""Which form of the SLSA provenance predicate is written. Source: slsa.dev, specs v1.1 and v0.2."""

ProvenanceMode: TypeAlias = 'Literal["min", "max"]'
"""How much a provenance tells: `max` adds arguments, secrets by id, the Dockerfile, steps and their layers."""


@frozen(kw_only=False)
class ProvenanceRequest:
    """What `--provenance` asks for.

    *builder_id* names who built, *reproducible* is the user's claim, *filename* is what it is called beside the files of
    a result, *inline_only* keeps it out of there. Source: BuildKit, docs/attestations/slsa-provenance.md.
    """

    mode: ProvenanceMode = "max"
    version: SlsaVersion = "v1"
    builder_id: str = ""
    filename: str = "provenance.json"
    reproducible: bool = False
    inline_only: bool = False


@frozen(kw_only=False)
class SbomRequest:
    """What `--sbom` asks for: the image of a *generator*, and *parameters* it gets as `BUILDKIT_SCAN_NAME`."""

    generator: Reference
    parameters: tuple[tuple[str, str], ...] = ()


class OutputType(Enum):
    """Kinds of `--output`, spelled as BuildKit does."""

    IMAGE = "image"
    OCI = "oci"
    DOCKER = "docker"
    LOCAL = "local"
    TAR = "tar"
    REGISTRY = "registry"
    CACHE_ONLY = "cacheonly"


@frozen
class Output:
    """One `--output`. *destination* is None for standard output and where the type has none."""

    type: OutputType
    destination: Path | None = None
    names: tuple[Reference, ...] = ()
    tar: bool = True
    push: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


@frozen
class BuildRequest:
    """One build.

    *context* is a folder as its path, or as text an address or `-` for *stdin*. *dockerfile* None means `Dockerfile`
    (or `dockerfile`) in the context, which for a context that is no folder is also what the path is relative to;
    *dockerfile_text* and *dockerfile_url* replace it. *build_contexts* are the named contexts. *git_environ* are
    variables of the user for git, which takes those it needs. *platform* is the target platform;
    *platforms* are all of them where there are several, *platform* being the first, and empty where there is one.
    *tags* are the names the image gets in the store. *inline_cache* puts a cache into the image. *no_cache_stages* holds
    the stages of `--no-cache-filter`. *explain_cache* has every step say whether the cache had it, and why not.
    *ulimits* are name, soft and hard limit, -1 for no limit. *allow* holds entitlements (`builder.plan.entitlements`),
    with that for the host's network if *network* is `host`; *devices* says of the one for devices what it covers.
    *recorded* is how much of a provenance the result tells of itself, None for nothing. *jobs* is how many steps run at
    once, and how many threads make a layer; *limits_jobs* says that there are no more steps while processors are idle.
    """

    context: Path | str
    root: Path
    platform: Platform
    build_platform: Platform
    platforms: tuple[Platform, ...] = ()
    dockerfile: Path | None = None
    dockerfile_text: str | None = None
    dockerfile_url: str | None = None
    stdin: BinaryIO | None = None
    build_contexts: Mapping[str, Path | str] = field(default_factory=dict)
    git_environ: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[Reference, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[Annotation, ...] = ()
    outputs: tuple[Output, ...] = ()
    compression: Compression
    cache_from: tuple[CacheSource, ...] = ()
    cache_to: tuple[CacheTarget, ...] = ()
    inline_cache: bool = False
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    explain_cache: bool = False
    pull: bool = False
    network: NetworkMode = "default"
    add_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 64 * 1024 * 1024
    ulimits: tuple[tuple[str, int, int], ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    ssh: tuple[SshSource, ...] = ()
    allow: frozenset[str] = frozenset()
    devices: DeviceRules = field(default_factory=DeviceRules)
    provenance: ProvenanceRequest | None = None
    sbom: SbomRequest | None = None
    recorded: ProvenanceMode | None = None
    jobs: int = 2
    limits_jobs: bool = True


def is_attested(request: BuildRequest) -> bool:
    """Tell whether a build is asked to say anything of its results, in an attestation or to who started it."""
    return any(wish is not None for wish in (request.provenance, request.sbom, request.recorded))
