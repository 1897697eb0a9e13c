"""`--attest`, `--provenance` and `--sbom`: what a build says of itself.

The last two are short for the first: `--provenance=mode=min` is `--attest type=provenance,mode=min`, `--sbom=true` is
`--attest type=sbom`, and `=false` is `,disabled=true`. Nothing is attested unless it is asked for, so
`BUILDX_NO_DEFAULT_ATTESTATIONS` has nothing to turn off.

Source: docker/buildx, util/buildflags/attests.go; BuildKit, frontend/attestations/parse.go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

from builder.cli.arguments import SWITCH_VALUES
from builder.dockerfile.suggest import nearest
from builder.errors import UsageError
from builder.request import ProvenanceMode, ProvenanceRequest, SbomRequest, SlsaVersion
from registry.oci.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_GENERATOR: Final = "docker/buildkit-syft-scanner:stable-1"
"""What lists the software of an image unless another one is named. Source: BuildKit, frontend/attestations/parse.go."""

_TYPES: Final = ("provenance", "sbom")
_PROVENANCE_KEYS: Final = ("mode", "version", "builder-id", "filename", "reproducible", "inline-only")
_MODES: Final = {"min": "min", "max": "max", "full": "max"}
_VERSIONS: Final = ("v1", "v0.2")
_FILENAME = re.compile(r"[^/\0]+")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_attestations(
    attest: Iterable[str], provenance: str | None, sbom: str | None, split: Callable[[str], list[str]]
) -> tuple[ProvenanceRequest | None, SbomRequest | None]:
    """Return what the three options ask for together; None for what is not asked for, or turned off.

    Args:
        attest: the values of `--attest`.
        provenance: the value of `--provenance`.
        sbom: the value of `--sbom`.
        split: gives the fields of comma-separated values.

    Raises:
        UsageError: a type is unknown or given twice, a key is unknown, or a value cannot be.
        ReferenceInvalidError: the generator is no name of an image.
    """
    given: dict[str, Mapping[str, str]] = {}
    texts = [("--attest", text) for text in attest]
    texts += [
        (f"--{type_}", _lengthen(type_, text)) for type_, text in (("provenance", provenance), ("sbom", sbom)) if text
    ]
    for option, text in texts:
        type_, values = _parse_fields(option, text, split(text))
        if type_ in given:
            raise UsageError(
                f"duplicate attestation field {type_}", hint=f"give one --attest type={type_} or --{type_}"
            )
        given[type_] = values
    return _parse_provenance(given.get("provenance")), _parse_sbom(given.get("sbom"))


def parse_recorded(text: str | None) -> ProvenanceMode | None:
    """Return how much the file of `--metadata-file` tells, by the value of `$BUILDX_METADATA_PROVENANCE`.

    Source: docker/buildx, docs/reference/buildx_build.md, section --metadata-file.
    """
    match (text or "min").lower():
        case "max":
            return "max"
        case "disabled" | "false" | "0":
            return None
        case _:
            return "min"


def _lengthen(type_: str, text: str) -> str:
    """Write the value of a short option as that of `--attest`."""
    switch = SWITCH_VALUES.get(text.lower())
    return f"type={type_},{text}" if switch is None else f"type={type_},disabled={str(not switch).lower()}"


def _parse_fields(option: str, text: str, fields: list[str]) -> tuple[str, Mapping[str, str]]:
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            hint = (
                "write it like type=provenance,mode=max"
                if option == "--attest"
                else f"write {option}=true, or KEY=VALUE"
            )
            raise UsageError(f"option {option}: not key=value: `{field}`", hint=hint)
        name = key.strip()
        values[name.lower() if name.lower() in {"type", "disabled"} else name] = value
    type_ = values.pop("type", "")
    if not type_:
        raise UsageError(
            f"option {option}: attestation type not specified: `{text}`", hint=f"write type= and {' or '.join(_TYPES)}"
        )
    if type_ not in _TYPES:
        near = nearest(type_, _TYPES)
        hint = f"did you mean {near}?" if near else f"use {' or '.join(_TYPES)}"
        raise UsageError(f'option {option}: unknown attestation type "{type_}"', hint=hint)
    return type_, values


def _parse_provenance(values: Mapping[str, str] | None) -> ProvenanceRequest | None:
    if values is None or _parse_switch("provenance", "disabled", values):
        return None
    for key in values:
        if key not in {*_PROVENANCE_KEYS, "disabled"}:
            near = nearest(key, _PROVENANCE_KEYS)
            hint = f"did you mean {near}?" if near else f"it takes: {', '.join(_PROVENANCE_KEYS)}"
            raise UsageError(f"option --provenance: unknown key: `{key}`", hint=hint)
    mode = _MODES.get(values.get("mode", "max"))
    if mode is None:
        raise UsageError(f'option --provenance: invalid mode "{values["mode"]}"', hint="use min or max")
    version = values.get("version", "v1")
    if version not in _VERSIONS:
        raise UsageError(f"option --provenance: invalid provenance SLSA version: `{version}`", hint="use v1 or v0.2")
    filename = values.get("filename", "provenance.json")
    if not _FILENAME.fullmatch(filename) or filename in {".", ".."} or filename.startswith(".wh."):
        raise UsageError(f"option --provenance: filename is not the name of a file: `{filename}`")
    return ProvenanceRequest(
        mode=cast("ProvenanceMode", mode),  # it is one of the literals
        version=cast("SlsaVersion", version),  # as above
        builder_id=values.get("builder-id", ""),
        filename=filename,
        reproducible=_parse_switch("provenance", "reproducible", values),
        inline_only=_parse_switch("provenance", "inline-only", values),
    )


def _parse_sbom(values: Mapping[str, str] | None) -> SbomRequest | None:
    if values is None or _parse_switch("sbom", "disabled", values):
        return None
    parameters = {key: value for key, value in values.items() if key not in {"generator", "disabled"}}
    for key in parameters:
        if not _PARAMETER.fullmatch(key):
            raise UsageError(
                f"option --sbom: not a parameter of a generator: `{key}`", hint="the image is named by generator=IMAGE"
            )
    generator = values.get("generator", DEFAULT_GENERATOR)
    if not generator:
        raise UsageError("option --sbom: generator is empty", hint="write generator=IMAGE")
    return SbomRequest(generator=parse_reference(generator), parameters=tuple(sorted(parameters.items())))


def _parse_switch(type_: str, key: str, values: Mapping[str, str]) -> bool:
    text = values.get(key, "false")
    value = SWITCH_VALUES.get(text.lower())
    if value is None:
        raise UsageError(f"option --{type_}: {key} is true or false, not `{text}`")
    return value
