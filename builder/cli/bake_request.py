"""From the parsed arguments of `bake` to definitions, targets, and the words of `pybuild build` for each target."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

from builder.bake.access import Wish, check_access, list_wishes, parse_grants
from builder.bake.definition import KEYS, LINK, Target, format_entry
from builder.bake.files import find_dotenv, read_definitions, read_files
from builder.bake.targets import parse_override, select_targets
from builder.bake.variables import Variables
from builder.cli.arguments import SWITCH_VALUES, parser_for
from builder.cli.build_request import is_address, parse_build
from builder.errors import BakeError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from builder.bake.definition import Definitions
    from builder.bake.targets import Override, Selection
    from builder.cli.environment import Environment
    from builder.request import BuildRequest

_FILE_VARIABLE: Final = "BUILDX_BAKE_FILE"
_SEPARATOR_VARIABLE: Final = "BUILDX_BAKE_PATH_SEPARATOR"
_FILES_VARIABLE: Final = "BUILDX_BAKE_ENTITLEMENTS_FS"

_OPTIONS: Final[Mapping[str, str]] = {
    "annotations": "--annotation",
    "args": "--build-arg",
    "attest": "--attest",
    "cache-from": "--cache-from",
    "cache-to": "--cache-to",
    "call": "--call",
    "entitlements": "--allow",
    "extra-hosts": "--add-host",
    "labels": "--label",
    "network": "--network",
    "no-cache": "--no-cache",
    "no-cache-filter": "--no-cache-filter",
    "output": "--output",
    "platforms": "--platform",
    "pull": "--pull",
    "secret": "--secret",
    "shm-size": "--shm-size",
    "ssh": "--ssh",
    "tags": "--tag",
    "target": "--target",
    "ulimits": "--ulimit",
}
"""The option of `pybuild build` that takes what a key says, one value each."""


class TargetBuild(NamedTuple):
    """What `pybuild build` is to do for a target: its parsed *options* and its *request*, without links."""

    target: Target
    options: argparse.Namespace
    request: BuildRequest


def load_definitions(arguments: argparse.Namespace, environment: Environment) -> Definitions:
    """Read the files of targets; standard input only where `-` is named.

    Raises:
        UsageError: a variable of `--var` has no value, or a remote file is asked for.
        BakeError: there is no file, or one cannot be read.
    """
    for name in arguments.targets:
        if "://" in name or name.startswith("git@"):
            raise UsageError(f"files of targets from elsewhere are not supported yet: `{name}`", hint="clone it before")
    names = arguments.file or _names_of_environment(environment)
    stdin = environment.read_stdin() if "-" in names else None
    given = _parse_variables(arguments.var)
    environ = {**environment.variables, **given}
    files = read_files(names, environment.cwd, stdin)
    return read_definitions(
        files,
        Variables(
            environ={**find_dotenv(environment.cwd, environ), **environ},
            given=given,
            variables=environment.variables,
            local_platform=_local_platform(),
            now=time.time(),
        ),
    )


def _names_of_environment(environment: Environment) -> list[str]:
    text = environment.variables.get(_FILE_VARIABLE, "")
    separator = environment.variables.get(_SEPARATOR_VARIABLE) or os.pathsep
    return [name for name in text.split(separator) if name]


def _local_platform() -> str:
    from registry.oci.platform import host_platform  # noqa: PLC0415  (not needed for help)

    return str(host_platform())


def _parse_variables(texts: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"option --var: not a name and a value: `{text}`", hint="write it like NAME=VALUE")
        values[name] = value
    return values


def choose_targets(definitions: Definitions, arguments: argparse.Namespace, environment: Environment) -> Selection:
    """Choose and resolve the targets of the command line.

    Raises:
        UsageError: there is no such target, or an override cannot be.
        BakeError: targets do not fit together.
    """
    return select_targets(definitions, arguments.targets, _list_overrides(arguments), environment.variables)


def _list_overrides(arguments: argparse.Namespace) -> list[Override]:
    """Return all `--set`, with what other options are short for, in buildx's order."""
    texts = list(arguments.set)
    texts += [
        f"*.{name.replace('_', '-')}=true" for name in ("push", "load", "no_cache", "pull") if vars(arguments)[name]
    ]
    if arguments.call or arguments.check:
        texts.append(f"*.call={'check' if arguments.check else arguments.call}")
    for name in ("sbom", "provenance"):
        value = vars(arguments)[name]
        if value:
            switch = SWITCH_VALUES.get(value.lower())
            attributes = "" if switch else ",disabled=true" if switch is False else f",{value}"
            texts.append(f"*.attest=type={name}{attributes}")
    return [parse_override(text) for text in texts]


def print_selection(selection: Selection) -> dict[str, Any]:
    """Return what would be built in the form of `docker buildx bake --print`, which bake files can have as well."""
    return {
        "group": {name: {"targets": list(members)} for name, members in sorted(selection.groups.items())},
        "target": {name: _print_target(target) for name, target in sorted(selection.targets.items())},
    }


