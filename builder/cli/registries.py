"""The registry client of the command line: settings and credentials from where users keep them."""

from __future__ import annotations

from threading import Lock

from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.cli.environment import Environment
    from registry.client import RegistryClient
    from registry.hosts import RegistrySettings
    from registry.transfer import ProgressSink


@frozen(kw_only=False)
class RegistryAdditions:
    """What a command line says besides the configuration files.

    Attributes:
        mirrors: `host[/path]`, asked before `docker.io` and what the files name for it.
        only_mirrors: whether the last of *mirrors* stands for `docker.io`, which is not asked then.
        certificate_folders: certs.d folders that count more than those of the configuration.
        auth_files: files with credentials that count less.
    """

    mirrors: tuple[str, ...] = ()
    only_mirrors: bool = False
    certificate_folders: tuple[Path, ...] = ()
    auth_files: tuple[Path, ...] = ()


NO_ADDITIONS = RegistryAdditions()
"""The configuration files alone."""


def load_settings(
    environment: Environment, insecure: Sequence[str], additions: RegistryAdditions = NO_ADDITIONS
) -> RegistrySettings:
    """Read how registries are reached.

    Args:
        environment: where configuration lies.
        insecure: hosts of `--insecure-registry`.
        additions: what the command line says besides.

    Raises:
        RegistryError: a configuration file cannot be read.
    """
    from registry.hosts import RegistrySettings  # noqa: PLC0415  (a cached build needs no registry)

    settings = RegistrySettings.load(
        environment.registries_files(),
        insecure_hosts=insecure,
        certificate_directories=(*additions.certificate_folders, *environment.certificate_folders()),
        auth_files=(*environment.auth_files(), *additions.auth_files),
    )
    if not additions.mirrors:
        return settings
    return settings.with_mirrors(additions.mirrors, only=additions.only_mirrors)


class Registries:
    """Makes the clients of one build: what one of them was let into is open to those that follow. For many threads.

    Args:
        environment: where configuration lies.
        insecure: hosts of `--insecure-registry`.
        additions: what the command line says besides.
    """

    def __init__(
        self, environment: Environment, insecure: Sequence[str], additions: RegistryAdditions = NO_ADDITIONS
    ) -> None:
        self._environment = environment
        self._insecure = insecure
        self._additions = additions
        self._lock = Lock()
        self._first: RegistryClient | None = None

    def connect(self, progress: ProgressSink) -> RegistryClient:
        """Make a client that tells *progress* of its transfers."""
        with self._lock:
            if self._first is None:
                self._first = connect(self._environment, self._insecure, progress, self._additions)
                return self._first
        return self._first.another(progress)


def connect(
    environment: Environment,
    insecure: Sequence[str],
    progress: ProgressSink | None = None,
    additions: RegistryAdditions = NO_ADDITIONS,
) -> RegistryClient:
    """Make a client.

    Args:
        environment: where configuration lies.
        insecure: hosts of `--insecure-registry`.
        progress: told of transfers.
        additions: what the command line says besides.
    """
    from registry.client import RegistryClient  # noqa: PLC0415  (loads the HTTP library)

    settings = load_settings(environment, insecure, additions)
    return RegistryClient(settings, environment=environment.variables, progress=progress)
