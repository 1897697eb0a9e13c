"""What a Dockerfile offers: its stages, and what a target can be given. No image is looked at.

Source: moby/buildkit, frontend/dockerfile/dockerfile2llb/outline.go and frontend/subrequests/targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from builder.dockerfile import instructions as dockerfile
from builder.dockerfile.rules import find_description
from builder.dockerfile.words import expand
from builder.errors import DockerfileError
from builder.plan.build_args import automatic_args, global_args

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.dockerfile.mounts import MountFlag
    from builder.dockerfile.stages import Dockerfile, Stage
    from builder.request import BuildRequest
    from builder.source import Span


class Target(NamedTuple):
    """A stage that can be built. *name* is empty if it has none."""

    name: str
    default: bool
    description: str
    base: str
    platform: str
    span: Span


class Argument(NamedTuple):
    """A build argument with the value it has if nothing else is given; None without one."""

    name: str
    value: str | None
    description: str
    span: Span


class Need(NamedTuple):
    """A secret, an ssh agent or a cache that a step mounts, by its id."""

    name: str
    required: bool
    span: Span


class Outline(NamedTuple):
    """What a target can be given."""

    name: str
    description: str
    args: tuple[Argument, ...]
    secrets: tuple[Need, ...]
    ssh: tuple[Need, ...]
    caches: tuple[Need, ...]


def list_targets(source: Dockerfile) -> tuple[Target, ...]:
    """List the stages in the order of the file; the last one is the default."""
    return tuple(
        Target(
            name=stage.name or "",
            default=stage is source.stages[-1],
            description=_stage_description(stage),
            base=stage.base.image,
            platform=stage.base.platform or "",
            span=stage.base.span,
        )
        for stage in source.stages
    )


def outline(source: Dockerfile, request: BuildRequest) -> Outline:
    """Tell what the target of *request* can be given.

    Raises:
        UsageError: there is no such target.
        DockerfileError: a global argument or a mount cannot be expanded.
    """
    target = source.get_target(request.target)
    automatic = automatic_args(
        target=request.platform, build=request.build_platform, stage=request.target or target.name or "default"
    )
    escape = source.directives.escape

    def expand_default(instruction: dockerfile.Arg, text: str, values: Mapping[str, str]) -> str:
        try:
            return expand(text, values.get, escape=escape).text
        except DockerfileError as error:
            raise DockerfileError(error.message, hint=error.hint, span=instruction.span) from error

    values = global_args(source.meta_args, automatic, request.build_args, expand_default)
    stages = _needed_stages(source, target, values)
    arguments = list(_arguments(source.meta_args, request.build_args, values))
    needs: dict[str, dict[str, Need]] = {"secret": {}, "ssh": {}, "cache": {}}
    environments: dict[int, dict[str, str]] = {}
    for stage in stages:
        parent = source.find_stage(_base_name(source, stage, values), before=stage.index)
        environ = environments[stage.index] = dict(environments.get(parent.index, {})) if parent else {}
        for instruction in stage.instructions:
            match instruction:
                case dockerfile.Arg():
                    for name, default in instruction.pairs:
                        value = request.build_args.get(name)
                        if value is None:
                            value = expand_default(instruction, default, environ) if default else default
                            value = values.get(name) if value is None else value
                        if value is not None:
                            environ[name] = value
                    arguments += _arguments((instruction,), request.build_args, environ)
                case dockerfile.Env():
                    environ |= {
                        name: expand(value, environ.get, escape=escape).text for name, value in instruction.pairs
                    }
                case dockerfile.Run():
                    for flag in instruction.mounts:
                        kind, need = _need(flag, environ, escape)
                        known = needs.get(kind, {})
                        if need is not None and not (need.name in known and known[need.name].required):
                            known[need.name] = need
                case _:
                    pass
    unique = {argument.name: argument for argument in reversed(arguments) if argument.name not in automatic}
    return Outline(
        name=target.name or "",
        description=_stage_description(target),
        args=tuple(sorted(unique.values(), key=lambda argument: argument.span.line)),
        secrets=tuple(needs["secret"].values()),
        ssh=tuple(needs["ssh"].values()),
        caches=tuple(needs["cache"].values()),
    )


def _arguments(
    declared: tuple[dockerfile.Arg, ...], given: Mapping[str, str], values: Mapping[str, str]
) -> Iterator[Argument]:
    for instruction in declared:
        for name, _ in instruction.pairs:
            value = given.get(name, values.get(name))
            yield Argument(name, value, find_description(instruction.comments, name), instruction.span)


def _stage_description(stage: Stage) -> str:
    return find_description(stage.base.comments, stage.name) if stage.name else ""


def _base_name(source: Dockerfile, stage: Stage, values: Mapping[str, str]) -> str:
    try:
        return expand(stage.base.image, values.get, escape=source.directives.escape).text
    except DockerfileError as error:
        raise DockerfileError(error.message, hint=error.hint, span=stage.base.span) from error


def _needed_stages(source: Dockerfile, target: Stage, values: Mapping[str, str]) -> list[Stage]:
    """List the stages the target needs, in the order of the file."""
    found = {target.index}
    pending = [target]
    while pending:
        stage = pending.pop()
        names = [_base_name(source, stage, values)]
        for instruction in stage.instructions:
            if isinstance(instruction, dockerfile.Copy) and instruction.from_:
                names.append(instruction.from_)
            elif isinstance(instruction, dockerfile.Run):
                names += [flag.from_ for flag in instruction.mounts if flag.from_]
        for name in names:
            needed = source.find_stage(name, before=stage.index)
            if needed is not None and needed.index not in found:
                found.add(needed.index)
                pending.append(needed)
    return [source.stages[index] for index in sorted(found)]


def _need(flag: MountFlag, environ: Mapping[str, str], escape: str) -> tuple[str, Need | None]:
    """Return the kind of a mount, and what it needs from outside if it does."""
    from builder.dockerfile.mounts import CacheMount, SecretMount, SshMount  # noqa: PLC0415  few files have mounts

    mount = flag.expand(lambda text: expand(text, environ.get, escape=escape).text)
    match mount:
        case SecretMount():
            return "secret", Need(mount.id, mount.required, flag.span)
        case SshMount():
            return "ssh", Need(mount.id, mount.required, flag.span)
        case CacheMount():
            return "cache", Need(mount.id or mount.target, required=False, span=flag.span)
        case _:
            return "", None
