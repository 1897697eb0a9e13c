"""Entitlements: what a RUN may ask for only when the user allows it with `--allow`.

Source: spec, sections 1.10 and 3.8; BuildKit, util/entitlements/entitlements.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import DockerfileError

if TYPE_CHECKING:
    from builder.dockerfile.instructions import Run

NETWORK_HOST = "network.host"
SECURITY_INSECURE = "security.insecure"
DEVICE = "device"

ENTITLEMENTS = (NETWORK_HOST, SECURITY_INSECURE, DEVICE)
"""What can be allowed. The host's network is the default, so `network.host` is accepted and asked for by nothing."""


def check_entitlements(run: Run, allowed: frozenset[str]) -> None:
    """Refuse a RUN that asks for more than is allowed.

    Raises:
        DockerfileError: it needs another entitlement, or a device.
    """
    if run.security == "insecure" and SECURITY_INSECURE not in allowed:
        raise DockerfileError(
            f"granting entitlement {SECURITY_INSECURE} is not allowed",
            hint=f"if you trust this Dockerfile, build with --allow {SECURITY_INSECURE}",
            span=run.span,
        )
    for device in run.devices:
        if DEVICE not in allowed:
            raise DockerfileError(
                f"granting entitlement {DEVICE} is not allowed: `{device.name}`",
                hint="remove --device: pybuild has no device drivers (CDI)",
                span=run.span,
            )
        raise DockerfileError(
            f"RUN --device is not supported, pybuild has no device drivers (CDI): `{device.name}`",
            hint="remove --device",
            span=run.span,
        )
