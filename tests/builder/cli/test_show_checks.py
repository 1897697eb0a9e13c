"""`--check` and `--call`: text, JSON, exit codes; nothing is built."""

import json

import pytest

from builder.cli.environment import Environment
from builder.cli.main import main

DOCKERFILE = (
    "# check=skip=ConsistentInstructionCasing\n"
    "# VERSION to build\n"
    "ARG VERSION=1\n"
    "# tools compile things\n"
    "FROM scratch AS tools\n"
    "ARG VERSION\n"
    "# MODE of it\n"
    "ARG MODE=x$VERSION\n"
    "RUN --mount=type=secret,id=pass,required=true --mount=type=cache,target=/c --mount=type=ssh true\n"
    "FROM scratch AS unused\n"
    "ARG NEVER\n"
    "from scratch\n"
    "MAINTAINER me\n"
    "COPY --from=tools /a /b\n"
)


@pytest.fixture
def call(tmp_path, capsys):
    """Write a Dockerfile and run the command on it; return the exit code, standard output and error."""

    def run(text, *arguments):
        (tmp_path / "Dockerfile").write_text(text)
        words = ["--root", str(tmp_path / "root"), "build", "--progress", "plain", *arguments, str(tmp_path)]
        code = main(words, Environment.from_process())
        return code, *capsys.readouterr()

    return run


def test_check_of_a_clean_file_ends_well(call):
    """Nothing found is said in one line."""
    assert call("FROM scratch\nLABEL a=b\n", "--check")[:2] == (0, "Check complete, no warnings found.\n")


def test_check_builds_nothing(call, tmp_path):
    """Steps that would fail or make layers are left alone."""
    (tmp_path / "a").write_text("text")

    assert call('FROM scratch\nCOPY a /a\nRUN ["/false"]\n', "--check", "--tag", "app")[0] == 0
    assert list((tmp_path / "root" / "images" / "blobs").rglob("*/*")) == []


def test_check_shows_violations_as_buildx_does(call):
    """Rule, page, message and excerpt go to standard output; the exit code is 1."""
    code, out, err = call("FROM scratch\nMAINTAINER me\n", "--call", "check")

    assert (code, err) == (1, "")
    assert out == (
        "Check complete, 1 warning has been found!\n\n"
        "WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\n"
        "Maintainer instruction is deprecated in favor of using label\n"
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM scratch\n"
        "   2 | >>> MAINTAINER me\n"
        "--------------------\n"
    )


def test_check_looks_at_stages_that_the_target_does_not_need(call):
    """Without a target, every stage is checked; with one, what it needs."""
    text = "FROM scratch AS a\nENV A=$NOPE\nFROM scratch AS b\n"

    assert "UndefinedVar" in call(text, "--check")[1]
    assert call(text, "--check", "--target", "b")[0] == 0


def test_check_as_json_has_the_places(call):
    """The members are those of BuildKit's lint results."""
    code, out, _ = call("FROM scratch\nMAINTAINER me\n", "--call=check,format=json")
    document = json.loads(out)
    (warning,) = document["warnings"]

    assert code == 1
    assert warning["ruleName"] == "MaintainerDeprecated"
    assert warning["location"]["ranges"] == [{"start": {"line": 2}, "end": {"line": 2}}]
    assert document["sources"][0]["filename"] == "Dockerfile"


def test_check_of_a_file_that_cannot_be_built_shows_both(call):
    """What was found before the error is shown before it."""
    code, out, err = call("FROM scratch\nMAINTAINER me\nSTOPSIGNAL nope\n", "--check")

    assert code == 2
    assert "MaintainerDeprecated" in out
    assert "Invalid signal: nope" in err


def test_targets_are_listed_with_their_descriptions(call):
    """The last stage is the default."""
    code, out, _ = call(DOCKERFILE, "--call", "targets")

    assert code == 0
    assert out == "TARGET    DESCRIPTION\ntools     compile things\nunused\n(default)\n"


def test_outline_lists_what_the_target_takes(call):
    """Arguments of needed stages with values and descriptions, secrets, ssh and caches."""
    code, out, _ = call(DOCKERFILE, "--call", "outline", "--build-arg", "VERSION=2")

    assert code == 0
    assert out == (
        "BUILD ARG   VALUE   DESCRIPTION\nVERSION     2       to build\nMODE        x2      of it\n\n"
        "SECRET   REQUIRED\npass     true\n\nSSH       REQUIRED\ndefault\n\nCACHE MOUNT\n/c\n"
    )


def test_outline_as_json(call):
    """The members are those of BuildKit's outline."""
    document = json.loads(call(DOCKERFILE, "--call", "outline,format=json", "--target", "tools")[1])

    assert (document["name"], document["description"]) == ("tools", "compile things")
    assert [argument["name"] for argument in document["args"]] == ["VERSION", "MODE"]
    assert document["secrets"][0]["required"] is True
    assert document["cache"][0]["ID"] == "/c"


@pytest.mark.parametrize(
    ("value", "message"),
    [("nope", "unknown method of --call: `nope`"), ("check,x", "unknown attribute of --call: `x`")],
)
def test_unknown_call_is_refused(call, value, message):
    """A method or attribute that does not exist is a mistake of the command line."""
    code, _, err = call("FROM scratch\n", "--call", value)

    assert code == 2
    assert message in err
