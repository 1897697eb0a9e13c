"""From the flags of kaniko's executor to the command line of `pybuild build`, and what that cannot say.

Source: GoogleContainerTools/kaniko, README.md; pkg/buildcontext (contexts), pkg/executor/push.go (results).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from builder.cli.registries import RegistryAdditions
from builder.errors import ContextError, UsageError
from registry.oci.reference import parse_reference
from registry.value import field, frozen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from builder.cli.environment import Environment
    from registry.oci.reference import Reference

DEFAULT_CONTEXT: Final = "/workspace"
"""Where the executor looks without `--context`."""

_DEFAULT_FOLDER: Final = "/kaniko"
_BUCKETS: Final = ("s3", "gs")
_VERBOSITIES: Final[Mapping[str, str | None]] = {
    "trace": "plain",
    "debug": "plain",
    "info": None,
    "warn": "quiet",
    "warning": "quiet",
    "error": "quiet",
    "fatal": "quiet",
    "panic": "quiet",
}
_LOG_FORMATS: Final[Mapping[str, str | None]] = {"text": "plain", "color": None, "json": "rawjson"}
_GIT_CREDENTIALS: Final = ("GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD")


@frozen
class DigestFiles:
    """Where the digest of the result is written: alone, after the name, after name and tag of each destination."""

    digest: Path | None = None
    named: Path | None = None
    tagged: Path | None = None


@frozen
class KanikoBuild:
    """A build that was asked for with kaniko's flags.

    *words* are the command line of `pybuild build`. *archive* is the file with the context, where it is one.
    *certificates* maps a host to the files that certs.d would have for it, by name. *notes* say what differs.
    """

    words: tuple[str, ...]
    archive: Path | None = None
    additions: RegistryAdditions = field(default_factory=RegistryAdditions)
    certificates: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    digest_files: DigestFiles = field(default_factory=DigestFiles)
    notes: tuple[str, ...] = ()


def parse_kaniko(arguments: argparse.Namespace, environment: Environment) -> KanikoBuild:
    """Return the build that the parsed arguments of `kaniko` ask for.

    Raises:
        UsageError: a refused flag, flags that contradict each other, or a value that cannot be.
        ContextError: the context cannot be.
        ReferenceInvalidError: a destination that cannot be read.
    """
    notes = [f"{flag.name} {flag.note}" for flag in arguments.given if flag.note]
    for flag in arguments.given:
        if flag.refusal and getattr(arguments, flag.field):
            raise UsageError(f"option {flag.name} is not supported: {flag.refusal}", hint=flag.hint)
    destinations = _parse_destinations(arguments)
    context, archive = _parse_context(arguments, environment, notes)
    words = [
        f"--context={context}",
        *_dockerfile(arguments, context, environment),
        *(f"--tag={destination}" for destination in destinations),
        *_outputs(arguments, environment, notes),
        *_build_args(arguments, environment),
        *(f"--label={text}" for text in arguments.label),
        *_cache(arguments, environment, destinations, notes),
        *(f"--insecure-registry={host}" for host in _insecure_hosts(arguments, destinations, notes)),
        *_progress(arguments),
    ]
    if arguments.target:
        words.append(f"--target={arguments.target}")
    if arguments.custom_platform:
        words.append(f"--platform={arguments.custom_platform}")
    if arguments.compression:
        words.append(f"--compression={arguments.compression}")
    if arguments.compression_level not in {None, "-1"}:
        words.append(f"--compression-level={arguments.compression_level}")
    if arguments.root:
        words.append(f"--root={arguments.root}")
    return KanikoBuild(
        words=tuple(words),
        archive=archive,
        additions=_additions(arguments, environment, notes),
        certificates=_certificates(arguments, environment),
        digest_files=DigestFiles(
            digest=_path(arguments.digest_file, environment),
            named=_path(arguments.image_name_with_digest_file, environment),
            tagged=_path(arguments.image_name_tag_with_digest_file, environment),
        ),
        notes=tuple(dict.fromkeys(notes)),
    )


def _path(text: str | None, environment: Environment) -> Path | None:
    return environment.path(text) if text else None


def _parse_destinations(arguments: argparse.Namespace) -> tuple[Reference, ...]:
    destinations = tuple(dict.fromkeys(parse_reference(text) for text in arguments.destination))
    for destination in destinations:
        if destination.digest is not None:
            raise UsageError(
                f"option --destination: a new image cannot be named by digest: `{destination}`", hint="use a tag"
            )
    if not destinations and not arguments.no_push:
        raise UsageError("a destination is missing", hint="give --destination HOST/NAME:TAG, or --no-push")
    for option in ("image_name_with_digest_file", "image_name_tag_with_digest_file"):
        if getattr(arguments, option) and not destinations:
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"option {name} needs a name to write", hint="give --destination HOST/NAME:TAG")
    return destinations


def _parse_context(
    arguments: argparse.Namespace, environment: Environment, notes: list[str]
) -> tuple[str, Path | None]:
    """Return the context as `pybuild build` has it, `-` for a tar, and the file of the tar."""
    text = DEFAULT_CONTEXT if arguments.context is None else arguments.context
    if arguments.context is None and not environment.path(text).is_dir():
        raise UsageError(f"a context is missing, and there is no folder `{text}`", hint="give --context dir://DIR")
    scheme, separator, rest = text.partition("://")
    part = (arguments.context_sub_path or "").strip("/")
    if not separator:
        scheme, rest = "dir", text
    if arguments.git and not _is_git(scheme, rest):
        notes.append("--git has no effect: the context is no git repository")
    if not rest:
        raise UsageError(f"option --context: a place is missing: `{text}`", hint="write it like dir://DIR")
    if scheme == "dir":
        return str(environment.path(rest) / part), None
    if _is_git(scheme, rest):
        return _git_address(rest, part, arguments, environment, notes), None
    if part:
        raise UsageError(
            f"option --context-sub-path cannot be used with a tar: `{text}`",
            hint="unpack it before, then --context dir://DIR",
        )
    if scheme == "tar":
        return "-", None if rest == "stdin" else _archive(rest, environment)
    if scheme == "https":
        return text, None
    if scheme in _BUCKETS:
        raise UsageError(
            f"option --context: contexts in buckets cannot be read: `{text}`",
            hint="fetch it before, then --context tar://FILE",
        )
    raise UsageError(
        f"option --context: unknown kind of context: `{text}`", hint="use dir://, tar://, git:// or https://"
    )


def _is_git(scheme: str, rest: str) -> bool:
    from builder.context.git import is_git_url  # noqa: PLC0415  (only for what looks like an address)

    return scheme == "git" or (scheme == "https" and is_git_url(f"https://{rest}"))


def _archive(text: str, environment: Environment) -> Path:
    path = environment.path(text)
    if not path.is_file():
        reason = "not a file" if path.exists() else "no such file"
        raise ContextError(f"unable to prepare context: {reason}: `{text}`", hint="tar:// takes a tar, plain or gzip")
    return path


def _git_address(
    rest: str, part: str, arguments: argparse.Namespace, environment: Environment, notes: list[str]
) -> str:
    """Return `HOST/PATH[#REF[#COMMIT]]` as BuildKit writes it, over https as kaniko does by default."""
    place, _, fragment = rest.partition("#")
    ref, _, commit = fragment.partition("#")
    options = _git_options(arguments.git)
    if branch := options.get("branch"):
        if ref:
            raise UsageError(f"option --git: the context names a reference already: `{ref}`", hint="drop branch=")
        ref = f"refs/heads/{branch}"
    if ":" in ref:  # it would end the reference, as BuildKit writes addresses
        raise UsageError(f"option --context: not a git reference: `{ref}`", hint="use --context-sub-path for a folder")
    bare, question, query = place.partition("?")
    if question:
        raise UsageError(f"option --context: a git context takes no query: `{query}`", hint="write git://HOST/PATH#REF")
    if not bare.endswith(".git"):
        bare = f"{bare.rstrip('/')}.git"
    values = [] if options.get("recurse-submodules") == "true" else ["submodules=false"]
    if commit:
        values.append(f"checksum={commit}")
    if given := [name for name in _GIT_CREDENTIALS if environment.variables.get(name)]:
        notes.append(
            f"${given[0]} is not read: `pybuild build --secret id=GIT_AUTH_TOKEN,env={given[0]}` is how a git context "
            "gets credentials"
        )
    address = f"https://{bare}" + (f"?{'&'.join(values)}" if values else "")
    suffix = f"{ref}:{part}" if part else ref
    return f"{address}#{suffix}" if suffix else address


def _git_options(text: str | None) -> dict[str, str]:
    options: dict[str, str] = {}
    for word in (text or "").split(","):
        name, equals, value = word.partition("=")
        if not word:
            continue
        if name not in {"branch", "single-branch", "recurse-submodules"} or not equals:
            hint = "it takes branch=, single-branch= and recurse-submodules="
            raise UsageError(f"option --git: unknown part: `{word}`", hint=hint)
        options[name] = value.lower() if name != "branch" else value
    return options


def _dockerfile(arguments: argparse.Namespace, context: str, environment: Environment) -> Iterable[str]:
    """Yield `--file`: a path from here, else one in the context, as kaniko looks."""
    text = arguments.dockerfile
    if not text:
        return
    if text.startswith(("http://", "https://")) or context == "-" or "://" in context:
        yield f"--file={text}"
        return
    path = environment.path(text)
    inside = environment.path(context) / text
    yield f"--file={inside if not path.is_file() and inside.is_file() else path}"


def _outputs(arguments: argparse.Namespace, environment: Environment, notes: list[str]) -> list[str]:
    form = ",rewrite-timestamp=true" if arguments.reproducible else ""
    outputs = [] if arguments.no_push else [f"type=registry{form}"]
    if arguments.tar_path:
        outputs.append(f"type=docker{form},{_quoted('dest', environment.path(arguments.tar_path))}")
    if arguments.oci_layout_path:
        outputs.append(f"type=oci,tar=false{form},{_quoted('dest', environment.path(arguments.oci_layout_path))}")
    if not outputs:
        notes.append("--no-push: the image is kept in the store, `pybuild images` shows it")
        outputs.append(f"type=image{form}")
    return [f"--output={output}" for output in outputs]


def _quoted(key: str, path: Path) -> str:
    text = str(path).replace('"', '""')
    return f'"{key}={text}"'


def _build_args(arguments: argparse.Namespace, environment: Environment) -> Iterable[str]:
    """Yield `--build-arg`; one without a value that the environment has not either is empty, as with kaniko."""
    if arguments.reproducible:
        yield "--build-arg=SOURCE_DATE_EPOCH=0"
    for text in arguments.build_arg:
        known = "=" in text or text in environment.variables
        yield f"--build-arg={text}" if known else f"--build-arg={text}="


def _cache(
    arguments: argparse.Namespace, environment: Environment, destinations: Sequence[Reference], notes: list[str]
) -> list[str]:
    if arguments.cache is False:
        return ["--no-cache"]
    if not arguments.cache:
        for name, given in (("--cache-repo", arguments.cache_repo), ("--no-push-cache", arguments.no_push_cache)):
            if given:
                notes.append(f"{name} has no effect without --cache: only the cache of the store is used")
        return []
    repository = arguments.cache_repo
    if not repository:
        if arguments.no_push:
            notes.append("--cache with --no-push, without --cache-repo: only the cache of the store is used")
            return []
        repository = f"{destinations[0].registry}/{destinations[0].repository}/cache"
    folder = repository.removeprefix("oci:")
    if folder != repository:
        path = environment.path(folder.removeprefix("//"))
        source, target = f"type=local,{_quoted('src', path)}", f"type=local,{_quoted('dest', path)}"
    else:
        source = target = f"type=registry,ref={parse_reference(repository)}"
    notes.append(f"--cache: the cache at {repository} is in pybuild's form, kaniko's layers there are not used")
    words = [f"--cache-from={source}"]
    if not arguments.no_push_cache:
        words.append(f"--cache-to={target},mode=max,ignore-error=true")
    return words


def _insecure_hosts(
    arguments: argparse.Namespace, destinations: Sequence[Reference], notes: list[str]
) -> tuple[str, ...]:
    """List the registries that may be reached without a good certificate; pybuild knows one degree of it."""
    hosts: list[str] = []
    for name, given in (("--insecure", arguments.insecure), ("--skip-tls-verify", arguments.skip_tls_verify)):
        if not given:
            continue
        if arguments.no_push:
            notes.append(f"{name} has no effect: nothing is pushed")
            continue
        pushed = [destination.registry for destination in destinations]
        if arguments.cache and arguments.cache_repo and not arguments.cache_repo.startswith("oci:"):
            pushed.append(parse_reference(arguments.cache_repo).registry)
        notes.append(f"{name}: {_join(pushed)} may use plain HTTP or any certificate, for pulls too")
        hosts += pushed
    for name, named in (
        ("--insecure-registry", arguments.insecure_registry),
        ("--skip-tls-verify-registry", arguments.skip_tls_verify_registry),
    ):
        if named:
            notes.append(f"{name}: {_join(named)} may use plain HTTP or any certificate")
            hosts += named
    return tuple(dict.fromkeys(hosts))


def _join(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _progress(arguments: argparse.Namespace) -> Iterable[str]:
    verbosity = _choose("--verbosity", arguments.verbosity, _VERBOSITIES)
    form = _choose("--log-format", arguments.log_format, _LOG_FORMATS)
    mode = "quiet" if verbosity == "quiet" else form or verbosity
    if mode is not None:
        yield f"--progress={mode}"


def _choose(option: str, text: str | None, values: Mapping[str, str | None]) -> str | None:
    if text is None:
        return None
    if text.lower() not in values:
        raise UsageError(f"option {option}: unknown value: `{text}`", hint=f"use one of {', '.join(values)}")
    return values[text.lower()]


def _additions(arguments: argparse.Namespace, environment: Environment, notes: list[str]) -> RegistryAdditions:
    mirrors = list(arguments.registry_mirror)
    if mirror := environment.variables.get("KANIKO_REGISTRY_MIRROR"):
        mirrors.append(mirror)
    for mirror in mirrors:
        if "://" in mirror or not mirror:
            raise UsageError(f"option --registry-mirror: not HOST[/PATH]: `{mirror}`", hint="write it without https://")
    alone = bool(arguments.skip_default_registry_fallback and mirrors)
    if arguments.skip_default_registry_fallback and not mirrors:
        notes.append("--skip-default-registry-fallback has no effect without --registry-mirror")
    folder = environment.path(arguments.kaniko_dir or environment.variables.get("KANIKO_DIR") or _DEFAULT_FOLDER)
    named = environment.variables.get("REGISTRY_AUTH_FILE")
    return RegistryAdditions(
        mirrors=tuple(mirror.rstrip("/") for mirror in mirrors),
        only_mirrors=alone,
        auth_files=() if named else (folder / ".docker" / "config.json",),
    )


def _certificates(arguments: argparse.Namespace, environment: Environment) -> dict[str, dict[str, Path]]:
    """Return the files of `--registry-certificate` and `--registry-client-cert` by host and name in certs.d."""
    found: dict[str, dict[str, Path]] = {}
    for text in arguments.registry_certificate:
        host, files = _host_files("--registry-certificate", text, 1, "HOST=FILE", environment)
        found.setdefault(host, {})["ca.crt"] = files[0]
    for text in arguments.registry_client_cert:
        host, files = _host_files("--registry-client-cert", text, 2, "HOST=CERT,KEY", environment)
        found.setdefault(host, {}).update({"client.cert": files[0], "client.key": files[1]})
    return found


def _host_files(
    option: str, text: str, count: int, form: str, environment: Environment
) -> tuple[str, tuple[Path, ...]]:
    host, equals, rest = text.partition("=")
    names = rest.split(",") if count > 1 else [rest]
    if not equals or not host or os.sep in host or host in {".", ".."} or len(names) != count or not all(names):
        raise UsageError(f"option {option}: not {form}: `{text}`", hint=f"write it like {form}")
    paths = tuple(environment.path(name) for name in names)
    for path in paths:
        if not path.is_file():
            raise UsageError(f"option {option}: no such file: `{path}`", hint="check the path")
    return host, paths
