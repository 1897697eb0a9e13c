"""The build checks that need values: variables, platforms, ports, what the ignore file hides.

Every function tells a `warn` with the name of the rule, the message and the place.

Source: moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go (report… and validate… functions).
"""

from __future__ import annotations

import re

from builder.dockerfile.words import expand
from builder.errors import DockerfileError
from registry.errors import RegistryError
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from builder.dockerfile.instructions import Instruction
    from builder.dockerfile.rules import Warn
    from builder.dockerfile.stages import Dockerfile
    from builder.source import Span
    from registry.oci.platform import Platform


@frozen(kw_only=False)
class PlanChecks:
    """What the plan tells and asks for the sake of the checks.

    *warn* takes violations, *is_ignored* says of a path of the context whether the ignore file hides it. *all_stages*
    asks that stages be planned which the target does not need, to check them too.
    """

    warn: Warn
    is_ignored: Callable[[str], bool]
    all_stages: bool = False


NO_CHECKS = PlanChecks(warn=lambda *_: None, is_ignored=lambda _: False)
"""Nobody listens."""

_TARGET_PLATFORM = "TARGETPLATFORM"


def check_from_lines(source: Dockerfile, values: Mapping[str, str], automatic: Mapping[str, str], warn: Warn) -> None:
    """Check the images and platforms of all FROM lines.

    Args:
        source: the Dockerfile.
        values: the global scope of this build.
        automatic: the part of it nobody declares.
        warn: is told.
    """
    if not any(
        "$" in f"{stage.base.image}{stage.base.platform or ''}" or stage.base.platform for stage in source.stages
    ):
        return
    declared = {name for instruction in source.meta_args for name, _ in instruction.pairs}
    known = {*values, *declared}
    escape = source.directives.escape
    defaults = _default_values(source, automatic)
    for stage in source.stages:
        for text in (stage.base.image, stage.base.platform):
            if text is None or "$" not in text:
                continue
            for name in sorted(expand(text, values.get, escape=escape).unmatched - known):
                message = f"FROM argument '{name}' is not declared{_suggest(name, sorted(known))}"
                warn("UndefinedArgInFrom", message, stage.base.span)
        if stage.base.platform is not None:
            _check_platform(stage.base.platform, stage.name or "", values, escape, stage.base.span, warn)
        if "$" in stage.base.image and not _is_image(stage.base.image, defaults, escape):
            message = f"Default value for ARG {stage.base.image} results in empty or invalid base image name"
            warn("InvalidDefaultArgInFrom", message, stage.base.span)


def check_unset(
    instruction: Instruction, unset: Iterable[str], declared: Iterable[str], known: Iterable[str], warn: Warn
) -> None:
    """Report variables that an instruction uses and nobody defined.

    One whose only uses say what to take instead, as `${name:-default}` does, is no fault here, though BuildKit
    reports it.

    Args:
        instruction: uses them.
        unset: the names without a value.
        declared: names of ARGs, which may be without a value.
        known: names that have a value, for suggestions.
        warn: is told.
    """
    text = "\n".join([instruction.original, *[heredoc.body for heredoc in instruction.node.heredocs]])
    for name in sorted(set(unset).difference(declared)):
        if name.isidentifier() and not re.search(rf"\$(?:{name}(?!\w)|\{{{name}(?!\w)(?!:?[-+?]))", text):
            continue
        near = _suggest(name, list(known), sign="$")
        warn("UndefinedVar", f"Usage of undefined variable '${name}'{near}", instruction.span)


def check_ports(words: Iterable[str], span: Span, warn: Warn) -> None:
    """Check how the ports of EXPOSE are written."""
    for word in words:
        protocol = word.partition("/")[2]
        if protocol != protocol.lower():
            warn("ExposeProtoCasing", f"Defined protocol '{word}' in EXPOSE instruction should be lowercase", span)
        if ":" in word:
            message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
            warn("ExposeInvalidFormat", message, span)


def check_sources(keyword: str, paths: Iterable[str], span: Span, checks: PlanChecks) -> None:
    """Report sources of COPY or ADD in the context that its ignore file hides."""
    for path in paths:
        if checks.is_ignored(path):
            message = f'Attempting to {keyword.capitalize()} file "{path}" that is excluded by .dockerignore'
            checks.warn("CopyIgnoredFile", message, span)


def check_base_platform(name: str, expected: Platform, actual: Platform, span: Span, warn: Warn) -> None:
    """Compare the platform of a base image with the one it was asked for."""
    if (expected.os, expected.architecture) != (actual.os, actual.architecture):
        message = f'Base image {name} was pulled with platform "{actual}", expected "{expected}" for current build'
        warn("InvalidBaseImagePlatform", message, span)


def _check_platform(text: str, stage_name: str, values: Mapping[str, str], escape: str, span: Span, warn: Warn) -> None:
    from registry.oci.platform import parse_platform  # noqa: PLC0415  few files name a platform

    expansion = expand(text, values.get, escape=escape)
    if expansion.matched == {_TARGET_PLATFORM} and not expansion.unmatched:
        if expansion.text == values.get(_TARGET_PLATFORM):
            message = f"Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
            warn("RedundantTargetPlatform", message, span)
        return
    if expansion.matched or expansion.unmatched:
        return
    try:
        platform = parse_platform(expansion.text)
    except RegistryError:
        return
    if platform.os not in stage_name and platform.architecture not in stage_name:
        warn("FromPlatformFlagConstDisallowed", f'FROM --platform flag should not use constant value "{text}"', span)


def _default_values(source: Dockerfile, automatic: Mapping[str, str]) -> dict[str, str]:
    """Evaluate the global ARGs as if no build argument were given; a default that fails gives none."""
    values = dict(automatic)
    for instruction in source.meta_args:
        for name, default in instruction.pairs:
            if default is not None:
                try:
                    values[name] = expand(default, values.get, escape=source.directives.escape).text
                except DockerfileError:
                    continue
    return values


def _is_image(text: str, values: Mapping[str, str], escape: str) -> bool:
    from registry.oci.reference import parse_reference  # noqa: PLC0415  as the caller, few files come here

    try:
        parse_reference(expand(text, values.get, escape=escape).text)
    except (DockerfileError, RegistryError):
        return False
    return True


def _suggest(name: str, candidates: list[str], *, sign: str = "") -> str:
    from builder.dockerfile.suggest import nearest  # noqa: PLC0415  only where a rule is broken

    near = nearest(name, candidates)
    return f" (did you mean {sign}{near}?)" if near else ""
