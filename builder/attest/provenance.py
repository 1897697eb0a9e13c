"""Provenance: how a result came to be, as BuildKit tells it in SLSA's words.

`mode=min` names the frontend and what went in. `mode=max` adds the arguments, the ids of secrets and agents, the
Dockerfile, the steps and their layers. Version 1 is what is put together here; version 0.2 says the same under other names.

Source: slsa.dev, specs v1.1 and v0.2, provenance; BuildKit, docs/attestations/slsa-definitions.md.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder import __version__
from builder.attest.redact import MASK, redact_json, redact_text, redact_value
from builder.attest.statement import PROVENANCE_PREFIX, Attestation
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.attest.materials import Inputs
    from builder.attest.steps import Steps
    from builder.plan.graph import Vertex
    from builder.request import BuildRequest, ProvenanceMode, ProvenanceRequest
    from builder.source import SourceFile
    from registry.oci.descriptor import Descriptor

BUILD_TYPE_1: Final = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
BUILD_TYPE_02: Final = "https://mobyproject.org/buildkit@v1"
FRONTEND: Final = "dockerfile.v0"
"""Who reads the Dockerfile. `# syntax` names no other one here."""

_METADATA_02: Final = "https://mobyproject.org/buildkit@v1#metadata"
_HERMETIC_02: Final = "https://mobyproject.org/buildkit@v1#hermetic"
_DEFAULT_SHM_SIZE: Final = 64 << 20


@frozen
class Invocation:
    """One run of the builder: its *id*, and when it *started* and *finished* as RFC 3339 text.

    All are None where SOURCE_DATE_EPOCH is set: what differs from run to run is left out then, so that the same build
    gives the same bytes. The alternative, to say that it ran at the epoch, would be a lie.
    """

    id: str | None = None
    started: str | None = None
    finished: str | None = None


@frozen
class Account:
    """What was done: *vertices* with the *steps* they are told as, and the *layers* after some of them, base first."""

    vertices: tuple[Vertex, ...]
    steps: Steps
    layers: Mapping[str, tuple[Descriptor, ...]] = field(default_factory=dict)


def write_provenance(
    wanted: ProvenanceRequest,
    request: BuildRequest,
    inputs: Inputs,
    dockerfile: SourceFile,
    invocation: Invocation,
    account: Account | None,
) -> Attestation:
    """Tell how a result was made.

    Args:
        wanted: version and mode.
        request: what was asked for.
        inputs: what went in.
        dockerfile: its text.
        invocation: the run.
        account: what was done, for `mode=max`; None for `mode=min`.
    """
    arguments, is_complete = _arguments(request, mode=wanted.mode)
    parameters: dict[str, Any] = {
        "frontend": FRONTEND,
        "args": arguments,
        **({"secrets": _ids(inputs.secrets), "ssh": _ids(inputs.agents)} if account else {}),
        "locals": [{"name": name} for name in inputs.locals],
    }
    source = {} if inputs.context is None else inputs.context.to_json()
    predicate: dict[str, Any] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE_1,
            "externalParameters": {
                "configSource": {**source, "path": dockerfile.name},
                "request": {name: value for name, value in parameters.items() if value or name == "args"},
            },
            "internalParameters": {
                **({"buildConfig": {"llbDefinition": account.steps.steps}} if account else {}),
                "builderPlatform": str(request.build_platform.normalized()),
            },
            "resolvedDependencies": [material.to_json() for material in inputs.materials],
        },
        "runDetails": {
            "builder": {"id": wanted.builder_id, "version": {"pybuild": __version__}},
            "metadata": {
                **_present(invocationId=invocation.id, startedOn=invocation.started, finishedOn=invocation.finished),
                "buildkit_metadata": _metadata(account, dockerfile) if account else {},
                "buildkit_hermetic": not inputs.locals and not inputs.networked,
                "buildkit_completeness": {
                    "request": is_complete,
                    "resolvedDependencies": not inputs.locals,
                },
                "buildkit_reproducible": wanted.reproducible,
            },
        },
    }
    predicate = redact_json(predicate)
    return Attestation(
        predicate_type=f"{PROVENANCE_PREFIX}{wanted.version}",
        predicate=predicate if wanted.version == "v1" else _as_version_02(predicate),
        file=wanted.filename,
    )


def summarize(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a predicate of `mode=min` what tells of the run, as buildx does for a metadata file."""
    kept = {name: value for name, value in predicate.items() if name != "metadata"}
    if "runDetails" in kept:
        kept["runDetails"] = {name: value for name, value in kept["runDetails"].items() if name != "metadata"}
    return kept


