"""Which vertex is carried out when: with work that only waits and is told to go on."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from builder.plan.graph import EmptyFileSystem, Vertex
from builder.solve.schedule import MOST_BEGUN, MOST_PER_JOB, Begun, Early, Schedule

PATIENCE = 20
"""Seconds after which a test that hangs is given up."""

A_WHILE = 0.3
"""Seconds in which something would happen that must not; nothing is asserted of how long anything takes."""


def vertex(name: str, parent: Vertex | None = None) -> Vertex:
    """Make a vertex; its digest is its name, so that two of them differ."""
    made = Vertex(op=EmptyFileSystem(), parent=parent, name=name, text=name, stage="")
    object.__setattr__(made, "digest", name)
    return made


def chain(count: int) -> list[Vertex]:
    """Make vertices each on the one before, named by their numbers."""
    made: list[Vertex] = []
    for number in range(count):
        made.append(vertex(str(number), made[-1] if made else None))
    return made


class Fake:
    """Work in two parts for every vertex; notes what happens, and waits where a test says so."""

    def __init__(self, *, late: tuple[str, ...] = ()) -> None:
        self.late = late
        self.log: list[str] = []
        self.solved: set[str] = set()
        self.gates: dict[str, threading.Event] = {}
        self.failures: dict[str, Exception] = {}
        self.canceled = threading.Event()
        self._changed = threading.Condition()

    def hold(self, *moments: str) -> None:
        """Wait at these moments until they are let go."""
        self.gates.update({moment: threading.Event() for moment in moments})

    def let_go(self, moment: str) -> None:
        """Let a moment that is held go on."""
        self.gates[moment].set()

    def until(self, *moments: str) -> None:
        """Wait until all these have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(moments) <= set(self.log), PATIENCE), self.log

    def comes(self, moment: str) -> bool:
        """Tell whether something happens in a while."""
        with self._changed:
            return self._changed.wait_for(lambda: moment in self.log, A_WHILE)

    def begin(self, vertex: Vertex, early: Early | None) -> Begun:
        """Note it, and whether it is early."""
        self._come(f"{'early' if early else 'begin'} {vertex.name}")
        if early is not None:
            assert early.below.vertex is vertex.parent
        return Begun(vertex, None, (), ExitStack(), early.below if early else None)

    def begins_early(self, vertex: Vertex, _below: Begun) -> bool:
        """Say what the test says."""
        return vertex.name not in self.late

    def finish(self, begun: Begun) -> None:
        """Note it once what is below is finished."""
        with begun.held:
            if begun.below is not None:
                begun.below.over.wait(PATIENCE)
            if begun.below is None or begun.below.vertex.digest in self.solved:
                self._come(f"finish {begun.vertex.name}")
                self.solved.add(begun.vertex.digest)

    def is_solved(self, vertex: Vertex) -> bool:
        """Tell what was finished."""
        return vertex.digest in self.solved

    def cancel(self) -> None:
        """Let everything go that is begun."""
        self.canceled.set()
        for moment, gate in self.gates.items():
            if not moment.startswith("finish"):
                gate.set()

    def _come(self, moment: str) -> None:
        with self._changed:
            self.log.append(moment)
            self._changed.notify_all()
        if moment in self.gates:
            assert self.gates[moment].wait(PATIENCE), moment
        if moment in self.failures:
            raise self.failures[moment]


class Idle:
    """Says that so many processors are idle, each time it is asked."""

    def __init__(self, count: int) -> None:
        self.answer = count
        self.was_asked = threading.Event()

    def count(self) -> int:
        """Say it."""
        self.was_asked.set()
        return self.answer


class Running:
    """A schedule that runs beside the test."""

    def __init__(self, vertices: list[Vertex], work: Fake, jobs: int, idle: Idle | None = None) -> None:
        self._error: BaseException | None = None
        self._schedule = Schedule(vertices, work, jobs=jobs, idle=idle)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Wait for its end, and raise what it raises."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._schedule.run()
        except BaseException as error:  # noqa: BLE001  raised by `end`
            self._error = error


def test_vertex_begins_before_the_one_below_is_finished() -> None:
    """The order of what is finished is that of the chain all the same."""
    work = Fake()
    work.hold("finish 0")
    running = Running(chain(3), work, jobs=1)
    work.until("early 1", "early 2", "finish 0")
    work.let_go("finish 0")
    running.end()

    assert [moment for moment in work.log if moment.startswith("finish")] == ["finish 0", "finish 1", "finish 2"]


def test_vertex_that_may_not_begin_early_waits() -> None:
    """It begins as any other, when what it is made on is solved."""
    work = Fake(late=("1",))
    Running(chain(2), work, jobs=2).end()

    assert work.log == ["begin 0", "finish 0", "begin 1", "finish 1"]


