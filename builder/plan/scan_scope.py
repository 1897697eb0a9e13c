"""What a list of software takes in beside the result: other stages of the Dockerfile, the build context.

Two ARGs say it, before the first FROM for all stages, or in a stage for that one. They steer the builder and are no
variables of steps.

Source: BuildKit, docs/attestations/sbom.md, section Dockerfile configuration; dockerfile2llb/convert.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.plan.graph import Vertex

_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})


class ScanScope(NamedTuple):
    """What is scanned beside the result: *stages* by name, None for an empty one, and perhaps the build *context*."""

    stages: tuple[tuple[str, Vertex | None], ...] = ()
    context: bool = False


def is_scanned(argument: str, stage: str, declared: Sequence[tuple[str, str]], global_args: Mapping[str, str]) -> bool:
    """Tell whether one of the ARGs asks for a stage.

    Args:
        argument: which of them.
        stage: the name of the stage.
        declared: the ARGs of the stage with their values, the last of a name wins.
        global_args: the arguments before the first FROM.
    """
    values = [value for name, value in declared if name == argument]
    value = values[-1] if values else global_args.get(argument, "")
    if value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    return bool(stage) and stage in value.split(",")