def _arguments(request: BuildRequest, *, mode: ProvenanceMode) -> tuple[dict[str, str], bool]:
    """Return the options of the frontend under BuildKit's names, and whether nothing that was asked for is left out."""
    arguments = {
        **({"target": request.target} if request.target else {}),
        **({"no-cache": ""} if request.no_cache else {}),
        **({"no-cache": ",".join(sorted(request.no_cache_stages))} if request.no_cache_stages else {}),
        **({"force-network-mode": request.network} if request.network != "default" else {}),
        **(
            {"add-hosts": ",".join(f"{host}={address}" for host, address in request.add_hosts)}
            if request.add_hosts
            else {}
        ),
        **({"shm-size": str(request.shm_size)} if request.shm_size != _DEFAULT_SHM_SIZE else {}),
        **(
            {"ulimit": ",".join(f"{name}={soft}:{hard}" for name, soft, hard in request.ulimits)}
            if request.ulimits
            else {}
        ),
        **{f"context:{name}": _context(name, value) for name, value in sorted(request.build_contexts.items())},
    }
    if mode == "min":
        return arguments, not (request.build_args or request.labels)
    values = {name: redact_value(name, value) for name, value in sorted(request.build_args.items())}
    arguments |= {f"build-arg:{name}": value for name, value in values.items()}
    arguments |= {f"label:{name}": value for name, value in sorted(request.labels.items())}
    return arguments, MASK not in values.values()


def _context(name: str, value: Path | str) -> str:
    """Tell what a named context is; a folder of this machine by its name alone."""
    if isinstance(value, Path):
        return f"local:{name}"
    return f"oci-layout:{name}" if value.startswith("oci-layout://") else value


def _ids(found: Mapping[str, bool]) -> list[dict[str, Any]]:
    return [{"id": id_, **({} if required else {"optional": True})} for id_, required in sorted(found.items())]


def _metadata(account: Account, dockerfile: SourceFile) -> dict[str, Any]:
    text = redact_text(dockerfile.text).encode("utf-8", "surrogateescape")
    numbers = {digest: output.partition(":")[0] for digest, output in account.steps.outputs.items()}
    locations = {
        numbers[vertex.digest]: {"locations": [{"ranges": [_range(span.line, span.end_line)]}]}
        for vertex in account.vertices
        if (span := vertex.span) is not None and span.source is dockerfile and vertex.digest in numbers
    }
    layers = {
        account.steps.outputs[digest]: [[layer.to_json() for layer in chain]]
        for digest, chain in account.layers.items()
        if digest in account.steps.outputs and chain
    }
    info = {"filename": dockerfile.name, "language": "Dockerfile", "data": base64.b64encode(text).decode("ascii")}
    return {"source": {"locations": locations, "infos": [info]}, **({"layers": layers} if layers else {})}


def _range(first: int, last: int) -> dict[str, Any]:
    return {"start": {"line": first}, "end": {"line": last}}


def _present(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _as_version_02(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Say the same in the words of version 0.2."""
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    source = dict(definition["externalParameters"]["configSource"])
    entry_point = source.pop("path")
    internal, metadata = definition["internalParameters"], details["metadata"]
    completeness = metadata["buildkit_completeness"]
    return {
        "builder": {"id": details["builder"]["id"]},
        "buildType": BUILD_TYPE_02,
        "materials": definition["resolvedDependencies"],
        "invocation": {
            "configSource": {**source, "entryPoint": entry_point},
            "parameters": definition["externalParameters"]["request"],
            "environment": {"platform": internal["builderPlatform"]},
        },
        **({"buildConfig": internal["buildConfig"]} if "buildConfig" in internal else {}),
        "metadata": {
            **_present(
                buildInvocationID=metadata.get("invocationId"),
                buildStartedOn=metadata.get("startedOn"),
                buildFinishedOn=metadata.get("finishedOn"),
            ),
            "completeness": {
                "parameters": completeness["request"],
                "environment": True,
                "materials": completeness["resolvedDependencies"],
            },
            "reproducible": metadata["buildkit_reproducible"],
            _METADATA_02: metadata["buildkit_metadata"],
            _HERMETIC_02: metadata["buildkit_hermetic"],
        },
    }
