"""All build checks on a table of Dockerfiles: those of the text and those that the plan tells."""

import json
from pathlib import Path

import pytest

from builder.context.ignore import parse_ignore
from builder.dockerfile.rules import Linter, check_dockerfile
from builder.dockerfile.stages import parse_dockerfile
from builder.plan.check_values import PlanChecks
from builder.plan.convert import convert
from builder.request import BuildRequest
from builder.source import SourceFile
from registry.content.compression import Compression
from registry.oci.platform import Platform
from registry.value import replace
from tests.builder.plan.test_convert import image

TABLE = Path(__file__).parents[2] / "conformance" / "dockerfiles" / "checks.json"
CASES = json.loads(TABLE.read_text(encoding="utf-8"))
LINUX = Platform("linux", "amd64")


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_checks_find_what_the_table_says(case):
    """Every case of the table breaks the rules it names in the lines it names, and no others."""
    source = parse_dockerfile(SourceFile("Dockerfile", case["text"]))
    ignore = parse_ignore(case.get("ignored", ""), ".dockerignore")
    request = BuildRequest(
        context=Path("/context"),
        root=Path("/root"),
        platform=LINUX,
        build_platform=LINUX,
        compression=Compression(),
        build_args=case.get("arguments", {}),
    )
    linter = Linter(source)
    check_dockerfile(source, linter.warn)
    checks = PlanChecks(linter.warn, ignore.hides_source, all_stages=True)
    convert(source, request, lambda *_: other_architecture(), checks=checks)

    found = [[violation.rule, violation.span.line, violation.message] for violation in linter.sorted()]
    assert found == case["violations"]


def other_architecture():
    """Give an image of another platform than is asked for."""
    made = image()
    return replace(made, config=replace(made.config, platform=Platform("linux", "arm64")))