def _print_target(target: Target) -> dict[str, Any]:
    document: dict[str, Any] = {}
    value: Any
    for key, (kind, _) in KEYS.items():
        match kind:
            case "text":
                text = target.text(key)
                value = _escape(text) if text and key == "dockerfile-inline" else text
            case "switch":
                value = target.values.get(key)
            case "texts":
                value = [_escape(text) if key == "annotations" else text for text in target.texts(key)]
            case "pairs":
                value = {name: _escape(text) if key != "contexts" else text for name, text in target.pairs(key).items()}
            case "entries":
                value = [dict(sorted(entry.items())) for entry in target.entries(key)]
            case _:
                assert_never(kind)
        if value not in (None, [], {}):
            document[key] = value
    return document


def _escape(text: str) -> str:
    """Return a text that a bake file reads as it is."""
    return text.replace("${", "$${").replace("%{", "%%{")


def check_grants(selection: Selection, arguments: argparse.Namespace, environment: Environment) -> None:
    """Refuse what `--allow` does not grant; what `--set` names is granted by that.

    Raises:
        BakeError: something is not granted.
    """
    wants_check = SWITCH_VALUES.get(environment.variables.get(_FILES_VARIABLE, "").lower(), True)
    named = [wish for override in _list_overrides(arguments) for wish in _wishes_of(override, environment)]
    check_access(
        selection.targets.values(),
        parse_grants(arguments.allow),
        cwd=environment.cwd,
        named=named,
        is_address=lambda text: _is_elsewhere(text, environment),
        checks_files=wants_check,
    )


def _wishes_of(override: Override, environment: Environment) -> list[Wish]:
    """List what a value of `--set` asks for, by way of a target that says nothing else."""
    from builder.bake.definition import Place, read_value  # noqa: PLC0415  (only with --set)

    if override.key not in KEYS or override.value is None:
        return []
    kind = KEYS[override.key].kind
    place = Place("option --set", override.pattern)
    value: object = {override.name: override.value} if kind == "pairs" else override.value
    value = [value] if kind in {"texts", "entries"} else value
    target = Target(name="", values={"context": ".", override.key: read_value(override.key, value, place)})
    return list(list_wishes(target, lambda text: _is_elsewhere(text, environment)))


def _is_elsewhere(text: str, environment: Environment) -> bool:
    return is_address(text) and not environment.path(text).exists()


def parse_target(target: Target, arguments: argparse.Namespace, environment: Environment) -> TargetBuild:
    """Return the build of a target, by way of the words that `pybuild build` would be given.

    Contexts that are other targets are left out: who builds those knows what they are.

    Args:
        target: with nothing left to inherit.
        arguments: of `bake`.
        environment: the surroundings.

    Raises:
        UsageError, ContextError, DockerfileError, RegistryError: as of `parse_build`.
    """
    from registry.value import replace  # noqa: PLC0415  (not needed for help)

    options = parser_for("build").parse(_list_words(target, arguments, environment))
    request = parse_build(options, environment)
    inline = target.text("dockerfile-inline")
    if inline is not None:
        request = replace(request, dockerfile=None, dockerfile_text=inline)
    return TargetBuild(target, options, request)


def _list_words(target: Target, arguments: argparse.Namespace, environment: Environment) -> list[str]:
    """Return the words of `pybuild build` for a target; every value is in the word of its option."""
    context = target.text("context") or "."
    words = [f"--context={context}"]
    if context == "-" or target.text("dockerfile") == "-":
        raise BakeError("a target cannot read its context or Dockerfile from standard input")
    if target.text("dockerfile-inline") is None:
        words += _dockerfile_word(target, context, environment)
    words += [
        f"--build-context={name}={value}"
        for name, value in target.pairs("contexts").items()
        if not value.startswith(LINK)
    ]
    for key, option in _OPTIONS.items():
        match KEYS[key].kind:
            case "text":
                text = target.text(key)
                words += [f"{option}={text}"] if text else []
            case "switch":
                words += [option] if target.is_set(key) else []
            case "texts":
                words += [f"{option}={text}" for text in target.texts(key)]
            case "pairs":
                words += [f"{option}={name}={text}" for name, text in target.pairs(key).items()]
            case "entries":
                words += [f"{option}={format_entry(key, entry)}" for entry in target.entries(key)]
    for name in ("root", "jobs", "isolation", "metadata_file"):
        if vars(arguments)[name]:
            words.append(f"--{name.replace('_', '-')}={vars(arguments)[name]}")
    return words + [f"--insecure-registry={host}" for host in arguments.insecure_registry]


def _dockerfile_word(target: Target, context: str, environment: Environment) -> list[str]:
    """Return the option that names the Dockerfile: seen from the context here, from the current folder there."""
    name = target.text("dockerfile") or "Dockerfile"
    if _is_elsewhere(name, environment):
        return [f"--file={name}"]
    if _is_elsewhere(context, environment):
        return [] if name == "Dockerfile" else [f"--file={name}"]
    # Without a name of its own, `Dockerfile` or `dockerfile` is looked for, and the message is the one for a context.
    return [] if name == "Dockerfile" else [f"--file={os.path.join(context, name)}"]