def test_only_one_vertex_begins_early_on_another() -> None:
    """The others wait, so that nobody has to know of many."""
    base = vertex("base")
    work = Fake()
    work.hold("finish base")
    running = Running([base, vertex("a", base), vertex("b", base)], work, jobs=2)
    work.until("early a")
    work.let_go("finish base")
    running.end()

    assert "begin b" in work.log
    assert work.log.index("begin b") > work.log.index("finish base")


def test_fast_vertices_do_not_pile_up() -> None:
    """So many are not finished, and no more begin."""
    work = Fake()
    work.hold("finish 0")
    running = Running(chain(MOST_BEGUN + 3), work, jobs=4)
    work.until(f"early {MOST_BEGUN - 1}", "finish 0")
    is_too_many = work.comes(f"early {MOST_BEGUN}")
    work.let_go("finish 0")
    running.end()

    assert not is_too_many
    assert f"early {MOST_BEGUN + 2}" in work.log


def test_vertices_beside_each_other_are_limited_by_jobs() -> None:
    """Two at once are no three."""
    work = Fake()
    work.hold("begin a", "begin b")
    running = Running([vertex("a"), vertex("b"), vertex("c")], work, jobs=2)
    work.until("begin a", "begin b")
    is_too_many = work.comes("begin c")
    work.let_go("begin a")
    work.let_go("begin b")
    running.end()

    assert not is_too_many
    assert "begin c" in work.log


def test_more_vertices_begin_while_processors_are_idle() -> None:
    """Each of those that begin so is the last of its thread; the limit holds again for those that follow."""
    work, idle = Fake(), Idle(1)
    names = [str(number) for number in range(2 * MOST_PER_JOB)]
    work.hold(*(f"begin {name}" for name in names))
    running = Running([vertex(name) for name in names], work, jobs=1, idle=idle)
    most = names[:MOST_PER_JOB]
    work.until(*(f"begin {name}" for name in most))
    is_too_many = work.comes(f"begin {names[MOST_PER_JOB]}")
    idle.answer = 0
    for name in most:
        work.let_go(f"begin {name}")
    work.until(*(f"finish {name}" for name in most), f"begin {names[MOST_PER_JOB]}")
    is_limited = not work.comes(f"begin {names[MOST_PER_JOB + 1]}")
    for name in names[MOST_PER_JOB:]:
        work.let_go(f"begin {name}")
    running.end()

    assert not is_too_many
    assert is_limited
    assert {f"finish {name}" for name in names} <= set(work.log)


def test_nobody_looks_at_processors_while_nothing_waits() -> None:
    """A build that has a thread for each vertex sleeps until one is done."""
    work, idle = Fake(), Idle(2)
    work.hold("begin a")
    running = Running([vertex("a")], work, jobs=1, idle=idle)
    work.until("begin a")
    looked = idle.was_asked.wait(A_WHILE)
    work.let_go("begin a")
    running.end()

    assert not looked


def test_what_is_below_a_failed_vertex_is_finished() -> None:
    """The layer is worth keeping: the next build goes on there. The failure waits for it."""
    work = Fake()
    work.hold("finish 0")
    work.failures["early 1"] = ValueError("of 1")
    running = Running(chain(3), work, jobs=1)
    work.until("early 1")
    assert work.canceled.wait(PATIENCE)
    work.let_go("finish 0")

    with pytest.raises(ValueError, match="of 1"):
        running.end()
    assert work.solved == {"0"}
    assert "early 2" not in work.log


def test_vertex_that_cannot_be_finished_ends_what_has_begun_on_it() -> None:
    """Its error is the one that is raised, and nothing above is finished."""
    work = Fake()
    work.hold("finish 0", "early 1")
    work.failures["finish 0"] = ValueError("of 0")
    work.failures["early 1"] = ValueError("killed")
    running = Running(chain(3), work, jobs=1)
    work.until("early 1", "finish 0")
    work.let_go("finish 0")

    with pytest.raises(ValueError, match="of 0"):
        running.end()
    assert work.canceled.is_set()
    assert work.solved == set()


def test_vertex_above_one_that_cannot_be_finished_is_not_finished() -> None:
    """Also if it has come to its own end by then."""
    work = Fake()
    work.hold("finish 0")
    work.failures["finish 0"] = ValueError("of 0")
    running = Running(chain(2), work, jobs=2)
    work.until("early 1", "finish 0")
    work.let_go("finish 0")

    with pytest.raises(ValueError, match="of 0"):
        running.end()
    assert "finish 1" not in work.log


def test_turn_is_given_back_when_the_early_vertex_is_over() -> None:
    """It is given back once, by whoever comes last: the step, or who has taken the turn for it."""
    given_back: list[str] = []

    def turn(name: str) -> ExitStack:
        stack = ExitStack()
        stack.callback(given_back.append, name)
        return stack

    early = Early(vertex("a"), Begun(vertex("b"), None, (), ExitStack()))
    early.give_turn(turn("first"))
    before = list(given_back)
    early.end()
    early.give_turn(turn("second"))
    early.end()

    assert before == []
    assert given_back == ["first", "second"]
