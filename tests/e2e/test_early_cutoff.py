"""A step that is done again and gives the same leaves what comes after it cached; what counts as the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.command import Done, Pybuild

pytestmark = pytest.mark.userns

DOCKERFILE = """\
FROM busybox AS one
RUN mkdir /d; echo {text} > /d/f; touch -d {time} /d/f /d /
RUN cat /d/f > /g
FROM one AS two
RUN cat /g > /h
FROM busybox
COPY --from=two /h /h
RUN cat /h
"""
EPOCH = ("--build-arg", "SOURCE_DATE_EPOCH=1700000000")
REWRITTEN = (*EPOCH, "-o", "type=image,rewrite-timestamp=true")


def cached(done: Done) -> list[str]:
    """Return the steps that were found in the cache, FROM left out."""
    names = dict(re.findall(r"^(#\d+) \[.*?\] (.*)$", done.err, re.MULTILINE))
    found = [names[number] for number in re.findall(r"^(#\d+) CACHED$", done.err, re.MULTILINE)]
    return sorted(name for name in found if not name.startswith("FROM "))


def build_twice(pybuild: Pybuild, arguments: tuple[str, ...], *times: str, text: str = "x") -> list[str]:
    """Build with each time in turn; return what the last build found in the cache."""
    done: list[Done] = []
    for number, time in enumerate(times):
        given = DOCKERFILE.format(time=time, text=text if number else "x")
        context = pybuild.context({"Dockerfile": given})
        done.append(pybuild("build", "--progress", "plain", *arguments, context))
    return cached(done[-1])


LATER = ["COPY --from=two /h /h", "RUN cat /d/f > /g", "RUN cat /g > /h", "RUN cat /h"]


@pytest.mark.parametrize("arguments", [EPOCH, REWRITTEN], ids=["epoch", "rewritten"])
def test_times_after_the_epoch_do_not_count(with_busybox: Pybuild, arguments: tuple[str, ...]) -> None:
    """Later steps stay cached, in the stage, in one that begins with it, and in one that copies from that."""
    assert build_twice(with_busybox, arguments, "2030-01-01", "2031-01-01") == LATER


def test_a_third_result_is_compared_with_the_first(with_busybox: Pybuild) -> None:
    """What took another layer's place leaves no layer of its own to compare with."""
    assert build_twice(with_busybox, EPOCH, "2030-01-01", "2031-01-01", "2029-01-01") == LATER


def test_times_before_the_epoch_count(with_busybox: Pybuild) -> None:
    """They were set by the step, and would be in the image."""
    found = build_twice(with_busybox, EPOCH, "2001-01-01", "2002-01-01")

    assert "RUN cat /d/f > /g" not in found


def test_content_counts(with_busybox: Pybuild) -> None:
    """Another text in the file is another layer."""
    assert build_twice(with_busybox, EPOCH, "2030-01-01", "2031-01-01", text="y") == []


def test_without_an_epoch_all_times_count(with_busybox: Pybuild) -> None:
    """But not for what is copied from a stage, where no time counts."""
    assert build_twice(with_busybox, (), "2030-01-01", "2031-01-01") == LATER[:1] + LATER[3:]


def test_steps_without_a_cache_give_what_they_give(with_busybox: Pybuild) -> None:
    """Else a build that is repeated to see whether it gives the same would always seem to."""
    builds = []
    for time in ("2030-01-01", "2031-01-01"):
        context = with_busybox.context({"Dockerfile": f"FROM busybox\nRUN echo > /f; touch -d {time} /f\n"})
        builds.append(with_busybox("build", "-q", "--no-cache", *EPOCH, context).out)

    assert builds[0] != builds[1]
