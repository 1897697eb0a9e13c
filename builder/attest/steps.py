"""The steps of a build, told in the words of BuildKit's low-level build definition (LLB), which readers know.

A *step* has a number, an op in the JSON form of LLB's protocol buffers, and inputs, `step3:0` being the first output of
another. Nothing here is LLB to pybuild: it is a translation of the plan, with what LLB has no words for left out
(devices, limits, what a mount asks of a cache's owner). Zeros that mean something are written, others are not.

Source: moby/buildkit, solver/pb/ops.proto; solver/llbsolver/provenance/buildconfig.go.
"""

from __future__ import annotations

import base64
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, assert_never

from builder.attest.redact import redact_text, redact_value
from builder.dockerfile.mounts import BindMount, CacheMount, SecretMount, SshMount, TmpfsMount
from builder.plan.graph import BaseImage, CopyFiles, EmptyFileSystem, MakeDirectory, RunCommand
from builder.plan.owner import needs_no_file, parse_id
from registry.errors import ReferenceInvalidError
from registry.oci.platform import Platform, parse_platform
from registry.oci.reference import parse_reference
from registry.value import field, mutable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from builder.context.remote import RemoteSource
    from builder.plan.graph import Vertex
    from builder.plan.mounts import PlannedMount

_NONE: Final = -1
"""An input or output that is not there."""
_NETWORKS: Final = {"default": 0, "host": 1, "none": 2}
_MOUNTS: Final = {"secret": 1, "ssh": 2, "cache": 3, "tmpfs": 4}
_SHARINGS: Final = {"shared": 0, "private": 1, "locked": 2}
_UNCHANGED_MODE: Final = -1
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_PROGRAM_MODE: Final = 0o755


