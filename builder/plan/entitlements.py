"""Entitlements: what a RUN may ask for only when the user allows it with `--allow`.

Source: spec, sections 1.10 and 3.8; BuildKit, util/entitlements/entitlements.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.dockerfile.parser import shorten
from builder.errors import DockerfileError
from registry.value import replace

if TYPE_CHECKING:
    from builder.dockerfile.instructions import Run
    from builder.dockerfile.mounts import Device
    from builder.request import DeviceRules

NETWORK_HOST = "network.host"
SECURITY_INSECURE = "security.insecure"
DEVICE = "device"

ENTITLEMENTS = (NETWORK_HOST, SECURITY_INSECURE, DEVICE)
"""What can be allowed."""


def check_entitlements(run: Run, allowed: frozenset[str]) -> None:
    """Refuse a RUN that asks for more than is allowed; devices are checked when it is known which those are.

    Raises:
        DockerfileError: it needs another entitlement.
    """
    if run.network == "host" and NETWORK_HOST not in allowed:
        raise DockerfileError(
            f"granting entitlement {NETWORK_HOST} is not allowed",
            hint=f"if you trust this Dockerfile, build with --allow {NETWORK_HOST}",
            span=run.span,
        )
    if run.security == "insecure" and SECURITY_INSECURE not in allowed:
        raise DockerfileError(
            f"granting entitlement {SECURITY_INSECURE} is not allowed",
            hint=f"if you trust this Dockerfile, build with --allow {SECURITY_INSECURE}",
            span=run.span,
        )


def plan_devices(run: Run, rules: DeviceRules) -> tuple[Device, ...]:
    """Return the devices of a RUN, each once, with their own names in place of aliases.

    Raises:
        DockerfileError: something is no name of a device.

    Source: moby/buildkit, solver/llbsolver/vertex.go, ValidateEntitlements.
    """
    if not run.devices:
        return ()
    from builder.devices.name import parse_device_name  # noqa: PLC0415  (only with devices)

    aliases = {grant.alias: grant.name for grant in rules.grants if grant.alias}
    devices: dict[str, Device] = {}
    for device in run.devices:
        name = aliases.get(device.name, device.name)
        if parse_device_name(name) is None:
            raise DockerfileError(
                f"invalid device: `{shorten(name)}`",
                hint="write --device=vendor.com/class or --device=vendor.com/class=name",
                span=run.span,
            )
        required = device.required or (name in devices and devices[name].required)
        devices[name] = replace(device, name=name, required=required)
    return tuple(devices.values())
