"""From the parsed arguments of `build` to a `BuildRequest` with nothing left to look up."""

from __future__ import annotations

import os

from builder.cli.arguments import SWITCH_VALUES, VERBS
from builder.cli.option_values import (
    parse_hosts,
    parse_network,
    parse_number,
    parse_shm_size,
    parse_ulimits,
)
from builder.errors import ContextError, DockerfileError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO, Final

    from builder.cli.environment import Environment
    from builder.request import (
        Annotation,
        BuildRequest,
        CacheSource,
        CacheTarget,
        DeviceGrant,
        NetworkMode,
        Output,
        OutputType,
        ProvenanceMode,
        ProvenanceRequest,
        SbomRequest,
        SecretSource,
        SshSource,
    )
    from registry.content.compression import Compression
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference

_IMAGE_KEYS: Final = frozenset(
    {
        "name",
        "compression",
        "compression-level",
        "force-compression",
        "rewrite-timestamp",
        "attestation-inline",
        "oci-artifact",
    }
)

_OUTPUT_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "image": _IMAGE_KEYS | {"push", "oci-mediatypes"},
    "registry": _IMAGE_KEYS | {"push", "oci-mediatypes"},
    "oci": _IMAGE_KEYS | {"dest", "tar"},
    "docker": _IMAGE_KEYS | {"dest", "tar", "push", "oci-mediatypes"},
    "local": frozenset({"dest", "platform-split", "attestation-prefix"}),
    "tar": frozenset({"dest", "platform-split", "attestation-prefix"}),
    "cacheonly": frozenset(),
}


def parse_build(
    arguments: argparse.Namespace, environment: Environment, *, archive: BinaryIO | None = None
) -> BuildRequest:
    """Return the build that the parsed arguments of `build` ask for, with nothing left to look up.

    Standard input is read where the Dockerfile is `-`. What only concerns the command line stays in *arguments*:
    `progress`, `quiet`, `iidfile`, `metadata_file`, `insecure_registry`.

    Args:
        arguments: of the parser of `build`.
        environment: the surroundings.
        archive: read instead of standard input where the context is `-`.

    Raises:
        UsageError: options that contradict each other, or a value that cannot be.
        ContextError: the context is not a folder.
        DockerfileError: the file of `--file` does not exist.
        RegistryError: a reference or platform that cannot be read (ReferenceInvalidError, PlatformInvalidError).
    """
    from builder.request import BuildRequest, DeviceRules  # noqa: PLC0415  (not needed for help)
    from registry.oci.platform import host_platform  # noqa: PLC0415  (not needed for help)

    context = _parse_context(arguments, environment)
    dockerfile, text, url = _parse_dockerfile(arguments.file, context, environment)
    tags = _parse_tags(arguments.tag)
    outputs = _parse_outputs(arguments, environment, tags)
    platforms = _parse_platforms(arguments.platform, environment)
    network = parse_network(arguments.network)
    allow, grants = _parse_allow(arguments.allow, network)
    compression = _parse_compression(arguments, outputs)
    build_args = _parse_build_args(arguments.build_arg, environment)
    targets = _parse_cache_targets(arguments.cache_to, environment, compression)
    provenance, sbom = _parse_attestations(arguments)
    return BuildRequest(
        context=context,
        root=environment.root(arguments.root),
        platform=platforms[0] if platforms else host_platform(),
        platforms=platforms if len(platforms) > 1 else (),
        build_platform=host_platform(),
        dockerfile=dockerfile,
        dockerfile_text=text,
        dockerfile_url=url,
        stdin=(archive or environment.stdin()) if context == "-" else None,
        build_contexts=_parse_build_contexts(arguments.build_context, environment),
        git_environ=environment.variables,
        tags=tags,
        build_args=build_args,
        target=arguments.target or None,
        labels=_parse_pairs(arguments.label, "--label"),
        annotations=_parse_annotations(arguments.annotation),
        outputs=outputs,
        compression=compression,
        cache_from=_parse_cache_sources(arguments.cache_from, environment),
        cache_to=tuple(target for target in targets if target is not None),
        inline_cache=None in targets or _wants_inline_cache(build_args),
        no_cache=arguments.no_cache,
        no_cache_stages=frozenset(name for text in arguments.no_cache_filter for name in _split_csv(text)),
        explain_cache=arguments.explain_cache,
        pull=arguments.pull,
        network=network,
        add_hosts=parse_hosts(arguments.add_host),
        shm_size=parse_shm_size(arguments.shm_size),
        ulimits=parse_ulimits(arguments.ulimit),
        secrets=_parse_secrets(arguments.secret, environment),
        ssh=_parse_ssh(arguments.ssh, environment),
        allow=allow,
        devices=DeviceRules(
            all="device" in allow,
            grants=grants,
            folders=_parse_device_folders(arguments.cdi_spec_dir, environment),
        ),
        provenance=provenance,
        sbom=sbom,
        recorded=_parse_recorded(arguments, environment),
        jobs=_parse_jobs(arguments.jobs),
        limits_jobs=arguments.jobs is not None,
    )