@mutable(kw_only=False)
class Steps:
    """Steps in order, inputs first, and which *output* each vertex became, by its digest."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    _sources: dict[str, str] = field(default_factory=dict)

    def add(self, op: dict[str, Any], inputs: Iterable[str], platform: Platform | None = None) -> str:
        """Append a step and return its output."""
        number = f"step{len(self.steps)}"
        where = {} if platform is None else {"platform": _platform_to_json(platform)}
        step = {"id": number, "op": {"Op": op, **where, "constraints": {}}}
        self.steps.append({**step, **({"inputs": found} if (found := list(inputs)) else {})})
        return f"{number}:0"

    def source(
        self, identifier: str, *, platform: Platform | None = None, attributes: Mapping[str, str] = MappingProxyType({})
    ) -> str:
        """Return the output of the step that brings a source in, which is made once."""
        if identifier not in self._sources:
            attrs = {"attrs": dict(attributes)} if attributes else {}
            self._sources[identifier] = self.add({"source": {"identifier": identifier, **attrs}}, (), platform)
        return self._sources[identifier]

    def output(self, vertex: Vertex | None) -> str | None:
        """Return the output that a vertex became; None for the empty file system."""
        return None if vertex is None else self.outputs.get(vertex.digest)


def describe_steps(vertices: Iterable[Vertex], result: Vertex | None) -> Steps:
    """Tell what was done, inputs first; the last step stands for the result.

    Args:
        vertices: all that are needed, inputs before those that need them.
        result: one of them; None for the empty file system.
    """
    steps = Steps()
    for vertex in vertices:
        match vertex.op:
            case EmptyFileSystem():
                continue
            case BaseImage() as op:
                output = _add_image(steps, op)
            case RunCommand() as op:
                output = _add_command(steps, vertex, op)
            case CopyFiles() as op:
                output = _add_copy(steps, vertex, op)
            case MakeDirectory() as op:
                action = {"path": op.path, "mode": _DIRECTORY_MODE, "makeParents": True, "timestamp": _time(op.epoch)}
                owner = _owner(op.user)
                output = _add_files(steps, steps.output(vertex.parent), [({"mkdir": {**action, **owner}}, None)])
            case _:
                assert_never(vertex.op)
        steps.outputs[vertex.digest] = output
    last = steps.output(result)
    if last is not None:
        steps.steps.append({"id": f"step{len(steps.steps)}", "op": {"Op": None}, "inputs": [last]})
    return steps


def _add_image(steps: Steps, op: BaseImage) -> str:
    platform, digest = op.image.config.platform, op.image.descriptor.digest
    try:
        reference = parse_reference(op.reference)
    except ReferenceInvalidError:  # an OCI layout; where it lies concerns nobody
        return steps.source(f"oci-layout://{digest}", platform=platform)
    return steps.source(f"docker-image://{reference.with_digest(digest)}", platform=platform)


def _add_command(steps: Steps, vertex: Vertex, op: RunCommand) -> str:
    inputs: list[str] = []

    def take(output: str | None) -> int:
        if output is None:
            return _NONE
        if output not in inputs:
            inputs.append(output)
        return inputs.index(output)

    meta: dict[str, Any] = {
        "args": list(op.args),
        "env": [f"{name}={redact_value(name, value)}" for name, value in op.environ],
        "cwd": op.cwd,
        **({"user": op.user} if op.user else {}),
        "hostname": op.hostname,
        **({"extraHosts": [{"Host": host, "IP": address} for host, address in op.add_hosts]} if op.add_hosts else {}),
    }
    mounts = [{"input": take(steps.output(vertex.parent)), "dest": "/", "output": 0}]
    for name, content in op.files:
        made = _add_files(steps, None, [(_make_file(f"/{name}", content, mode=_PROGRAM_MODE), None)])
        shown = {"input": take(made), "selector": f"/{name}", "dest": f"/dev/pipes/{name}"}
        mounts.append({**shown, "output": _NONE, "readonly": True})
    for planned in op.mounts:
        output = None if planned.source is None else steps.output(vertex.sources[planned.source])
        if planned.reads_context:
            output = steps.source("local://context")
        mounts.append({"input": take(output), **_mount(planned), "output": _NONE})
    execution = {
        "meta": meta,
        "mounts": mounts,
        **({"network": _NETWORKS[op.network]} if _NETWORKS[op.network] else {}),
        **({"security": 1} if op.insecure else {}),
    }
    return steps.add({"exec": execution}, inputs, parse_platform(op.platform))


def _mount(planned: PlannedMount) -> dict[str, Any]:
    match planned.mount:
        case BindMount() as bind:
            shown: dict[str, Any] = {"dest": bind.target, **({"readonly": True} if bind.readonly else {})}
            return {"selector": bind.source, **shown} if bind.source.strip("/") else shown
        case CacheMount() as cache:
            option = {"ID": cache.id or cache.target, "sharing": _SHARINGS[cache.sharing]}
            return {"dest": cache.target, "mountType": _MOUNTS["cache"], "cacheOpt": option}
        case TmpfsMount() as tmpfs:
            return {"dest": tmpfs.target, "mountType": _MOUNTS["tmpfs"], "TmpfsOpt": {"size": tmpfs.size or 0}}
        case SecretMount() as secret:
            option = {"ID": secret.id, "mode": secret.mode, "optional": not secret.required}
            place = {"dest": secret.target} if secret.target else {"env": secret.env}
            return {**place, "mountType": _MOUNTS["secret"], "secretOpt": option}
        case SshMount() as agent:
            option = {"ID": agent.id, "mode": agent.mode, "optional": not agent.required}
            return {"dest": agent.target, "mountType": _MOUNTS["ssh"], "SSHOpt": option}
        case _:
            assert_never(planned.mount)


def _add_copy(steps: Steps, vertex: Vertex, op: CopyFiles) -> str:
    source = steps.output(vertex.sources[0]) if vertex.sources else None
    if not vertex.sources and op.paths:
        source = steps.source(f"local://{op.context or 'context'}")
    options: dict[str, Any] = {
        "dest": op.destination,
        "mode": _UNCHANGED_MODE,
        **({"modeStr": op.chmod} if op.chmod else {}),
        **_owner(op.chown),
        "followSymlink": True,
        "dirCopyContents": not op.parents,
        "createDestPath": True,
        "allowWildcard": True,
        "allowEmptyWildcard": True,
        **({"excludePatterns": list(op.exclude)} if op.exclude else {}),
        **({"attemptUnpackDockerCompatibility": True} if op.unpack else {}),
        "timestamp": _time(op.epoch),
    }
    actions = [({"copy": {"src": f"/{path.lstrip('/')}", **options}}, source) for path in op.paths]
    actions += [({"copy": {"src": "/", **options}}, _add_remote(steps, remote)) for remote in op.remotes]
    folder = op.destination.endswith("/")
    actions += [
        (_make_file(f"{op.destination}{file.name}" if folder else op.destination, file.text), None)
        for file in op.inline
    ]
    parent = steps.output(vertex.parent)
    if not op.link:
        return _add_files(steps, parent, actions)
    layer = _add_files(steps, None, actions)
    if parent is None:
        return layer
    return steps.add({"merge": {"inputs": [{"input": 0}, {"input": 1}]}}, [parent, layer])


def _add_remote(steps: Steps, remote: RemoteSource) -> str:
    from builder.context.git import GitSource  # noqa: PLC0415  only for what comes from the network

    if isinstance(remote, GitSource):
        place = remote.shown.partition("://")[2] or remote.shown
        return steps.source(f"git://{place}", attributes={"git.fullurl": remote.shown.partition("#")[0]})
    return steps.source(remote.shown, attributes={"http.checksum": remote.checksum} if remote.checksum else {})


def _add_files(steps: Steps, parent: str | None, actions: Iterable[tuple[dict[str, Any], str | None]]) -> str:
    """Add a step that changes files: each action works on what the one before it made, and may read from an output."""
    work = list(actions)
    inputs = list(dict.fromkeys(output for output in (parent, *(read for _, read in work)) if output is not None))
    described = []
    for position, (action, read) in enumerate(work):
        made_before = len(inputs) + position - 1 if position else _NONE if parent is None else inputs.index(parent)
        described.append(
            {
                "input": made_before,
                "secondaryInput": _NONE if read is None else inputs.index(read),
                "output": 0 if position == len(work) - 1 else _NONE,
                "Action": action,
            }
        )
    return steps.add({"file": {"actions": described}}, inputs)


def _make_file(path: str, text: str, *, mode: int = _FILE_MODE) -> dict[str, Any]:
    content = base64.b64encode(redact_text(text).encode("utf-8", "surrogateescape")).decode("ascii")
    return {"mkfile": {"path": path, "mode": mode, "data": content, "timestamp": -1}}


def _owner(text: str | None) -> dict[str, Any]:
    """Tell an owner as it is written, `user[:group]`."""
    if not text:
        return {}
    user, colon, group = text.partition(":")
    names = {"user": user, **({"group": group} if colon else {})}
    return {"owner": {kind: {"User": _user(name)} for kind, name in names.items()}}


def _user(name: str) -> dict[str, Any]:
    number = parse_id(name) if needs_no_file(name) else None
    return {"byName": {"name": name}} if number is None else {"byID": number}


def _time(epoch: int | None) -> int:
    return -1 if epoch is None else epoch * 1_000_000_000


def _platform_to_json(platform: Platform) -> dict[str, str]:
    value = {"Architecture": platform.architecture, "OS": platform.os, "Variant": platform.variant}
    return {name: text for name, text in value.items() if text}
