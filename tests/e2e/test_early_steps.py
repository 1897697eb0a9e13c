"""A RUN that begins before the layer of the one below it is made."""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_sharing import WAITING, read_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.command import Done, Pybuild

pytestmark = pytest.mark.userns

NEVER = 1000
"""Seconds that no command of these tests is given."""


def layers(pybuild: Pybuild, name: str) -> list[str]:
    """Return the diff_ids of an image."""
    found: list[str] = json.loads(pybuild("inspect", name).out)[0]["RootFS"]["Layers"]
    return found


def build(pybuild: Pybuild, *lines: str, name: str = "x", options: tuple[str, ...] = (), status: int = 0) -> Done:
    """Build a Dockerfile on busybox."""
    context = pybuild.context({"Dockerfile": "\n".join(("FROM busybox", *lines, ""))})
    return pybuild("build", "--progress", "plain", "--tag", name, *options, context, status=status)


def outcomes(done: Done) -> dict[str, str]:
    """Return how each step ended, by its text."""
    names = dict(re.findall(r"^(#\d+) \[.*?\] (.*)$", done.err, re.MULTILINE))
    ends = re.findall(r"^(#\d+) (CACHED|DONE|ERROR|CANCELED)", done.err, re.MULTILINE)
    return {names[number]: end for number, end in ends if number in names}


def unfinished(pybuild: Pybuild) -> list[Path]:
    """List what is left of processes that have ended."""
    return list((pybuild.root / "tmp").iterdir())


def test_steps_see_what_those_below_have_left(with_busybox: Pybuild) -> None:
    """Each of many fast steps has the files of all before it, and its own in its layer alone."""
    lines = [f"RUN ls /d | wc -l >> /counts; mkdir -p /d; touch /d/{number}" for number in range(12)]
    build(with_busybox, *lines)
    again = build(with_busybox, *lines)
    shown = with_busybox("run", "x", "cat", "/counts")

    assert shown.lines == [str(number) for number in range(12)]
    assert [outcomes(again)[line] for line in lines] == ["CACHED"] * 12
    assert unfinished(with_busybox) == []


def test_build_without_cache_gives_the_same_layers_on_snapshots_that_are_there(with_busybox: Pybuild) -> None:
    """Steps that ran on trees which others had made before have nothing of that in their layers."""
    times = "find /d -exec touch -h -d '2020-01-01 00:00:00' {} +"
    lines = [f"RUN mkdir -p /d/{number}; echo {number} > /d/{number}/f; {times}" for number in range(6)]
    build(with_busybox, *lines, name="first")
    build(with_busybox, *lines, name="second", options=("--no-cache",))

    assert layers(with_busybox, "first") == layers(with_busybox, "second")
    assert unfinished(with_busybox) == []


def test_layer_below_a_step_that_fails_is_kept(with_busybox: Pybuild) -> None:
    """The next build goes on there, and the failure is told after it, however fast the step failed."""
    large = "RUN head -c 40000000 /dev/urandom > /large"
    failed = build(with_busybox, large, "RUN exit 3", "RUN true", status=1)
    repaired = build(with_busybox, large, "RUN exit 0", "RUN true")

    assert list(outcomes(failed).items())[1:] == [(large, "DONE"), ("RUN exit 3", "ERROR")]
    assert outcomes(repaired)[large] == "CACHED"
    assert unfinished(with_busybox) == []


def test_layer_that_cannot_be_made_ends_the_step_on_it(with_busybox: Pybuild) -> None:
    """The build says what is wrong with the layer, and nothing of the step runs on or is kept."""
    impossible, endless = "RUN touch /.wh.name", f"RUN sleep {NEVER}"
    failed = build(with_busybox, impossible, endless, status=5)
    repaired = build(with_busybox, "RUN touch /name", "RUN true")

    assert "a name that begins with .wh. means a deletion" in failed.err
    assert outcomes(failed)[impossible] == "ERROR"
    assert outcomes(failed).get(endless, "CANCELED") == "CANCELED"
    assert outcomes(repaired)["RUN true"] == "DONE"
    assert unfinished(with_busybox) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to write into a cache mount of another user")
def test_step_that_began_early_runs_once_for_two_builds(with_busybox: Pybuild) -> None:
    """Who has waited for the step below waits for the next one too, instead of running it as well."""
    mount = "RUN --mount=type=cache,target=/c"
    lines = [
        f"{mount} echo one $((40+2)); until [ -e /c/one ]; do sleep 0.05; done; cat /proc/sys/kernel/random/uuid > /1",
        f"{mount} echo two $((40+3)); until [ -e /c/two ]; do sleep 0.05; done; cat /proc/sys/kernel/random/uuid > /2",
    ]
    context = with_busybox.context({"Dockerfile": "\n".join(("FROM busybox", *lines, ""))})
    words = ("build", "--progress", "plain", context, "--tag")
    with with_busybox.start(*words, "first") as first, ExitStack() as stack:
        stack.callback(first.kill)
        read_until(first, b" 42")
        second = stack.enter_context(with_busybox.start(*words, "second"))
        stack.callback(second.kill)
        read_until(second, WAITING)
        (tree,) = (with_busybox.root / "mounts").glob("*/tree-0")
        (tree / "one").touch()
        read_until(first, b" 43")
        shown = read_until(second, WAITING, b" 43")
        (tree / "two").touch()
        ends = [process.communicate(timeout=60)[1] for process in (first, second)]

    assert shown.rstrip().endswith(WAITING)
    assert [first.returncode, second.returncode] == [0, 0], ends
    assert layers(with_busybox, "first") == layers(with_busybox, "second")
    assert list((with_busybox.root / "turns").iterdir()) == []