def _parse_attestations(arguments: argparse.Namespace) -> tuple[ProvenanceRequest | None, SbomRequest | None]:
    if not (arguments.attest or arguments.provenance or arguments.sbom):
        return None, None
    from builder.cli.attest_options import parse_attestations  # noqa: PLC0415  (only with attestations)

    return parse_attestations(arguments.attest, arguments.provenance, arguments.sbom, _split_csv)


def _parse_recorded(arguments: argparse.Namespace, environment: Environment) -> ProvenanceMode | None:
    if not arguments.metadata_file:
        return None
    from builder.cli.attest_options import parse_recorded  # noqa: PLC0415  (only with --metadata-file)

    return parse_recorded(environment.variables.get("BUILDX_METADATA_PROVENANCE"))


def _parse_cache_sources(texts: Sequence[str], environment: Environment) -> tuple[CacheSource, ...]:
    if not texts:
        return ()
    from builder.cli.cache_options import parse_source  # noqa: PLC0415  (only with --cache-from)

    return tuple(source for text in texts for source in parse_source(text, _split_csv(text), environment))


def _parse_cache_targets(
    texts: Sequence[str], environment: Environment, compression: Compression
) -> tuple[CacheTarget | None, ...]:
    """Return all `--cache-to`, None for one that is within the image."""
    if not texts:
        return ()
    from builder.cli.cache_options import parse_target  # noqa: PLC0415  (only with --cache-to)

    return tuple(parse_target(text, _split_csv(text), environment, compression) for text in texts)


def _wants_inline_cache(build_args: Mapping[str, str]) -> bool:
    """Tell whether the build argument of BuildKit asks for `type=inline`; what cannot be read counts as false, as there.

    Source: docker/buildx, build/opt.go.
    """
    return SWITCH_VALUES.get(build_args.get("BUILDKIT_INLINE_CACHE", "").lower(), False)


def _parse_secrets(texts: Sequence[str], environment: Environment) -> tuple[SecretSource, ...]:
    if not texts:
        return ()
    from builder.cli.credentials import parse_secret  # noqa: PLC0415  (only with --secret)

    return tuple(parse_secret(text, _split_csv(text), environment) for text in texts)


def _parse_ssh(texts: Sequence[str], environment: Environment) -> tuple[SshSource, ...]:
    if not texts:
        return ()
    from builder.cli.credentials import parse_ssh  # noqa: PLC0415  (only with --ssh)

    return tuple(parse_ssh(text, environment) for text in texts)


def _parse_allow(texts: Sequence[str], network: NetworkMode) -> tuple[frozenset[str], tuple[DeviceGrant, ...]]:
    """Return the entitlements of all `--allow`, with what `--network` grants, and the devices of those that name one."""
    names: set[str] = {"network.host"} if network == "host" else set()  # as with buildx
    grants: list[DeviceGrant] = []
    for text in texts:
        from builder.cli.credentials import parse_entitlement  # noqa: PLC0415  (only with --allow)
        from builder.plan.entitlements import DEVICE, ENTITLEMENTS  # noqa: PLC0415  (as above)

        groups: list[list[str]] = []
        for field in _split_csv(text):
            # What follows a device belongs to it, unless it is an entitlement of its own.
            of_device = bool(groups) and groups[-1][0].startswith(f"{DEVICE}=")
            if of_device and field.partition("=")[0].strip() not in ENTITLEMENTS:
                groups[-1].append(field)
            else:
                groups.append([field])
        for entitlement in map(parse_entitlement, groups):
            if isinstance(entitlement, str):
                names.add(entitlement)
            else:
                grants.append(entitlement)
    return frozenset(names), tuple(grants)


