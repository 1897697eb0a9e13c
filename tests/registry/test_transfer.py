"""Cancellation and parallel tasks."""

from __future__ import annotations

import threading

import pytest

from registry.transfer import Cancellation, TransferCancelledError, run_parallel


def test_run_parallel_runs_every_task():
    """Every task has run when it returns, with never more than the wanted number at a time."""
    lock, running, most, done = threading.Lock(), 0, 0, []

    def task(number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
            done.append(number)

    run_parallel([lambda n=n: task(n) for n in range(50)], workers=3, cancellation=Cancellation())

    assert sorted(done) == list(range(50))
    assert most <= 3


def test_run_parallel_raises_the_first_failure():
    """The failure that started it is raised, not those that follow from it."""
    cancellation = Cancellation()
    started = threading.Event()

    def waits():
        started.set()
        cancellation.wait(30)

    def fails():
        started.wait(30)
        raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause"):
        run_parallel([waits, fails, waits], workers=2, cancellation=cancellation)


def test_run_parallel_of_nothing_returns():
    """No tasks are no trouble."""
    run_parallel([], workers=4, cancellation=Cancellation())


def test_cancellation_interrupts_what_is_added_late():
    """What starts to wait after the switch was thrown is interrupted at once."""

    class Waiting:
        interrupted = 0

        def interrupt(self):
            self.interrupted += 1

    cancellation, waiting = Cancellation(), Waiting()
    cancellation.cancel()
    cancellation.add(waiting)

    assert waiting.interrupted == 1
    with pytest.raises(TransferCancelledError, match="was cancelled"):
        cancellation.check()
