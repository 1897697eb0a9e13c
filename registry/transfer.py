"""What pulling and pushing share: progress, cancellation, and several blobs at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol

from registry.errors import RegistryError
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.oci.digest import Digest

CHUNK_SIZE: Final = 256 * 1024
"""Bytes that are read, hashed and written at a time: large enough that Python's share of the work does not show."""

PROGRESS_STEP: Final = 1024 * 1024
"""Progress is told at most once for that many bytes."""


@frozen
class TransferProgress:
    """How far one blob is, or a download that is named by its address: *current* of *total* bytes.

    `mount` and `exists` are told once, when nothing need be sent.
    """

    digest: Digest | str
    action: Literal["pull", "push", "mount", "exists"]
    current: int
    total: int


ProgressSink = Callable[[TransferProgress], None]
"""Takes progress; called from several threads, one at a time."""


class TransferCancelledError(RegistryError):
    """The work was given up because another part of it failed, or because the user said so."""

    id = "registry.cancelled"

    def __init__(self) -> None:
        super().__init__("the transfer was cancelled")


class Interruptible(Protocol):
    """Something that blocks one thread and can be woken by another."""

    def interrupt(self) -> None:
        """Make the blocked call fail soon. Safe at any time, also more than once."""


class Cancellation:
    """A switch that ends all requests of one pull or push. Safe to use from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._live: set[Interruptible] = set()

    def cancel(self) -> None:
        """Throw the switch and wake whoever waits for a socket. Idempotent."""
        self._event.set()
        with self._lock:
            live = tuple(self._live)
        for each in live:
            each.interrupt()

    def check(self) -> None:
        """Return if the switch was not thrown.

        Raises:
            TransferCancelledError: it was.
        """
        if self._event.is_set():
            raise TransferCancelledError

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            TransferCancelledError: the switch was thrown meanwhile.
        """
        self._event.wait(seconds)
        self.check()

    def add(self, waiting: Interruptible) -> None:
        """Have *waiting* interrupted by `cancel`, until it is removed."""
        with self._lock:
            self._live.add(waiting)
        if self._event.is_set():
            waiting.interrupt()

    def remove(self, waiting: Interruptible) -> None:
        """Forget *waiting*; nothing happens if it is not known."""
        with self._lock:
            self._live.discard(waiting)


def run_parallel(tasks: Sequence[Callable[[], None]], *, workers: int, cancellation: Cancellation) -> None:
    """Run all tasks, at most *workers* at a time, and return when every one has ended.

    The first task that fails, or a KeyboardInterrupt of the caller, cancels the others. Its exception is raised here;
    what the others then say follows from it and is dropped.
    """
    from concurrent.futures import ThreadPoolExecutor, wait  # noqa: PLC0415  (not needed when nothing is moved)

    failures: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            cancellation.check()
            task()
        except BaseException as failure:  # noqa: BLE001  (raised again by the caller's thread)
            failures.append(failure)
            cancellation.cancel()

    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(tasks))), thread_name_prefix="transfer") as pool:
        futures = [pool.submit(run, task) for task in tasks]
        try:
            wait(futures)
        except BaseException:
            cancellation.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise failures[0]
