"""`--on error`: a shell where a step failed."""

from __future__ import annotations

import os
import signal
import termios
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import _find_account, place
from tests.e2e.terminal import END, INTERRUPT, SLEEP, Terminal
from tests.e2e.test_build import find_processes, wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

FAILING = """
FROM busybox
ENV GREETING=hello
RUN mkdir /made && echo before > /made/first
USER 7:8
WORKDIR /src
COPY --chown=7:8 file .
RUN echo left > here && rm file && echo broken >&2 && exit 3
"""


@pytest.fixture(params=["overlay", "single-id", "copies", "chroot"])
def pybuild_of_each_form(
    request: pytest.FixtureRequest, program: tuple[str, ...], busybox_archive: Path
) -> Iterator[Pybuild]:
    """Return the command with each way to have a step's files, and the image `busybox`."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become other users")
    variables = {}
    match request.param:
        case "copies":
            program = _without_overlay(program)
        case "chroot":
            variables = {"PYBUILD_ISOLATION": "chroot"}
        case _:
            pass
    name = {"single-id": "pybuild-ci-nosubid", "chroot": "root"}.get(request.param, "pybuild-ci")
    with place(program, _find_account(name)) as command:
        command("import", str(busybox_archive), "busybox")
        yield replace(command, variables=variables)


def _without_overlay(program: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command for a machine whose overlay takes no upper directory of the store."""
    *words, start = program
    if len(words) != 2:
        pytest.skip("needs the packages of the checkout")
    code = "from runtime.snapshots import overlay; overlay.takes_upper = lambda _: False; "
    return (*words, start.replace("from builder.cli.main", f"{code}from builder.cli.main"))


def open_shell(pybuild: Pybuild, dockerfile: str, *arguments: str) -> Terminal:
    """Start a build that fails, with a shell."""
    return Terminal(
        pybuild, "build", "--on", "error", *arguments, pybuild.context({"Dockerfile": dockerfile, "file": "f"})
    )


def test_shell_is_where_the_step_failed(pybuild_of_each_form: Pybuild) -> None:
    """It has the files as the step left them, its environment, user and directory; then the build fails as without."""
    pybuild = pybuild_of_each_form

    with open_shell(pybuild, FAILING) as terminal:
        terminal.expect("`/bin/sh` where the step failed, as 7:8 in /src")

        assert terminal.ask("cat here; ls; cat /made/first") == "left\nhere\nbefore\n"
        assert terminal.ask("echo $GREETING $PWD $TERM; id -u; id -g") == "hello /src xterm\n7\n8\n"
        terminal.send("exit 9\n")
        assert terminal.end() == 1
        assert "broken" in terminal.rest
        assert "did not complete successfully: exit code: 3" in terminal.rest


def test_nothing_of_the_session_is_kept(pybuild_of_each_form: Pybuild) -> None:
    """What is changed in the shell is neither in a later shell nor in the cache nor on disk."""
    pybuild = pybuild_of_each_form
    for _ in range(2):
        with open_shell(pybuild, FAILING, "--progress", "plain") as terminal:
            terminal.expect("where the step failed")
            assert terminal.ask("ls; touch mine here") == "here\n"
            terminal.send("exit\n")
            assert terminal.end() == 1

    pybuild(
        "build",
        "--progress",
        "plain",
        "--target",
        "fine",
        pybuild.context({"Dockerfile": f"{FAILING}FROM busybox AS fine\nRUN true"}),
    )
    assert list((pybuild.root / "tmp").iterdir()) == []


def test_shell_has_the_mounts_of_the_step(pybuild_of_each_form: Pybuild) -> None:
    """Caches, secrets, temporary file systems, here-documents and binds are there, with what the step wrote to them."""
    pybuild = replace(pybuild_of_each_form, variables={**pybuild_of_each_form.variables, "HIDDEN": "canary"})
    can_write = "PYBUILD_ISOLATION" not in pybuild.variables
    write = "echo bound > /context/made; " if can_write else ""
    mounts = "--mount=type=cache,target=/cache --mount=type=secret,id=s --mount=type=tmpfs,target=/t"
    dockerfile = (
        f"FROM busybox\nRUN {mounts} --mount=target=/context,rw <<EOF\necho cached > /cache/x; {write}exit 1\nEOF\n"
    )

    with open_shell(pybuild, dockerfile, "--secret", "id=s,env=HIDDEN") as terminal:
        terminal.expect("where the step failed")
        assert terminal.ask("cat /cache/x; cat /run/secrets/s; echo; ls -d /t; cat /context/file; echo") == (
            "cached\ncanary\n/t\nf\n"
        )
        if can_write:
            assert terminal.ask("cat /context/made; echo again > /context/made; cat /context/made") == "bound\nagain\n"
        terminal.expect("# ")  # else the key is taken for the end of a line
        terminal.send(END)
        assert terminal.end() == 1
    assert "canary" not in terminal.rest
    assert sorted(os.listdir(Path(pybuild.folder, "context"))) == ["Dockerfile", "file"]


