"""Receiving: one blob into a writer, taken up where it broke off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from registry.errors import SizeMismatchError, UnreachableError
from registry.transfer import CHUNK_SIZE, PROGRESS_STEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.content.store import BlobWriter
    from registry.oci.descriptor import Descriptor
    from registry.retries import Retries
    from registry.transport import Answer

    OpenAt = Callable[[int], tuple[int, Answer]]
    """Asks for a blob from a byte on; gives the position of the first byte that comes, and the open answer."""

_LOG = logging.getLogger("pybuild." + __name__)


class Reception:
    """One blob on its way into a writer, across broken connections.

    Args:
        blob: what is expected.
        writer: takes it; not committed here.
        open_at: asks for it.
        retries: how often it is taken up again.
        host: who sends it, for errors.
        subject: what it is, for errors.
        tell: is told how many bytes have come.
    """

    def __init__(
        self,
        blob: Descriptor,
        writer: BlobWriter,
        open_at: OpenAt,
        *,
        retries: Retries,
        host: str,
        subject: str,
        tell: Callable[[int], None],
    ) -> None:
        self._blob = blob
        self._writer = writer
        self._open_at = open_at
        self._retries = retries
        self._host = host
        self._subject = subject
        self._tell = tell
        self._received = 0

    def run(self) -> None:
        """Receive everything that is missing.

        Raises:
            UnreachableError: the connection broke again and again without anything coming through.
            SizeMismatchError: the server sends more than the blob has.
        """
        attempt = 1
        while True:
            before = self._received
            try:
                self._receive()
            except UnreachableError as error:
                if self._received - before >= PROGRESS_STEP:
                    attempt = 1
                if not error.transient or attempt >= self._retries.policy.attempts:
                    raise
                _LOG.debug("blob %s broke off after %d bytes", self._blob.digest, self._received)
                self._retries.pause(attempt)
                attempt += 1
            else:
                return

    def _receive(self) -> None:
        position, answer = self._open_at(self._received)
        told = self._received
        with answer:
            while piece := answer.read(CHUNK_SIZE):
                # A server that does not send parts starts over; skip what is here already.
                fresh = memoryview(piece)[max(0, self._received - position) :]
                position += len(piece)
                if position > self._blob.size:
                    raise SizeMismatchError(expected=self._blob.size, actual=position, subject=self._subject)
                self._writer.write(fresh)
                self._received += len(fresh)
                if self._received - told >= PROGRESS_STEP:
                    self._tell(self._received)
                    told = self._received
        if self._received < self._blob.size:
            # Without a Content-Length, an early end looks like a regular one.
            raise UnreachableError(self._host, "the connection broke", transient=True)
        self._tell(self._received)
