"""Build arguments: the global scope of a Dockerfile, the automatic ones, the predefined ones.

Source: Dockerfile reference, ARG; BuildKit, `dockerfile2llb/convert.go` (metaArgs, defaultArgs, proxyEnv).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.dockerfile.instructions import Arg
    from registry.oci.platform import Platform

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
"""Usable without ARG, in both cases; given to RUN, but neither to the cache key nor to the history."""

CONTROL_PREFIX = "BUILDKIT_"
"""Arguments that steer the builder; like SOURCE_DATE_EPOCH they need no ARG."""

SCAN_CONTEXT_ARG = "BUILDKIT_SBOM_SCAN_CONTEXT"
SCAN_STAGE_ARG = "BUILDKIT_SBOM_SCAN_STAGE"
SCAN_ARGS = (SCAN_CONTEXT_ARG, SCAN_STAGE_ARG)
"""Arguments that say what a list of software takes in (`builder.plan.scan_scope`); no step sees them."""


def automatic_args(*, target: Platform, build: Platform, stage: str) -> dict[str, str]:
    """Give the automatic arguments of the global scope."""
    args = {"BUILDPLATFORM": str(build), "TARGETPLATFORM": str(target), "TARGETSTAGE": stage}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        args[f"{prefix}OS"] = platform.os
        args[f"{prefix}ARCH"] = platform.architecture
        args[f"{prefix}VARIANT"] = platform.variant
        args[f"{prefix}OSVERSION"] = platform.os_version
    return args


def global_args(
    declared: Sequence[Arg],
    automatic: Mapping[str, str],
    given: Mapping[str, str],
    expand: Callable[[Arg, str, Mapping[str, str]], str],
) -> dict[str, str]:
    """Evaluate the ARGs before the first FROM.

    Args:
        declared: these instructions in order.
        automatic: values nobody has to declare.
        given: `--build-arg`; a default is not even evaluated where one is given.
        expand: expands a default of an instruction with the values so far.
    """
    values = {**automatic, **{name: value for name, value in given.items() if name in automatic}}
    for instruction in declared:
        for name, default in instruction.pairs:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = expand(instruction, default, values)
    return values


def proxy_environ(given: Mapping[str, str], declared: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Give the proxy variables of `--build-arg` in both cases, but for those that an ARG made ordinary."""
    pairs: dict[str, str] = {}
    for name, value in given.items():
        if name.upper() in PROXY_VARIABLES and name not in declared:
            pairs[name.upper()] = value
            pairs[name.lower()] = value
    return tuple(pairs.items())
