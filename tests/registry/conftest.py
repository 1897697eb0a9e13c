"""What the tests of pulling and pushing share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from registry.client import RegistryClient
from registry.hosts import RegistrySettings
from registry.retries import Pacing
from tests.fakes.random_image import make_store
from tests.fakes.registry_server import FakeRegistry

if TYPE_CHECKING:
    from registry.transfer import Cancellation, TransferProgress


@dataclass
class Rig:
    """Makes clients that never sleep, and notes how long they would have."""

    pauses: list[float] = field(default_factory=list)
    progress: list[TransferProgress] = field(default_factory=list)
    clients: list[RegistryClient] = field(default_factory=list)
    now: float = 0.0

    def client(self, settings: RegistrySettings | None = None, **environment: str) -> RegistryClient:
        client = RegistryClient(
            settings or RegistrySettings(),
            environment=environment,
            progress=self.progress.append,
            pacing=Pacing(pause=self._pause, chance=lambda: 0.0),
            clock=lambda: self.now,
        )
        self.clients.append(client)
        return client

    def _pause(self, cancellation: Cancellation, seconds: float) -> None:
        cancellation.check()
        self.pauses.append(seconds)


@pytest.fixture
def rig():
    """Makes clients that never sleep."""
    rig = Rig()
    yield rig
    for client in rig.clients:
        client.close()


@pytest.fixture
def fake():
    """A registry in this process."""
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def source(tmp_path):
    """A store to push from."""
    return make_store(tmp_path / "source")


@pytest.fixture
def target(tmp_path):
    """A store to pull into."""
    return make_store(tmp_path / "target")
