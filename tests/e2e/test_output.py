"""What a build gives to whom: data on standard output, progress on standard error, several results, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.terminal import INTERRUPT, Terminal
from tests.e2e.test_build import find_processes, wait_until_gone
from tests.fakes.docker_registry import run_docker_registry

if TYPE_CHECKING:
    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

CONTEXT = {"file": "text\n", "Dockerfile": "FROM busybox AS base\nRUN echo spo''ken\nFROM scratch\nCOPY --from=base /bin/true /t\n"}  # fmt: skip
SPEAKING = {"Dockerfile": "FROM busybox\nRUN echo spo''ken\n"}
SLOW = {"Dockerfile": "FROM busybox\nRUN echo beg''un; sleep 4242\n"}


@pytest.mark.parametrize("output", ["-", "type=tar", "type=tar,dest=-"])
def test_archive_on_standard_output_has_nothing_else_in_it(with_busybox: Pybuild, output: str) -> None:
    """`-o -` gives a tar that can be piped on, while progress goes to standard error."""
    done = with_busybox("build", "--progress", "plain", "-o", output, with_busybox.context(CONTEXT))

    with tarfile.open(fileobj=io.BytesIO(done.out.encode(errors="surrogateescape")), mode="r|") as archive:
        assert [member.name.removeprefix("./").rstrip("/") for member in archive if member.isfile()] == ["t"]
    assert done.err.count(" spoken\n") == 1


def test_several_outputs_come_of_one_build(with_busybox: Pybuild) -> None:
    """Each `-o` is written, from steps that ran once."""
    pybuild = with_busybox

    done = pybuild(
        *("build", "--progress", "plain", "-o", "out", "-o", "type=oci,dest=app.tar", "-o", "type=image,name=app"),
        pybuild.context(CONTEXT),
    )

    assert os.listdir(pybuild.folder / "out") == ["t"]
    with tarfile.open(pybuild.folder / "app.tar") as archive:
        assert "index.json" in archive.getnames()
    assert json.loads(pybuild("inspect", "app").out)[0]["RootFS"]["Layers"]
    assert done.err.count(" spoken\n") == 1


@pytest.mark.registry
def test_every_name_is_pushed_to_a_registry_that_wants_a_password(with_busybox: Pybuild, tmp_path: Path) -> None:
    """`--push` with several `-t` uses the credentials of `login`, over plain HTTP where that is allowed."""
    pybuild = with_busybox
    with run_docker_registry(tmp_path, users={"alice": "wonderland"}) as host:
        names = [f"{host}/one:1", f"{host}/team/two:2"]
        pybuild("login", "-u", "alice", "--password-stdin", host, stdin=b"wonderland\n")
        tags = [word for name in names for word in ("-t", name)]

        pybuild("build", "--push", "--insecure-registry", host, *tags, pybuild.context(CONTEXT))

        for name in names:
            pybuild("pull", "--root", "another", name)
    digests = {json.loads(pybuild("inspect", "--root", "another", name).out)[0]["Id"] for name in names}
    assert digests == {json.loads(pybuild("inspect", names[0]).out)[0]["Id"]}


def test_progress_as_lines(with_busybox: Pybuild) -> None:
    """`plain` has numbered steps, and what they wrote with its time."""
    done = with_busybox("build", "--progress", "plain", with_busybox.context(SPEAKING))

    lines = done.err.splitlines()
    assert any(line.startswith("#") and line.endswith(" [2/2] RUN echo spo''ken") for line in lines)
    assert any(line.endswith(" spoken") for line in lines)
    assert done.out == ""


def test_progress_as_records(with_busybox: Pybuild) -> None:
    """`rawjson` is JSON on each line, and has what steps wrote."""
    done = with_busybox("build", "--progress", "rawjson", with_busybox.context(SPEAKING))

    records = [json.loads(line) for line in done.err.splitlines()]
    assert any(log["data"] == "c3Bva2VuCg==" for record in records for log in record.get("logs", ()))
    assert done.out == ""


@pytest.mark.parametrize("options", [("-q",), ("--progress", "quiet")], ids=["q", "quiet"])
def test_progress_not_at_all(with_busybox: Pybuild, options: tuple[str, ...]) -> None:
    """Nothing is shown but errors; `-q` prints the image id."""
    context = with_busybox.context({"Dockerfile": "FROM busybox\nCOPY Dockerfile /\n"})

    done = with_busybox("build", *options, "--iidfile", "iid", context)

    assert done.err == ""
    assert done.out == (f"{(with_busybox.folder / 'iid').read_text()}\n" if options == ("-q",) else "")


def test_progress_on_a_terminal(with_busybox: Pybuild) -> None:
    """Where standard error is a terminal, the last frame of a live view stays."""
    with Terminal(with_busybox, "build", with_busybox.context(SPEAKING)) as terminal:
        assert terminal.end() == 0
        assert " FINISHED" in terminal.text
        assert " => [2/2] RUN echo spo''ken" in terminal.text.rpartition("[+] Building")[2]


def test_interrupt_of_the_terminal_ends_the_build(with_busybox: Pybuild) -> None:
    """Ctrl-C ends all steps with status 130; neither a process, a mount nor an unfinished file is left."""
    pybuild = with_busybox
    with Terminal(pybuild, "build", "--progress", "plain", pybuild.context(SLOW)) as terminal:
        terminal.expect(" begun\n")
        terminal.send(INTERRUPT)

        assert terminal.end() == 130
        assert "ERROR: interrupted" in terminal.rest
    wait_until_gone(pybuild)
    assert list(find_processes(pybuild)) == []
    assert str(pybuild.root) not in Path("/proc/self/mountinfo").read_text()
    assert not list((pybuild.root / "tmp").glob("*/snapshot-*"))
