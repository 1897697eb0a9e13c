"""The mounts of a RUN in the plan: expanded, their targets absolute, their `from` found.

A *planned mount* is a mount of the Dockerfile with the number of the vertex it reads from. What it adds to the cache
key is what the step can notice of it; the content it shows enters when the solver knows it.

Source: spec, sections 1.11 and 3.5.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, assert_never

from builder.dockerfile.mounts import BindMount, CacheMount, SecretMount, SshMount, TmpfsMount
from builder.errors import DockerfileError
from registry.value import frozen, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builder.cache.key import Ingredient
    from builder.dockerfile.mounts import Mount, MountFlag
    from builder.plan.graph import Vertex

SSH_SOCKET = "/run/buildkit/ssh_agent.{number}"
"""Where the socket of an ssh mount lies that names no target. Source: BuildKit, client/llb/exec.go."""


@frozen
class PlannedMount:
    """One mount of a RUN, *mount*, whose target is absolute and clean.

    *source* is the number of the vertex it reads from among the sources of its vertex, None for the build context of a
    bind mount and for nothing. *namespace* keeps cache mounts apart.
    """

    mount: Mount
    source: int | None = None
    namespace: str = ""

    @property
    def reads_context(self) -> bool:
        """Whether it shows files of the build context."""
        return isinstance(self.mount, BindMount) and self.source is None

    def identity(self) -> str:
        """Return everything that tells it from another mount, also what is no part of the cache key."""
        return f"{self.mount!r} {self.source} {self.namespace}"

    def ingredients(self) -> tuple[Ingredient, ...]:
        """Name what decides the result beside the content: not the id or sharing of a cache, no value of a secret."""
        match self.mount:
            case BindMount() as bind:
                return ((f"bind mount {bind.target}", "ro" if bind.readonly else "rw"),)
            case CacheMount() as cache:
                numbers = f"mode={cache.mode} uid={cache.uid} gid={cache.gid}"
                return ((f"cache mount {cache.target}", f"{'ro' if cache.readonly else 'rw'} {numbers}"),)
            case TmpfsMount() as tmpfs:
                return ((f"tmpfs mount {tmpfs.target}", f"{'ro' if tmpfs.readonly else 'rw'} size={tmpfs.size}"),)
            case SecretMount() as secret:
                what = f"target={secret.target} env={secret.env} required={secret.required} {_numbers(secret)}"
                return ((f"secret {secret.id}", what),)
            case SshMount() as ssh:
                return ((f"ssh {ssh.id}", f"target={ssh.target} required={ssh.required} {_numbers(ssh)}"),)
            case _:
                assert_never(self.mount)


def plan_mounts(
    flags: Sequence[MountFlag],
    *,
    expand: Callable[[str], str],
    working_directory: str,
    namespace: str,
    find_source: Callable[[str], Vertex],
) -> tuple[tuple[PlannedMount, ...], tuple[Vertex, ...]]:
    """Plan the mounts of one RUN.

    Args:
        flags: as parsed.
        expand: expands the variables in a value.
        working_directory: what relative targets begin at.
        namespace: keeps cache mounts apart, `BUILDKIT_CACHE_MOUNT_NS`.
        find_source: finds what `from` names.

    Returns:
        The mounts in their order, and the vertices they read from, each once.

    Raises:
        DockerfileError: a value is not what its key allows, or a target is the root directory.
    """
    planned: list[PlannedMount] = []
    sources: dict[str, Vertex] = {}
    ssh_count = 0
    for flag in flags:
        mount = flag.expand(expand)
        if isinstance(mount, SshMount):
            if mount.target is None:
                mount = replace(mount, target=SSH_SOCKET.format(number=ssh_count))
            ssh_count += 1
        if mount.target is not None:
            mount = replace(mount, target=_absolute(mount.target, working_directory, flag))
        number: int | None = None
        if isinstance(mount, BindMount | CacheMount) and mount.from_:
            vertex = find_source(mount.from_)
            sources.setdefault(vertex.digest, vertex)
            number = list(sources).index(vertex.digest)
        of_cache = namespace if isinstance(mount, CacheMount) else ""
        planned.append(PlannedMount(mount=mount, source=number, namespace=of_cache))
    return tuple(planned), tuple(sources.values())


def _absolute(target: str, working_directory: str, flag: MountFlag) -> str:
    path = posixpath.normpath(posixpath.join("/", working_directory, target))
    clean = "/" + path.lstrip("/")
    if clean == "/":
        raise DockerfileError(
            f'invalid mount target "{target}": it is the root directory',
            hint="mount below the root directory, or set a WORKDIR before",
            span=flag.span,
        )
    return clean


def _numbers(mount: SecretMount | SshMount) -> str:
    return f"mode={mount.mode:o} uid={mount.uid} gid={mount.gid}"