def _parse_device_folders(texts: Sequence[str], environment: Environment) -> tuple[Path, ...]:
    from builder.request import CDI_FOLDERS  # noqa: PLC0415  (not needed for help)

    folders = tuple(environment.path(text) for text in texts or CDI_FOLDERS)
    for text, folder in zip(texts, folders, strict=False):
        if not text or not folder.is_dir():
            raise UsageError(f"option --cdi-spec-dir: no such folder: `{text}`")
    return folders


def _parse_context(arguments: argparse.Namespace, environment: Environment) -> Path | str:
    given = [text for text in (arguments.context, arguments.positional_context) if text is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise UsageError(f"two contexts are given: `{given[0]}` and `{given[1]}`", hint="drop one of them")
    text = given[0] if given else "."
    if text == "-" or (is_address(text) and not environment.path(text).exists()):
        return text
    if not text:
        raise UsageError("the context is empty", hint="write . for the current folder")
    path = environment.path(text)
    if not path.is_dir():
        if path.exists():
            raise ContextError(
                f"unable to prepare context: not a folder: `{text}`", hint=f"for a Dockerfile, use --file {text}"
            )
        from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

        near = nearest(text, VERBS)
        hint = f"did you mean `pybuild {near}`?" if near else None
        raise ContextError(f"unable to prepare context: path not found: `{text}`", hint=hint)
    return path


def is_address(text: str) -> bool:
    """Tell whether a context is looked for elsewhere than on this machine; a folder of that name comes first."""
    if text.startswith(("http://", "https://", "github.com/")):
        return True
    if "@" not in text and "://" not in text:
        return False
    from builder.context.git import is_git_url  # noqa: PLC0415  (only for what looks like an address)

    return is_git_url(text)


def _parse_build_contexts(texts: Sequence[str], environment: Environment) -> dict[str, Path | str]:
    """Return the named contexts: a folder as its path, everything else as it is, layouts with an absolute path."""
    contexts: dict[str, Path | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"option --build-context: not a name and a value: `{text}`", hint="write it like NAME=DIR")
        if name.lower() in {"scratch", "context"}:
            raise UsageError(f"option --build-context: the name cannot be replaced: `{name}`", hint="use another name")
        layout = value.removeprefix("oci-layout://")
        if layout != value:
            contexts[name] = f"oci-layout://{environment.path(layout)}"
        elif value.startswith("docker-image://") or (is_address(value) and not environment.path(value).exists()):
            contexts[name] = value
        else:
            contexts[name] = environment.path(value)
    return contexts


def _parse_dockerfile(
    text: str | None, context: Path | str, environment: Environment
) -> tuple[Path | None, str | None, str | None]:
    """Return the path of the Dockerfile, its text, or its address; the path is relative if the context is no folder."""
    if text is None:
        return None, None, None
    if text == "-":
        if context == "-":
            raise UsageError("the context and the Dockerfile cannot both come from standard input")
        data = environment.read_stdin()
        try:
            return None, data.decode("utf-8-sig"), None
        except UnicodeDecodeError as error:
            raise DockerfileError(f"Dockerfile on standard input is not UTF-8, at byte {error.start}") from error
    if text.startswith(("http://", "https://")):
        return None, None, text
    if not text:
        raise UsageError("option --file: a value is missing")
    if isinstance(context, str):
        from pathlib import Path  # noqa: PLC0415  (the module is to be light)

        return Path(text), None, None
    path = environment.path(text)
    if path.is_dir():
        raise DockerfileError(
            f"failed to read dockerfile, it is a folder: `{text}`", hint=f"use --file {text}/Dockerfile"
        )
    if not path.exists():
        hint = "paths of --file start at the current folder"
        if (context / text).is_file():
            hint = f"did you mean {os.path.relpath(context / text, environment.cwd)}? {hint}"
        raise DockerfileError(f"failed to read dockerfile, no such file: `{text}`", hint=hint)
    return path, None, None


def _parse_platforms(texts: Sequence[str], environment: Environment) -> tuple[Platform, ...]:
    """Return the platforms of all `--platform`, else of `$DOCKER_DEFAULT_PLATFORM`, each once."""
    from registry.oci.platform import host_platform, parse_platform  # noqa: PLC0415  (not needed for help)

    words = [word.strip() for text in (texts or [environment.platform() or ""]) for word in text.split(",")]
    return tuple(dict.fromkeys(host_platform() if word == "local" else parse_platform(word) for word in words if word))


def _parse_tags(texts: Sequence[str]) -> tuple[Reference, ...]:
    tags = dict.fromkeys(_parse_name(text, "--tag") for text in texts)
    return tuple(tags)


def _parse_name(text: str, option: str) -> Reference:
    from registry.oci.reference import parse_reference  # noqa: PLC0415  (not needed for help)

    reference = parse_reference(text)
    if reference.digest is not None:
        raise UsageError(f"option {option}: a new image cannot be named by digest: `{text}`", hint="use a tag")
    return reference


def _parse_build_args(texts: Sequence[str], environment: Environment) -> dict[str, str]:
    """Return build arguments; those without a value come from the environment, and are left out if it has none."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"option --build-arg: the name is empty: `{text}`", hint="write it like NAME=VALUE")
        if equals:
            values[name] = value
        elif name in environment.variables:
            values[name] = environment.variables[name]
    if epoch := environment.variables.get("SOURCE_DATE_EPOCH"):
        values.setdefault("SOURCE_DATE_EPOCH", epoch)
    return values


def _parse_annotations(texts: Sequence[str]) -> tuple[Annotation, ...]:
    from builder.image.form import parse_annotations  # noqa: PLC0415  (only with --annotation)

    return tuple(annotation for text in texts for annotation in parse_annotations(text))


def _parse_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name:
            raise UsageError(f"option {option}: the name is empty: `{text}`", hint="write it like NAME=VALUE")
        pairs[name] = value
    return pairs


def _split_csv(text: str) -> list[str]:
    """Return the fields of one line of comma-separated values; quotes keep commas, as Docker's options do."""
    import csv  # noqa: PLC0415  (only for options that need it)

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"unbalanced quotes: `{text}`") from error
    return rows[0] if rows else []


