"""How many processors have nothing to do."""

from __future__ import annotations

import pytest

from builder.solve import idle
from builder.solve.idle import IdleProcessors


class Machine:
    """A clock, and processors of which some are idle."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.idle: float | None = 0.0

    def pass_time(self, seconds: float, *, idle: float) -> None:
        """Let time pass in which *idle* processors have nothing to do."""
        self.seconds += seconds
        assert self.idle is not None
        self.idle += seconds * idle

    def processors(self) -> IdleProcessors:
        """Return what looks at them."""
        return IdleProcessors(lambda: self.idle, lambda: self.seconds)


@pytest.fixture
def machine():
    """Give one."""
    return Machine()


@pytest.mark.parametrize(("idle", "count"), [(0.0, 0), (0.4, 0), (0.6, 1), (1.4, 1), (1.9, 2)])
def test_idle_processors_are_counted_by_halves(machine, idle, count):
    """Three tenths of a processor are not enough for another vertex."""
    processors = machine.processors()
    machine.pass_time(0.5, idle=idle)

    assert processors.count() == count


def test_only_the_time_since_the_last_look_counts(machine):
    """A machine that was idle, and is busy now, takes no more."""
    processors = machine.processors()
    machine.pass_time(60, idle=2)
    first = processors.count()
    machine.pass_time(0.5, idle=0)

    assert (first, processors.count()) == (2, 0)


def test_unknown_idleness_is_none(machine):
    """Where /proc is not what it should be, or no time has passed."""
    machine.idle = None
    processors = machine.processors()
    machine.seconds += 60
    assert processors.count() == 0

    machine.idle = 5.0
    assert processors.count() == 0
    assert processors.count() == 0


def test_part_of_a_container_is_what_counts_where_it_has_one(tmp_path, monkeypatch):
    """Half a processor used of one and a half leaves one."""
    monkeypatch.setattr(idle, "_QUOTA", str(tmp_path / "cpu.max"))
    monkeypatch.setattr(idle, "_USAGE", str(tmp_path / "cpu.stat"))
    monkeypatch.setattr(idle.time, "monotonic", lambda: 100.0)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 50000000\nuser_usec 1\n")

    assert idle.find_meter()() == pytest.approx(100.0)


@pytest.mark.parametrize("text", [None, "max 100000\n", "nonsense"])
def test_machine_is_what_counts_without_a_quota(tmp_path, monkeypatch, text):
    """Its idle time grows, and is that of all processors."""
    monkeypatch.setattr(idle, "_QUOTA", str(tmp_path / "cpu.max"))
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)

    first, second = idle.find_meter()(), idle.find_meter()()
    assert first is not None
    assert second is not None
    assert second >= first > 0
