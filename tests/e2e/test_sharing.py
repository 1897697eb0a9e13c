"""Two builds of the same thing at the same time: one works, the other waits and takes what came of it."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.command import Pybuild

pytestmark = [
    pytest.mark.userns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to write into a cache mount of another user"),
]

WAITING = b"waiting for the same step, which runs already"


class Builds:
    """Builds of one context, whose step says `begun` and ends when it is let go on."""

    def __init__(self, pybuild: Pybuild, last: str, stack: ExitStack) -> None:
        self._pybuild = pybuild
        self._stack = stack
        step = f"echo $((40+2)); until [ -e /c/go ]; do sleep 0.05; done; {last}"
        dockerfile = f"FROM busybox\nRUN --mount=type=cache,target=/c {step}\n"
        self.context = pybuild.context({"Dockerfile": dockerfile})

    def start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a build; it is killed when the test ends before it."""
        words = ("build", "--progress", "plain", "--tag", name, *options, self.context)
        process = self._stack.enter_context(self._pybuild.start(*words))
        self._stack.callback(process.kill)
        return process

    def go_on(self) -> None:
        """Let the steps end."""
        (tree,) = (self._pybuild.root / "mounts").glob("*/tree-0")
        (tree / "go").touch()

    def layers(self, name: str) -> list[str]:
        """Return the diff_ids of an image."""
        layers: list[str] = json.loads(self._pybuild("inspect", name).out)[0]["RootFS"]["Layers"]
        return layers


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Give what ends processes when the test does."""
    with ExitStack() as opened:
        yield opened


def read_until(process: subprocess.Popen[bytes], *words: bytes) -> bytes:
    """Read what a build shows up to a line that ends with one of some words."""
    shown = b""
    for line in process.stderr:
        shown += line
        if line.rstrip().endswith(words):
            return shown
    raise AssertionError(shown.decode())


BEGUN = b" 42"


def test_step_that_two_builds_want_runs_once(with_busybox: Pybuild, stack: ExitStack) -> None:
    """The second says once that it waits, then has the layer of the first, which no second run would make."""
    builds = Builds(with_busybox, "cat /proc/sys/kernel/random/uuid > /id", stack)
    first = builds.start("first")
    read_until(first, BEGUN)
    second = builds.start("second")
    shown = read_until(second, WAITING)

    builds.go_on()
    first.communicate(timeout=60)
    shown += second.communicate(timeout=60)[1]

    assert (first.returncode, second.returncode) == (0, 0)
    assert BEGUN + b"\n" not in shown
    assert shown.count(WAITING) == 1
    assert builds.layers("first") == builds.layers("second")
    assert list((with_busybox.root / "turns").iterdir()) == []


def test_step_of_a_killed_build_is_run_by_the_one_that_waits(with_busybox: Pybuild, stack: ExitStack) -> None:
    """Nobody has to know that the first was killed: its lock is gone with it."""
    builds = Builds(with_busybox, "true", stack)
    first = builds.start("first")
    read_until(first, BEGUN)
    second = builds.start("second")
    read_until(second, WAITING)

    first.send_signal(signal.SIGKILL)
    read_until(second, BEGUN)
    builds.go_on()
    second.communicate(timeout=60)

    assert second.returncode == 0
    assert len(builds.layers("second")) == 2


def test_step_that_fails_fails_for_each_build_by_itself(with_busybox: Pybuild, stack: ExitStack) -> None:
    """A failure is no result: who waited runs the step, and shows its own output."""
    builds = Builds(with_busybox, "exit 3", stack)
    first = builds.start("first")
    read_until(first, BEGUN)
    second = builds.start("second")
    read_until(second, WAITING)

    builds.go_on()
    first.communicate(timeout=60)
    shown = second.communicate(timeout=60)[1]

    assert (first.returncode, second.returncode) == (1, 1)
    assert BEGUN + b"\n" in shown
    assert b"exit code: 3" in shown


def test_build_that_waits_can_be_interrupted(with_busybox: Pybuild, stack: ExitStack) -> None:
    """It ends at once, and the one that works does not notice."""
    builds = Builds(with_busybox, "true", stack)
    first = builds.start("first")
    read_until(first, BEGUN)
    second = builds.start("second")
    read_until(second, WAITING)

    second.send_signal(signal.SIGINT)
    shown = second.communicate(timeout=60)[1]
    still_runs = first.poll() is None
    builds.go_on()
    first.communicate(timeout=60)

    assert second.returncode == 130
    assert b"Traceback" not in shown
    assert still_runs
    assert first.returncode == 0


def test_build_without_cache_waits_for_nobody(with_busybox: Pybuild, stack: ExitStack) -> None:
    """`--no-cache` wants the step to run, whoever runs it too."""
    builds = Builds(with_busybox, "true", stack)
    first = builds.start("first")
    read_until(first, BEGUN)
    second = builds.start("second", "--no-cache")
    read_until(second, BEGUN)
    builds.go_on()

    for process in (first, second):
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_equal_steps_of_one_build_run_once(with_busybox: Pybuild) -> None:
    """Two stages that do the same to the same files have one layer, as BuildKit has one vertex."""
    run = "RUN cat /proc/sys/kernel/random/uuid > /id\n"
    dockerfile = (
        f"FROM busybox AS a\n{run}FROM busybox AS b\n{run}FROM scratch\nCOPY --from=a /id /a\nCOPY --from=b /id /b\n"
    )
    with_busybox("build", "--output", "out", with_busybox.context({"Dockerfile": dockerfile}))

    out: Path = with_busybox.folder / "out"
    assert (out / "a").read_text() == (out / "b").read_text()
