"""What a result was made of: images, repositories, files of the network, and folders of which nothing is known.

A *material* is an address with the digest of what was there. Only what the plan of one platform uses is listed.

Source: BuildKit, solver/llbsolver/provenance/capture.go; slsa.dev, ResourceDescriptor.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.attest.purl import source_purl
from builder.dockerfile.mounts import SecretMount, SshMount
from builder.plan.graph import BaseImage, CopyFiles, RunCommand
from registry.oci.digest import digest_algorithm, digest_hex
from registry.value import field, frozen, mutable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from builder.context.remote import Network, RemoteSource
    from builder.plan.graph import Vertex
    from builder.request import BuildRequest

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CREDENTIALS = re.compile(r"(?:GIT_AUTH_(?:TOKEN|HEADER)|HTTP_AUTH_(?:TOKEN|HEADER))(?:[._].*)?")
"""Ids of secrets that open what is fetched (builder.context.authorization)."""


@frozen(kw_only=False)
class Material:
    """Something that went in: where it is, and its digests by algorithm, empty if that is not known."""

    uri: str
    digest: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as SLSA writes it."""
        return {"uri": self.uri, **({"digest": dict(self.digest)} if self.digest else {})}


@mutable(kw_only=False)
class Inputs:
    """All that went into a result.

    *locals* are folders by name. *secrets* and *agents* say by id whether they were required. *networked* tells that
    a command could reach a network. *context* is the build context, if it came from one.
    """

    images: list[Material] = field(default_factory=list)
    repositories: list[Material] = field(default_factory=list)
    files: list[Material] = field(default_factory=list)
    locals: list[str] = field(default_factory=list)
    secrets: dict[str, bool] = field(default_factory=dict)
    agents: dict[str, bool] = field(default_factory=dict)
    networked: bool = False
    context: Material | None = None

    @property
    def materials(self) -> tuple[Material, ...]:
        """All materials, each kind in the order of its addresses."""
        kinds = (self.images, self.repositories, self.files)
        return tuple(one for kind in kinds for one in sorted(kind, key=lambda each: each.uri))


def gather(
    vertices: Iterable[Vertex], scanned: Iterable[Vertex], request: BuildRequest, network: Callable[[], Network]
) -> Inputs:
    """Find what went into a result.

    Args:
        vertices: what was done for it.
        scanned: what was done to list its software, of which only images count.
        request: names the contexts.
        network: has fetched what came from the network.
    """
    found = Inputs()
    _add_context(found, request, network)
    for vertex in vertices:
        match vertex.op:
            case BaseImage() as op:
                _add_image(found, op)
            case CopyFiles() as op:
                for remote in op.remotes:
                    _add_remote(found, remote, network)
                if op.context is not None:
                    _add_named(found, op.context, request, network)
            case RunCommand() as op:
                found.networked = found.networked or op.network != "none"
                _add_secrets(found, op)
            case _:
                pass
    for vertex in scanned:
        if isinstance(vertex.op, BaseImage):
            _add_image(found, vertex.op)
    if found.repositories or found.files:
        for secret in request.secrets:
            if _CREDENTIALS.fullmatch(secret.id):
                found.secrets.setdefault(secret.id, False)
    found.locals.sort()
    return found


def _add_context(found: Inputs, request: BuildRequest, network: Callable[[], Network]) -> None:
    if request.dockerfile_url is not None:
        from builder.context.remote import parse_url_source  # noqa: PLC0415  only for what comes from the network

        _add_remote(found, parse_url_source(request.dockerfile_url), network)
    elif isinstance(request.context, Path) or request.dockerfile_text is not None:
        found.locals.append("dockerfile")
    if isinstance(request.context, Path) or request.context == "-":
        found.locals.append("context")
    else:
        found.context = _add_address(found, request.context, network)


def _add_named(found: Inputs, key: str, request: BuildRequest, network: Callable[[], Network]) -> None:
    value = request.build_contexts.get(key)
    if isinstance(value, str):
        _add_address(found, value, network)
    elif key not in found.locals:
        found.locals.append(key)


def _add_address(found: Inputs, address: str, network: Callable[[], Network]) -> Material:
    """Add a repository or a tar at an address."""
    from builder.context.remote import parse_context_address  # noqa: PLC0415  only for what comes from the network

    return _add_remote(found, parse_context_address(address), network)


def _add_image(found: Inputs, op: BaseImage) -> None:
    digest = op.image.descriptor.digest
    known = {digest_algorithm(digest): digest_hex(digest)}
    _add(found.images, Material(source_purl(op.reference, op.image.config.platform), known))


def _add_remote(found: Inputs, source: RemoteSource, network: Callable[[], Network]) -> Material:
    from builder.context.git import GitSource  # noqa: PLC0415  only for what comes from the network

    if isinstance(source, GitSource):
        commit = network().commit(source)
        name = "sha256" if len(commit) == 64 else "sha1"
        return _add(found.repositories, Material(source.shown, {name: commit} if _COMMIT.fullmatch(commit) else {}))
    digest = network().ask(source, None).digest
    return _add(found.files, Material(source.shown, {digest_algorithm(digest): digest_hex(digest)}))


def _add_secrets(found: Inputs, op: RunCommand) -> None:
    for planned in op.mounts:
        match planned.mount:
            case SecretMount() as secret:
                found.secrets[secret.id] = found.secrets.get(secret.id, False) or secret.required
            case SshMount() as agent:
                found.agents[agent.id] = found.agents.get(agent.id, False) or agent.required
            case _:
                pass


def _add(known: list[Material], material: Material) -> Material:
    if material not in known:
        known.append(material)
    return material
