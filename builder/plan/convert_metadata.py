"""Instructions that change the config of the image and no file.

Source: Dockerfile reference; BuildKit, `frontend/dockerfile/dockerfile2llb/convert.go`; spec, section 1.8 and 2.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.dockerfile import instructions as dockerfile
from builder.errors import DockerfileError
from builder.plan import history_text
from builder.plan.check_values import check_ports
from builder.plan.ports import parse_ports
from builder.plan.signals import is_signal
from registry.oci.image_config import HealthCheck
from registry.value import replace

if TYPE_CHECKING:
    from builder.dockerfile.rules import Warn
    from builder.plan.image_state import StageState
    from builder.plan.scope import Scope

    Metadata = (
        dockerfile.Env
        | dockerfile.Label
        | dockerfile.Expose
        | dockerfile.Volume
        | dockerfile.StopSignal
        | dockerfile.Healthcheck
    )


def convert_metadata(instruction: Metadata, state: StageState, scope: Scope, warn: Warn) -> None:
    """Carry out one of these instructions.

    Raises:
        DockerfileError: a value is none that it takes.
    """
    match instruction:
        case dockerfile.Env():
            _set_variables(instruction, state, scope)
        case dockerfile.Label():
            _set_labels(instruction, state, scope)
        case dockerfile.Expose():
            check_ports(_add_ports(instruction, state, scope), instruction.span, warn)
        case dockerfile.Volume():
            _add_volumes(instruction, state, scope)
        case dockerfile.StopSignal():
            _set_stop_signal(instruction, state, scope)
        case dockerfile.Healthcheck():
            _set_healthcheck(instruction, state)


def _set_variables(instruction: dockerfile.Env, state: StageState, scope: Scope) -> None:
    """Set variables in the image and for later steps."""
    pairs = [(scope.text(name), scope.text(value)) for name, value in instruction.pairs]
    for name, value in pairs:
        state.set_environ(name, value)
    state.note("ENV " + " ".join(f"{name}={value}" for name, value in pairs))


def _set_labels(instruction: dockerfile.Label, state: StageState, scope: Scope) -> None:
    """Set labels."""
    pairs = [(scope.text(name), scope.text(value)) for name, value in instruction.pairs]
    state.config = replace(state.config, labels={**state.config.labels, **dict(pairs)})
    state.note("LABEL " + " ".join(f"{name}={value}" for name, value in pairs))


def _add_ports(instruction: dockerfile.Expose, state: StageState, scope: Scope) -> list[str]:
    """Add the ports; return them as they are written, expanded.

    The history has them in the order of the words as written, sorted before variables are replaced, with every repetition.
    Source: BuildKit, instructions/parse.go, parseExpose; dockerfile2llb/convert.go, dispatchExpose.
    """
    words = [word for written in sorted(instruction.ports) for word in scope.words(written)]
    ports = [port for word in words for port in parse_ports(word, instruction.span)]
    state.config = replace(state.config, exposed_ports=tuple(sorted({*state.config.exposed_ports, *ports})))
    state.note(f"EXPOSE {history_text.plain_list(ports)}")
    return words


def _add_volumes(instruction: dockerfile.Volume, state: StageState, scope: Scope) -> None:
    """Add volumes; nothing is made on disk."""
    paths = [scope.text(path) for path in instruction.paths]
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string", span=instruction.span)
    state.config = replace(state.config, volumes=tuple(dict.fromkeys([*state.config.volumes, *paths])))
    state.note(f"VOLUME {history_text.plain_list(paths)}")


def _set_stop_signal(instruction: dockerfile.StopSignal, state: StageState, scope: Scope) -> None:
    """Set the signal that ends a container."""
    signal = scope.text(instruction.signal)
    if not is_signal(signal):
        raise DockerfileError(
            f"Invalid signal: {signal}", hint="write a name such as SIGTERM, or a number", span=instruction.span
        )
    state.config = replace(state.config, stop_signal=signal)
    state.note(f"STOPSIGNAL {signal}")


def _set_healthcheck(instruction: dockerfile.Healthcheck, state: StageState) -> None:
    """Set how a container is asked whether it is well."""
    test = instruction.test
    check = HealthCheck(
        test=test,
        interval_ns=instruction.interval_ns,
        timeout_ns=instruction.timeout_ns,
        start_period_ns=instruction.start_period_ns,
        start_interval_ns=instruction.start_interval_ns,
        retries=instruction.retries,
    )
    state.config = replace(state.config, healthcheck=check)
    state.note(f"HEALTHCHECK {history_text.health_check(check)}")
