"""The registry client of the command line: settings and credentials from where users keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.cli.environment import Environment
    from registry.client import RegistryClient
    from registry.hosts import RegistrySettings
    from registry.transfer import ProgressSink


def load_settings(environment: Environment, insecure: Sequence[str]) -> RegistrySettings:
    """Read how registries are reached.

    Args:
        environment: where configuration lies.
        insecure: hosts of `--insecure-registry`.

    Raises:
        RegistryError: a configuration file cannot be read.
    """
    from registry.hosts import RegistrySettings  # noqa: PLC0415  (a cached build needs no registry)

    return RegistrySettings.load(
        environment.registries_files(),
        insecure_hosts=insecure,
        certificate_directories=environment.certificate_folders(),
        auth_files=environment.auth_files(),
    )


def connect(environment: Environment, insecure: Sequence[str], progress: ProgressSink | None = None) -> RegistryClient:
    """Make a client.

    Args:
        environment: where configuration lies.
        insecure: hosts of `--insecure-registry`.
        progress: told of transfers.
    """
    from registry.client import RegistryClient  # noqa: PLC0415  (loads the HTTP library)

    settings = load_settings(environment, insecure)
    return RegistryClient(settings, environment=environment.variables, progress=progress)
