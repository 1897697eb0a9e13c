"""Which vertex is carried out when, and by which thread.

A vertex is *ready* when all its inputs are solved. Up to `jobs` of them are carried out at the same time, each by a
worker; where that number is no limit that somebody set, more while processors are idle. One that is carried out in two parts, as a RUN is, gives its worker back after the first, when it has *begun*;
a *finisher*, a thread of another kind, does the rest.

The worker may then go on with a vertex above that need not wait for the rest, which is *early*. There is at most one
above each vertex, and it is chosen before the rest is done, so that who does that knows of it. An early vertex is
finished after the one below, and not at all if that one fails. So that fast commands do not pile up unfinished,
none begins early while `MOST_BEGUN` have begun.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from builder.solve.idle import INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builder.plan.graph import Vertex
    from builder.solve.commands import Ended
    from builder.solve.idle import IdleProcessors
    from builder.solve.questions import Question

MOST_BEGUN: Final = 4
"""How many vertices may have begun and not be finished when another one begins early."""

MOST_PER_JOB: Final = 8
"""How many times `jobs` are carried out at once, however idle the processors are: each step takes memory."""


class Begun:
    """A vertex of which the second part is left: the layer of a command.

    Args:
        vertex: which one.
        command: what the first part left.
        keys: those under which its layer is kept; none if it began early.
        below: what it began on early.
        held: what it has until it is finished.

    Attributes:
        early: what began on it; not set any more once it is being finished.
        over: set when it is finished or has failed.
    """

    def __init__(
        self, vertex: Vertex, command: Ended, keys: Sequence[Question], held: ExitStack, below: Begun | None = None
    ) -> None:
        self.vertex = vertex
        self.command = command
        self.keys = keys
        self.held = held
        self.below = below
        self.early: Early | None = None
        self.over = threading.Event()


class Early:
    """A vertex that began before the one below it was finished, so before its own key was known.

    Args:
        vertex: which one.
        below: what it is made on.
    """

    def __init__(self, vertex: Vertex, below: Begun) -> None:
        self.vertex = vertex
        self.below = below
        self._guard = threading.Lock()
        self._turn: ExitStack | None = ExitStack()

    def give_turn(self, turn: ExitStack) -> None:
        """Give it the turn of its key, which is given back at once if it is over already."""
        with self._guard:
            if self._turn is not None:
                self._turn.push(turn)
                return
        turn.close()

    def end(self) -> None:
        """Give its turn back. Idempotent."""
        with self._guard:
            turn, self._turn = self._turn, None
        if turn is not None:
            turn.close()


class Work(Protocol):
    """What is done with the vertices. It tells of results and errors by itself, before it returns or raises them."""

    def begin(self, vertex: Vertex, early: Early | None) -> Begun | None:
        """Carry out a vertex, or the first part of it; None if that was all."""

    def begins_early(self, vertex: Vertex, below: Begun) -> bool:
        """Tell whether a vertex, all of whose other inputs are solved, may begin on one that is not finished."""

    def finish(self, begun: Begun) -> None:
        """Do the rest. It is called also when the build has failed by then, since a layer is worth keeping."""

    def is_solved(self, vertex: Vertex) -> bool:
        """Tell whether the result of a vertex is known."""

    def cancel(self) -> None:
        """End what `begin` does at this moment, soon."""


class Schedule:
    """Carries out vertices.

    Args:
        left: those that are not solved.
        work: what is done with them.
        jobs: how many at once.
        idle: says how many more may be begun meanwhile; None for no more.
    """

    def __init__(self, left: Sequence[Vertex], work: Work, *, jobs: int, idle: IdleProcessors | None = None) -> None:
        self._work = work
        self._idle = idle
        self._waiting = {vertex.digest: vertex for vertex in left}
        self._unsolved = len(left)
        self._outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
        self._workers = _Threads("step", jobs)
        self._finishers = _Threads("layer", jobs)
        self._changed = threading.Condition()
        self._begun = 0
        self._stopped = False

    def run(self) -> None:
        """Carry out all of them.

        The first failure ends what runs, and is raised when everything has stopped.
        """
        try:
            self._start_ready()
            while self._unsolved:
                error = self._next_outcome()
                if error is not None:
                    raise error
                self._unsolved -= 1
                self._start_ready()
        except BaseException:
            self._stop()
            self._work.cancel()
            raise
        finally:
            self._workers.close()
            self._finishers.close()

    def _start_ready(self) -> None:
        with self._changed:
            ready = [v for v in self._waiting.values() if all(map(self._work.is_solved, v.inputs))]
            for vertex in ready:
                del self._waiting[vertex.digest]
        for vertex in ready:
            self._workers.submit(partial(self._carry_out, vertex))

    def _next_outcome(self) -> BaseException | None:
        """Wait until a vertex is solved, or has failed with the error that is given."""
        while self._idle is not None and self._workers.have_too_much:
            try:
                return self._outcomes.get(timeout=INTERVAL)
            except Empty:
                self._workers.help(self._idle.count())
        return self._outcomes.get()

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _carry_out(self, vertex: Vertex) -> None:
        """Carry out a vertex, and what may begin early on it, and on that."""
        early: Early | None = None
        while not self._stopped:
            try:
                begun = self._work.begin(vertex, early)
            except BaseException as error:  # noqa: BLE001  raised by who runs the schedule
                self._outcomes.put(error)
                break
            if begun is None:
                self._outcomes.put(None)
                break
            if early is not None:
                begun.held.callback(early.end)
            early = begun.early = self._find_early(begun)
            with self._changed:
                self._begun += 1
            self._finishers.submit(partial(self._finish, begun))
            if early is None:
                return
            vertex = early.vertex
            with self._changed:
                self._changed.wait_for(lambda: self._begun < MOST_BEGUN or self._stopped)
        if early is not None:
            early.end()

    def _find_early(self, begun: Begun) -> Early | None:
        """Choose what goes on, so that nobody else does it."""
        with self._changed:
            above = [vertex for vertex in self._waiting.values() if self._waits_only_for(vertex, begun.vertex)]
            for vertex in above:
                if self._work.begins_early(vertex, begun):
                    del self._waiting[vertex.digest]
                    return Early(vertex, begun)
        return None

    def _waits_only_for(self, vertex: Vertex, below: Vertex) -> bool:
        if vertex.parent is None or vertex.parent.digest != below.digest:
            return False
        return all(map(self._work.is_solved, vertex.sources))

    def _finish(self, begun: Begun) -> None:
        outcome: BaseException | None = None
        try:
            self._work.finish(begun)
        except BaseException as error:  # noqa: BLE001  as above
            outcome = error
        self._outcomes.put(outcome)
        begun.over.set()  # after that, so that no failure is told before the one it comes from
        with self._changed:
            self._begun -= 1
            self._changed.notify_all()


class _Threads:
    """Threads that do what they are given in that order, each started when there is more to do than there are others.

    *Helpers* are further ones, each for one thing that waits. Smaller than `concurrent.futures`, which takes some
    milliseconds to be loaded, and longer to tell what is done.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._helpers: list[threading.Thread] = []
        self._guard = threading.Lock()
        self._free = 0

    @property
    def have_too_much(self) -> bool:
        """Whether something waits for a thread."""
        return self._free < 0

    def submit(self, task: Callable[[], None]) -> None:
        """Have something done that raises nothing."""
        with self._guard:
            self._free -= 1
            if self._free < 0 and len(self._threads) < self._most:
                self._free += 1
                self._threads.append(self._start(self._run))
        self._tasks.put(task)

    def help(self, count: int) -> None:
        """Have up to *count* of the things that wait done by helpers."""
        with self._guard:
            self._helpers = [helper for helper in self._helpers if helper.is_alive()]
            count = min(count, -self._free, self._most * (MOST_PER_JOB - 1) - len(self._helpers))
            for _ in range(count):
                self._free += 1
                self._helpers.append(self._start(self._run_one))

    def close(self) -> None:
        """Return when all is done."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in (*self._threads, *self._helpers):
            thread.join()

    def _start(self, run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=run, name=self._name)
        thread.start()
        return thread

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            with self._guard:
                self._free += 1

    def _run_one(self) -> None:
        """Do one thing; a thread that is free by now may be quicker."""
        try:
            task = self._tasks.get_nowait()
        except Empty:
            task = None
        else:
            if task is None:
                self._tasks.put(None)
        if task is not None:
            task()
        else:
            with self._guard:
                self._free -= 1