def test_interrupt_reaches_the_command_in_the_shell(pybuild_of_each_form: Pybuild) -> None:
    """Ctrl-C ends what the shell runs, neither the shell nor the build."""
    with open_shell(pybuild_of_each_form, "FROM busybox\nRUN false") as terminal:
        terminal.expect("where the step failed")
        terminal.send(SLEEP)
        terminal.expect("begun\n")
        terminal.send(INTERRUPT)

        assert terminal.ask("echo alive") == "alive\n"
        terminal.send("exit\n")
        assert terminal.end() == 1
        assert "interrupted" not in terminal.text


def test_killed_build_takes_the_shell_along(with_busybox: Pybuild) -> None:
    """After SIGKILL for the command nothing runs on, and the next build sweeps what was left."""
    pybuild = with_busybox
    with open_shell(pybuild, "FROM busybox\nRUN false") as terminal:
        terminal.expect("where the step failed")
        terminal.send(SLEEP)
        terminal.expect("begun\n")
        assert len(set(find_processes(pybuild))) > 1
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()

    wait_until_gone(pybuild)
    pybuild("build", pybuild.context({"Dockerfile": "FROM busybox\nRUN true"}))
    assert list((pybuild.root / "tmp").iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_for_the_build_ends_the_shell(
    pybuild_of_each_form: Pybuild, number: signal.Signals, status: int
) -> None:
    """Who ends the command ends the shell, nothing is left, and the terminal is as it was."""
    pybuild = pybuild_of_each_form
    with open_shell(pybuild, "FROM busybox\nRUN false") as terminal:
        before = termios.tcgetattr(terminal.slave)
        terminal.expect("where the step failed")
        terminal.ask("stty raw -echo; echo raw")
        terminal.process.send_signal(number)

        assert terminal.end() == status
        assert termios.tcgetattr(terminal.slave) == before
    wait_until_gone(pybuild)
    assert not list((pybuild.root / "tmp").glob("*/snapshot-*"))


def test_first_failure_gets_the_shell(with_busybox: Pybuild) -> None:
    """Other stages are ended before the shell begins, and only one shell is given."""
    pybuild = with_busybox
    dockerfile = """
FROM busybox AS slow
RUN sleep 4242
FROM busybox AS fails
RUN echo of-this > /stage; exit 4
FROM busybox
COPY --from=slow / /slow
COPY --from=fails / /fails
"""
    with open_shell(pybuild, dockerfile, "--jobs", "2") as terminal:
        terminal.expect("where the step failed")
        assert terminal.ask("cat /stage") == "of-this\n"
        assert not [
            pid for pid in find_processes(pybuild) if b"4242" in Path("/proc", str(pid), "cmdline").read_bytes()
        ]
        terminal.send("exit\n")
        assert terminal.end() == 1
        assert "exit code: 4" in terminal.rest


def test_another_command_is_invoked(with_busybox: Pybuild) -> None:
    """`--invoke` alone names a command with arguments; its output does not go to standard output."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN false"})
    reader, writer = os.pipe()
    with Terminal(
        pybuild, "build", "--invoke", "sh -c 'echo \"$0\" done' it", "-o", "-", context, stdout=writer
    ) as terminal:
        os.close(writer)
        terminal.expect("\nit done\n")

        assert terminal.end() == 1
        assert os.read(reader, 1) == b""
    os.close(reader)


def test_command_that_is_not_in_the_image_is_explained(with_busybox: Pybuild) -> None:
    """A shell that cannot be started does not hide the failure of the step."""
    with open_shell(with_busybox, "FROM busybox\nRUN exit 5", "--invoke", "zsh") as terminal:
        assert terminal.end() == 1
        assert "name another command with --invoke" in terminal.text
        assert "exit code: 5" in terminal.text.rpartition("--invoke")[2]
        assert "Traceback" not in terminal.text


def test_build_that_works_opens_no_shell(with_busybox: Pybuild) -> None:
    """Without a failure the option does nothing."""
    with open_shell(with_busybox, "FROM busybox\nRUN true") as terminal:
        assert terminal.end() == 0
        assert "where the step failed" not in terminal.text


def test_shell_needs_a_terminal(pybuild: Pybuild) -> None:
    """Without one the build does not begin."""
    done = pybuild("build", "--on", "error", pybuild.context({"Dockerfile": "FROM busybox\nRUN false"}), status=2)

    assert done.err.startswith("pybuild: error: a shell on failure needs a terminal, and standard input is none\n")
