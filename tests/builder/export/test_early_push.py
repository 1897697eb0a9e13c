"""Layers that are sent ahead of their image: to whom, how often, and what ends it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from builder.export import early_push
from builder.export.early_push import EarlyPush
from registry.errors import UnreachableError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.media_types import OCI_LAYER_GZIP
from registry.oci.reference import parse_reference
from registry.transfer import TransferCancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = parse_reference("registry.example/app:1")


def blob(name: str) -> Descriptor:
    """Describe a layer."""
    return Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(name.encode()), size=1)


class Client:
    """Takes layers, and waits or fails where a test says so."""

    def __init__(self) -> None:
        self.sent: list[Descriptor] = []
        self.error: Exception | None = None
        self.is_slow = False
        self.begun = threading.Event()
        self.canceled = threading.Event()

    def send(self, layers: list[Descriptor]) -> None:
        """Take layers."""
        self.begun.set()
        if self.is_slow:
            self.canceled.wait(20)
            raise TransferCancelledError
        if self.error is not None:
            raise self.error
        self.sent += layers

    def cancel(self) -> None:
        """End what waits."""
        self.canceled.set()


@pytest.fixture
def client(monkeypatch):
    """Give what layers are sent through."""
    made = Client()
    monkeypatch.setattr(early_push, "push_blobs", lambda _store, layers, _source, _name, to: to.send(layers))
    return made


@pytest.fixture
def push(client, tmp_path):
    """Give an early push to it, and *opened*, the pieces of work that it was shown as."""

    @contextmanager
    def connecting(name: str) -> Iterator[Client]:
        made.opened.append(name)
        yield client

    class Store:
        blobs = None

    made = EarlyPush(Store(), NAME, connecting)
    made.opened = []
    return made


def test_every_layer_is_sent_once_before_the_block_ends(client, push):
    """In the order in which they are offered; shown as one piece of work."""
    with push:
        for name in ("a", "b", "a", "c"):
            push.offer(blob(name))

    assert client.sent == [blob("a"), blob("b"), blob("c")]
    assert push.opened == ["pushing layers for registry.example/app:1"]


def test_nothing_is_opened_for_nothing(push):
    """No client, and no piece of work."""
    with push:
        pass

    assert push.opened == []


def test_block_that_fails_does_not_wait_for_the_registry(client, push):
    """What is sent at that moment is given up, and what waits too."""
    client.is_slow = True

    def fail() -> None:
        with push:
            push.offer(blob("a"))
            push.offer(blob("b"))
            assert client.begun.wait(20)
            raise ValueError("step")

    with pytest.raises(ValueError, match="step"):
        fail()

    assert client.canceled.is_set()
    assert client.sent == []


def test_registry_that_takes_nothing_is_no_error_here(client, push):
    """It is asked once, and the push of the image says what is wrong."""
    client.error = UnreachableError("registry.example", "it is away", transient=False)
    with push:
        push.offer(blob("a"))
        push.offer(blob("b"))

    assert client.sent == []
