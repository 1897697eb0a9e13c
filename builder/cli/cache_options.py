"""`--cache-from` and `--cache-to`: where the cache of a build comes from and goes to.

Source: docker/buildx, util/buildflags/cache.go; BuildKit, README.md, section Export cache.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from builder.cli.actions_options import PLACE_KEYS as ACTIONS_KEYS
from builder.cli.actions_options import parse_actions_caches
from builder.cli.option_values import parse_switch
from builder.cli.s3_options import PLACE_KEYS as S3_KEYS
from builder.cli.s3_options import parse_bucket
from builder.cli.units import parse_size
from builder.dockerfile.suggest import nearest
from builder.errors import UsageError
from builder.request import CacheFolder, CacheRepository, CacheSource, CacheTarget
from registry.actions_cache import ActionsCache
from registry.oci.digest import parse_digest
from registry.oci.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.cli.environment import Environment
    from builder.request import CacheLocation
    from registry.content.compression import Compression
    from registry.oci.reference import Reference

_SOURCE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "local": ("src", "tag", "digest", "mounts"),
    "registry": ("ref", "registry.insecure", "mounts"),
    "s3": (*S3_KEYS, "mounts"),
    "gha": (*ACTIONS_KEYS, "mounts"),
}
_CONTENT: Final = (
    "mounts",
    "mounts-max-size",
    "mode",
    "ignore-error",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
)
_TARGET_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "local": ("dest", "tag", "image-manifest", *_CONTENT),
    "registry": ("ref", "registry.insecure", "image-manifest", *_CONTENT),
    "s3": (*S3_KEYS, *_CONTENT),
    "gha": (*ACTIONS_KEYS, *_CONTENT),
    "inline": ("mode", "ignore-error"),
}
_LATER: Final = ("azblob",)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


def parse_source(text: str, fields: Sequence[str], environment: Environment) -> tuple[CacheSource, ...]:
    """Return what one `--cache-from` names: a cache, or several image names with commas.

    Args:
        text: as given, for messages.
        fields: its comma-separated fields.
        environment: where paths start.

    Raises:
        UsageError: an unknown type or key, or a value that cannot be.
        ReferenceInvalidError, DigestInvalidError: a name that cannot be read.
    """
    option = "--cache-from"
    if fields and not any("=" in field for field in fields):
        return tuple(CacheSource(CacheRepository(parse_reference(field))) for field in fields)
    type_, values = _parse_fields(option, text, fields, _SOURCE_KEYS)
    mounts = parse_switch(option, "mounts", values, default="true")
    locations = _parse_locations(option, "src", text, type_, values, environment)
    return tuple(CacheSource(location, mounts=mounts) for location in locations)


def parse_target(
    text: str, fields: Sequence[str], environment: Environment, compression: Compression
) -> CacheTarget | None:
    """Return one `--cache-to`, None for `type=inline`.

    Args:
        text: as given, for messages.
        fields: its comma-separated fields.
        environment: where paths start.
        compression: of the layers that the build makes; another one for the cache is refused.

    Raises:
        UsageError: as `parse_source`, or what is asked for would change the layers.
        ReferenceInvalidError: a name that cannot be read.
    """
    option = "--cache-to"
    if len(fields) == 1 and fields[0] and "=" not in fields[0]:
        fields = ["type=registry", f"ref={fields[0]}"]
    type_, values = _parse_fields(option, text, fields, _TARGET_KEYS)
    mode = values.get("mode", "min")
    if mode not in {"min", "max"}:
        raise UsageError(f"option {option}: unknown mode: `{mode}`", hint="use min or max")
    if type_ == "inline":
        if mode == "max":
            hint = "use mode=min, or type=registry,mode=max"
            raise UsageError(
                f"option {option}: an image holds the cache of its own steps only, not mode=max", hint=hint
            )
        return None
    _check_form(option, values, compression)
    ignore_error = parse_switch(option, "ignore-error", values)
    (location,) = _parse_locations(option, "dest", text, type_, values, environment)
    if isinstance(location, CacheRepository) and location.reference.digest is not None:
        raise UsageError(f"option {option}: a cache cannot be named by digest: `{location}`", hint="use a tag")
    if isinstance(location, ActionsCache) and not location.url:
        ignore_error = True  # outside of a job, where buildx leaves such a cache out
    largest = values.get("mounts-max-size")
    return CacheTarget(
        location,
        all_steps=mode == "max",
        ignore_error=ignore_error,
        mounts=parse_switch(option, "mounts", values),
        mounts_limit=None if largest is None else parse_size(largest, option=f"{option}: mounts-max-size"),
    )


def _parse_locations(
    option: str,
    key: Literal["src", "dest"],
    text: str,
    type_: str,
    values: Mapping[str, str],
    environment: Environment,
) -> tuple[CacheLocation, ...]:
    """Return where a cache is: one place to write to, one or more to read from. *key* names a folder."""
    match type_:
        case "registry":
            insecure = parse_switch(option, "registry.insecure", values)
            return (CacheRepository(_parse_ref(option, text, values), insecure=insecure),)
        case "s3":
            return (parse_bucket(option, text, values, environment),)
        case "gha":
            return parse_actions_caches(option, values, environment, write=key == "dest")
        case _:
            digest = values.get("digest")
            return (
                CacheFolder(
                    _parse_folder(option, key, text, values, environment),
                    tag=_parse_tag(option, values),
                    digest=None if digest is None else parse_digest(digest),
                ),
            )


def _parse_fields(
    option: str, text: str, fields: Sequence[str], keys: Mapping[str, tuple[str, ...]]
) -> tuple[str, dict[str, str]]:
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(f"option {option}: not key=value: `{field}`", hint="write it like type=registry,ref=NAME")
        values[key.strip().lower()] = value
    type_ = values.pop("type", None)
    if type_ is None:
        raise UsageError(f"option {option}: a type= is missing: `{text}`", hint=f"use one of {', '.join(keys)}")
    if type_ in _LATER:
        raise UsageError(f"option {option}: type is not supported: `{type_}`", hint="use local, registry, s3 or gha")
    if type_ == "inline" and type_ not in keys:
        hint = "name the image: type=registry,ref=IMAGE"
        raise UsageError(f"option {option}: a cache within an image is imported from where the image is", hint=hint)
    if type_ not in keys:
        near = nearest(type_, keys)
        hint = f"did you mean {near}?" if near else f"use one of {', '.join(keys)}"
        raise UsageError(f"option {option}: unknown type: `{type_}`", hint=hint)
    for key in values:
        if key not in keys[type_]:
            near = nearest(key, keys[type_])
            hint = f"did you mean {near}?" if near else f"type={type_} takes: {', '.join(sorted(keys[type_]))}"
            raise UsageError(f"option {option}: key is not supported with type={type_}: `{key}`", hint=hint)
    return type_, values


def _check_form(option: str, values: Mapping[str, str], compression: Compression) -> None:
    """Refuse what would make other layers or documents than there are: a cache has those of the build."""
    kind, level = values.get("compression"), values.get("compression-level")
    if kind not in {None, compression.kind}:
        hint = f"use --compression {kind} for the build"
        raise UsageError(f"option {option}: layers are exported as the build makes them, not as `{kind}`", hint=hint)
    if level not in {None, str(compression.level)}:
        hint = f"use --compression-level {level} for the build"
        raise UsageError(f"option {option}: layers are exported with the level of the build, not `{level}`", hint=hint)
    if parse_switch(option, "force-compression", values):
        raise UsageError(f"option {option}: force-compression is not supported", hint="drop it")
    for key in ("oci-mediatypes", "image-manifest"):
        if not parse_switch(option, key, values, default="true"):
            raise UsageError(
                f"option {option}: a cache is an OCI image manifest, {key} cannot be false", hint="drop it"
            )


def _parse_ref(option: str, text: str, values: Mapping[str, str]) -> Reference:
    ref = values.get("ref")
    if not ref:
        raise UsageError(f"option {option}: a ref= is missing: `{text}`", hint="write it like type=registry,ref=NAME")
    return parse_reference(ref)


def _parse_folder(option: str, key: str, text: str, values: Mapping[str, str], environment: Environment) -> Path:
    folder = values.get(key)
    if not folder:
        raise UsageError(f"option {option}: a {key}= is missing: `{text}`", hint=f"write it like type=local,{key}=DIR")
    return environment.path(folder)


def _parse_tag(option: str, values: Mapping[str, str]) -> str:
    tag = values.get("tag", "latest")
    if not _TAG.fullmatch(tag):
        raise UsageError(f"option {option}: not a tag: `{tag}`")
    return tag
