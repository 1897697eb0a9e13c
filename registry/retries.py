"""Trying again: which failures pass by themselves, how often a request is tried, and how long to wait.

Source: RFC 9110, section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Final

from registry.errors import UnreachableError
from registry.transfer import Cancellation
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.transport import Answer

TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes of answers that another try may fare better with."""

_LOG = logging.getLogger("pybuild." + __name__)
_MAX_ERROR_BODY: Final = 64 * 1024


@frozen
class RetryPolicy:
    """How often and how patiently a request is tried. Delays are in seconds.

    Each delay doubles the one before, up to *longest_delay*, and is cut by up to half at random, so that many clients
    do not come back at once. A server's own Retry-After is obeyed up to *longest_wait*; beyond that we give up.
    """

    attempts: int = 5
    first_delay: float = 0.5
    longest_delay: float = 15.0
    longest_wait: float = 60.0

    def delay(self, attempt: int, chance: float) -> float:
        """Return how long to wait after *attempt* (from 1) failed; *chance* is in [0, 1)."""
        return min(self.longest_delay, self.first_delay * 2.0 ** (attempt - 1)) * (1 - chance / 2)


@frozen
class Pacing:
    """Retries as they are carried out: the policy, chance, and how to wait.

    *chance* gives numbers in [0, 1). *pause* sleeps; it is given the cancellation that may end the sleep.
    *wall_clock* gives seconds since the epoch, for dates in Retry-After.
    """

    policy: RetryPolicy = RetryPolicy()
    chance: Callable[[], float] = random.random
    pause: Callable[[Cancellation, float], None] = Cancellation.wait
    wall_clock: Callable[[], float] = time.time


class Retries:
    """The retries of one piece of work, which a cancellation ends. Safe to use from any thread."""

    def __init__(self, pacing: Pacing, cancellation: Cancellation) -> None:
        self._pacing = pacing
        self._cancellation = cancellation

    @property
    def policy(self) -> RetryPolicy:
        """How patiently requests are tried."""
        return self._pacing.policy

    def pause(self, attempt: int, *, wanted: float | None = None) -> None:
        """Wait as the policy says after *attempt* (from 1) failed, or the *wanted* seconds.

        Raises:
            TransferCancelledError: the work was given up meanwhile.
        """
        seconds = self._pacing.policy.delay(attempt, self._pacing.chance()) if wanted is None else wanted
        self._pacing.pause(self._cancellation, seconds)

    def persist(self, send: Callable[[], Answer], *, subject: str, retry: bool = True) -> Answer:
        """Send, again and again while the failure is a passing one; without *retry* once.

        Returns:
            The last answer, which may still be a failure.

        Raises:
            UnreachableError: there was none.
            TransferCancelledError: the work was given up meanwhile.
        """
        attempt = 1
        while True:
            is_last = not retry or attempt >= self.policy.attempts
            try:
                answer = send()
            except UnreachableError as error:
                if is_last or not error.transient:
                    raise
                _LOG.debug("attempt %d for %s failed: %s", attempt, subject, error.cause)
                self.pause(attempt)
            else:
                if is_last or answer.status not in TRANSIENT:
                    return answer
                wait = self.read_retry_after(answer)
                if wait is not None and wait > self.policy.longest_wait:
                    return answer
                answer.read_all(limit=_MAX_ERROR_BODY)
                _LOG.debug("attempt %d for %s failed: status %d", attempt, subject, answer.status)
                self.pause(attempt, wanted=wait)
            attempt += 1

    def read_retry_after(self, answer: Answer) -> float | None:
        """Return how many seconds an answer asks us to wait, None if it does not say."""
        value = (answer.header("Retry-After") or "").strip()
        if value.isdecimal() and len(value) < 10:
            return float(value)
        if not value:
            return None
        from email.utils import parsedate_to_datetime  # noqa: PLC0415  (rare)

        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - self._pacing.wall_clock())
        except (ValueError, OverflowError):
            return None
