"""What a list of software takes in beside the result."""

import pytest

from builder.request import SbomRequest
from registry.oci.reference import parse_reference
from tests.builder.plan.test_convert import image, plan

WANTED = SbomRequest(generator=parse_reference("gen"))
STAGES = "FROM busybox AS one\n{one}RUN a\nFROM one AS two\nRUN b\nFROM busybox AS unused\n{unused}RUN c\nFROM scratch\n{last}COPY --from=two / /\n"


def scope(text, **wishes):
    """Plan a Dockerfile for which a list of software is wanted."""
    return plan(text, {"busybox:latest": image()}, sbom=WANTED, **wishes).scope


def names(head="", *, one="", unused="", last="", **wishes):
    """Give the names of the stages that are scanned where these lines stand."""
    return [name for name, _ in scope(head + STAGES.format(one=one, unused=unused, last=last), **wishes).stages]


STAGE = "ARG BUILDKIT_SBOM_SCAN_STAGE"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ({}, []),
        ({"one": f"{STAGE}=true\n"}, ["one", "two"]),
        ({"unused": f"{STAGE}=true\n"}, []),
        ({"last": f"{STAGE}=true\n"}, []),
        ({"head": f"{STAGE}=true\n"}, ["one", "two"]),
        ({"head": f"{STAGE}=two,unused\n"}, ["two"]),
        ({"head": f"{STAGE}=true\n", "one": f"{STAGE}=false\n"}, []),
        ({"one": f"{STAGE}=1\n{STAGE}=F\n"}, []),
        ({"one": f"{STAGE}\n", "build_args": {"BUILDKIT_SBOM_SCAN_STAGE": "true"}}, ["one", "two"]),
        ({"build_args": {"BUILDKIT_SBOM_SCAN_STAGE": "true"}}, []),
    ],
)
def test_stages_are_scanned_as_their_arguments_say(lines, found):
    """Set for all or in a stage and what is made from it; only what the target needs, never the target itself."""
    assert names(**lines) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n", True),
        ("ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM scratch\n", True),
        ("FROM scratch\n", False),
        ("FROM busybox AS a\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM scratch\nCOPY --from=a / /\n", False),
    ],
)
def test_context_is_scanned_where_the_target_says_so(text, found):
    """What another stage says of the context does not count."""
    assert scope(text).context is found


def test_nothing_is_looked_for_without_a_list_of_software():
    """Most builds want none."""
    assert plan("ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM scratch\n").scope is None


def test_steps_do_not_see_the_arguments():
    """They steer the scan and are no variables; the history tells of them as of any ARG."""
    made = plan("FROM busybox\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN a", {"busybox:latest": image()})

    assert "BUILDKIT_SBOM_SCAN_STAGE" not in dict(made.vertex.op.environ)
    assert made.history[0].created_by == "ARG BUILDKIT_SBOM_SCAN_STAGE=true"