def _parse_outputs(
    arguments: argparse.Namespace, environment: Environment, tags: tuple[Reference, ...]
) -> tuple[Output, ...]:
    from builder.request import Output, OutputType  # noqa: PLC0415  (not needed for help)
    from registry.value import replace  # noqa: PLC0415  (not needed for help)

    outputs = [_parse_output(text, environment, tags) for text in arguments.output]
    kinds = {output.type for output in outputs}
    if arguments.load and OutputType.IMAGE not in kinds:
        outputs.append(Output(type=OutputType.IMAGE, names=tags))
    if arguments.push:
        if OutputType.IMAGE in {output.type for output in outputs}:
            outputs = [replace(o, push=True) if o.type is OutputType.IMAGE else o for o in outputs]
        elif OutputType.REGISTRY not in kinds:
            outputs.append(Output(type=OutputType.REGISTRY, names=tags, push=True))
    if not outputs:
        outputs.append(Output(type=OutputType.IMAGE, names=tags))
    if any(output.push and not output.names for output in outputs):
        raise UsageError("an image needs a name to be pushed", hint="name it with --tag HOST/NAME:TAG")
    if sum(_goes_to_stdout(output) for output in outputs) > 1:
        raise UsageError("two outputs go to standard output", hint="give one of them a dest=")
    if any(_goes_to_stdout(output) for output in outputs) and environment.stdout_tty:
        hint = "give the output a dest=, or send standard output to a file"
        raise UsageError("refusing to write an archive to a terminal", hint=hint)
    return tuple(outputs)


def _goes_to_stdout(output: Output) -> bool:
    return output.destination is None and output.type.value in {"oci", "docker", "tar"}


