"""What the last build of a Dockerfile was made of."""

from pathlib import Path

import pytest

from builder.cache.past import name_place, pair_steps
from builder.request import BuildRequest
from registry.content.compression import Compression
from registry.oci.platform import Platform

BASE, APT, COPY, MAKE, TEST = "FROM a", "RUN apt-get install gcc", "COPY . /src", "RUN make", "RUN make test"

PAIRS = {
    "same": ([BASE, COPY, MAKE], [BASE, COPY, MAKE], {0: 0, 1: 1, 2: 2}),
    "changed": ([BASE, COPY, MAKE], [BASE, COPY, "RUN ninja"], {0: 0, 1: 1, 2: 2}),
    "inserted": ([BASE, MAKE], [BASE, COPY, MAKE], {0: 0, 2: 1}),
    "removed": ([BASE, COPY, MAKE], [BASE, MAKE], {0: 0, 1: 2}),
    "moved": ([BASE, COPY, APT, MAKE], [BASE, APT, COPY, MAKE], {0: 0, 1: 2, 2: 1, 3: 3}),
    "other kind": ([BASE, COPY], [BASE, MAKE], {0: 0}),
    "changed and inserted": (
        [BASE, APT, MAKE],
        [BASE, "RUN echo hello", "RUN apt-get install gcc make", MAKE],
        {0: 0, 2: 1, 3: 2},
    ),
    "several changed": (
        [BASE, APT, TEST],
        [BASE, "RUN apt-get install g++", "RUN make tests"],
        {0: 0, 1: 1, 2: 2},
    ),
    "twice the same": ([BASE, MAKE, MAKE], [BASE, MAKE, MAKE, MAKE], {0: 0, 1: 1, 2: 2}),
    "base": ([BASE, MAKE], ["FROM b", MAKE], {0: 0, 1: 1}),
    "first build": ([], [BASE, MAKE], {}),
}


@pytest.mark.parametrize(("past", "now", "pairs"), PAIRS.values(), ids=PAIRS.keys())
def test_steps_are_paired_as_a_reader_would(past, now, pairs):
    """What was changed, inserted, removed or moved is told apart."""
    assert pair_steps(past, now) == pairs


def place(**wishes) -> str:
    """Name the place of a request."""
    platform = Platform("linux", "amd64")
    fixed = {"root": Path("/r"), "platform": platform, "build_platform": platform, "compression": Compression()}
    return name_place(BuildRequest(**{"context": Path("/c"), **fixed, **wishes}))


def test_place_is_that_of_context_and_dockerfile():
    """Targets, platforms and arguments may change from build to build of one Dockerfile."""
    places = [place(), place(dockerfile=Path("/c/D")), place(context=Path("/d")), place(dockerfile_url="https://h/D")]

    assert len(set(places)) == 4
    assert place(target="x", build_args={"A": "1"}) == place()


def test_place_does_not_hold_the_address_it_names():
    """Addresses may have a password in them."""
    assert "secret" not in place(context="https://user:secret@host/repository.git")