def _parse_output(text: str, environment: Environment, tags: tuple[Reference, ...]) -> Output:
    """Return one `--output`.

    Source: docker/buildx, util/buildflags/export.go: `-` is a tar on standard output, a value without `=` a folder.
    """
    from builder.request import Output, OutputType  # noqa: PLC0415  (not needed for help)

    if text == "-":
        return Output(type=OutputType.TAR)
    fields = _split_csv(text)
    if len(fields) == 1 and "=" not in fields[0] and fields[0]:
        return Output(type=OutputType.LOCAL, destination=environment.path(fields[0]))
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals and key and next(reversed(values), None) == "name":
            values["name"] += f",{key}"  # name=a,b without the quotes that docker wants
            continue
        if not equals:
            raise UsageError(f"option --output: not key=value: `{field}`", hint="write it like type=oci,dest=app.tar")
        values[key.strip() if key.strip().startswith("annotation") else key.strip().lower()] = value
    type_ = _parse_output_type(values.pop("type", None), text)
    _check_output_keys(type_, values)
    if "/" in values.get("attestation-prefix", ""):
        raise UsageError(f"option --output: attestation-prefix is no part of a file name: `{text}`")
    tar = _parse_boolean(values.pop("tar", "true"), "tar")
    push = _parse_boolean(values.pop("push", "true" if type_ is OutputType.REGISTRY else "false"), "push")
    destination = values.pop("dest", None)
    if destination == "" or (destination is None and (type_ is OutputType.LOCAL or not tar)):
        raise UsageError(f"option --output: a dest= is missing: `{text}`")
    if destination == "-" and (type_ is OutputType.LOCAL or not tar):
        raise UsageError(f"option --output: a folder cannot go to standard output: `{text}`")
    if type_ is OutputType.DOCKER and destination is None:
        type_ = OutputType.IMAGE  # buildx loads the image then, and the store is where it goes
    name = values.pop("name", None)
    return Output(
        type=type_,
        destination=None if destination in {None, "-"} else environment.path(str(destination)),
        names=tags if name is None else tuple(_parse_name(part.strip(), "--output") for part in name.split(",")),
        tar=tar,
        push=push,
        attributes=values,
    )


def _parse_output_type(text: str | None, output: str) -> OutputType:
    from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)
    from builder.request import OutputType  # noqa: PLC0415  (not needed for help)

    if text is None:
        raise UsageError(f"option --output: a type= is missing: `{output}`", hint="write it like type=oci,dest=app.tar")
    try:
        return OutputType(text)
    except ValueError:
        near = nearest(text, _OUTPUT_KEYS)
        hint = f"did you mean {near}?" if near else f"use one of {', '.join(_OUTPUT_KEYS)}"
        raise UsageError(f"option --output: unknown type: `{text}`", hint=hint) from None


def _check_output_keys(type_: OutputType, values: Mapping[str, str]) -> None:
    known = _OUTPUT_KEYS[type_.value]
    for key in values:
        if key not in known and not (key.startswith("annotation") and "name" in known):
            from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

            near = nearest(key, known)
            hint = (
                f"did you mean {near}?"
                if near
                else f"type={type_.value} takes: {', '.join(sorted(known)) or 'nothing'}"
            )
            raise UsageError(f"option --output: key is not supported with type={type_.value}: `{key}`", hint=hint)


def _parse_boolean(text: str, key: str) -> bool:
    value = SWITCH_VALUES.get(text.lower())
    if value is None:
        raise UsageError(f"option --output: {key} is true or false, not `{text}`")
    return value


def _parse_compression(arguments: argparse.Namespace, outputs: Sequence[Output]) -> Compression:
    """Return the compression of the options, else that of the first output that says one, else gzip."""
    from registry.content.compression import Compression  # noqa: PLC0415  (not needed for help)

    kinds = [o.attributes.get("compression") for o in outputs]
    kind = arguments.compression or next(filter(None, kinds), None) or "gzip"
    levels = [o.attributes.get("compression-level") for o in outputs if o.attributes.get("compression", kind) == kind]
    return Compression.parse(kind, arguments.compression_level or next(filter(None, levels), None))


def _parse_jobs(text: str | None) -> int:
    if text is None:
        return max(1, len(os.sched_getaffinity(0)))
    jobs = parse_number(text, "--jobs")
    if jobs < 1:
        raise UsageError("option --jobs: at least one is needed")
    return jobs
