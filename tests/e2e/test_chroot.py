"""Builds as uid 0 without namespaces: the same layers as with them, and what cannot be had is refused."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import _find_account, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs real root")

SETTLE = "find / -xdev -newer /etc/passwd -exec touch -h -d @1600000000 {} + 2>/dev/null || true"
"""Gives what a step changed one time, so that two builds can be compared."""

DOCKERFILE = f"""
FROM busybox AS other
RUN mkdir /made && echo made > /made/of-other; {SETTLE}
RUN echo more > /made/of-other-too; {SETTLE}
FROM busybox AS base
RUN mkdir -p /app/old /app/keep && echo 1 > /app/old/a && echo 2 > /app/keep/b && ln /app/keep/b /app/keep/c; {SETTLE}
RUN rm -r /app/old && mkdir /app/old && echo 3 > /app/old/new && chmod -R 4711 /app/keep && chown -R 33:44 /app/old; {SETTLE}
COPY file /app/
RUN rm /app/file /app/keep/c && ln -s b /app/keep/c && mkfifo /app/pipe && echo x >> /etc/hosts 2>/dev/null; {SETTLE}
RUN --mount=type=cache,target=/cache --mount=type=secret,id=s --mount=type=tmpfs,target=/t \
    --mount=target=/context --mount=from=other,target=/other,source=made \
    cp /run/secrets/s /other/* /context/file /app/ && echo 1 > /cache/x && echo 1 > /t/x; {SETTLE}
USER 33:44
WORKDIR /app/here
RUN id > /app/old/id; {SETTLE}
USER root
FROM base
COPY --from=other /made /from-other
RUN <<EOF
#!/bin/sh
cat /from-other/* > /tmp/all
{SETTLE}
EOF
"""
ARGUMENTS = ("--secret", "id=s,env=HIDDEN", "--progress", "plain", "--no-cache")


@pytest.fixture
def chroot(program: tuple[str, ...], busybox_archive: Path) -> Iterator[Pybuild]:
    """Return the command as root without namespaces, with the image `busybox`."""
    with place(program, _find_account("root")) as command:
        command("import", str(busybox_archive), "busybox")
        yield replace(command, variables={"PYBUILD_ISOLATION": "chroot", "HIDDEN": "hidden", "SOURCE_DATE_EPOCH": "1"})


def _diff_ids(command: Pybuild, context: str) -> list[str]:
    command("build", *ARGUMENTS, "-t", "made", context)
    (shown,) = json.loads(command("inspect", "made").out)
    return shown["RootFS"]["Layers"]


def test_layers_are_the_same_as_with_namespaces(chroot: Pybuild):
    """A Dockerfile with everything a step can do to files gives the same diff_ids."""
    context = chroot.context({"Dockerfile": DOCKERFILE, "file": "content"})
    os.utime(Path(context, "file"), (1, 1))
    without = _diff_ids(chroot, context)
    with_namespaces = replace(chroot, variables={**chroot.variables, "PYBUILD_ISOLATION": "auto"})

    assert len(without) > 8
    assert _diff_ids(with_namespaces, context) == without


def test_nothing_unfinished_stays(chroot: Pybuild):
    """After a build nothing is left among the unfinished, and the cache mount is back."""
    context = chroot.context({"Dockerfile": DOCKERFILE, "file": "content"})
    chroot("build", *ARGUMENTS, "-t", "made", context)

    assert os.listdir(chroot.root / "tmp") == []
    (cache,) = (chroot.root / "mounts").glob("*/tree-0")
    assert os.listdir(cache) == ["x"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killed_build_leaves_nothing(chroot: Pybuild, number: signal.Signals):
    """No process stays, and the next start sweeps what is on disk, the secret too."""
    context = chroot.context(
        {"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=s touch /up; setsid sleep 98762 & sleep 98762"}
    )
    with chroot.start("build", *ARGUMENTS, context) as process:
        while not list(chroot.root.glob("tmp/*/snapshot-*/tree/up")):
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while _sleepers() and time.monotonic() < deadline:
        time.sleep(0.02)
    chroot("build", *ARGUMENTS, chroot.context({"Dockerfile": "FROM busybox\nRUN true"}, "second"))

    assert _sleepers() == []
    assert os.listdir(chroot.root / "tmp") == []


def _sleepers() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if b"98762" in Path("/proc", pid, "cmdline").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def test_credentials_are_out_of_reach(chroot: Pybuild):
    """A step finds neither the builder's files nor its variables nor its processes."""
    (chroot.folder / "canary").write_text("canary-in-a-file")
    command = replace(chroot, variables={**chroot.variables, "TOKEN": "canary-in-a-variable"})
    done = command(
        "build",
        *ARGUMENTS,
        command.context(
            {
                "Dockerfile": f"FROM busybox\nRUN env; cat {chroot.folder}/canary /proc/*/environ; ls /proc/1 {chroot.root}; true"
            }
        ),
    )

    assert "canary-in" not in done.err + done.out
    assert "RUN env" in done.err


def test_insecure_steps_are_refused(chroot: Pybuild):
    """A step that wants all rights ends the build with status 4 and the name of the isolation."""
    context = chroot.context({"Dockerfile": "FROM busybox\nRUN --security=insecure true"})
    done = chroot("build", "--allow", "security.insecure", *ARGUMENTS, context, status=None)

    assert done.status == 4
    assert "`chroot`" in done.err


def test_chroot_by_name_needs_root(pybuild: Pybuild, busybox_archive: Path):
    """Asked for by name where it cannot work, the reason is given and no other way is taken."""
    pybuild("import", str(busybox_archive), "busybox")
    command = replace(pybuild, variables={"PYBUILD_ISOLATION": "chroot"})
    done = command("build", "--no-cache", command.context({"Dockerfile": "FROM busybox\nRUN true"}), status=4)

    assert "the isolation `chroot`: the user is not uid 0" in done.err


def test_targets_of_a_bake_share_the_one_start_of_steps(chroot: Pybuild):
    """A target that links to another has steps of its own, though the rights to begin anew were given up."""
    chroot.context(
        {
            "compose.yaml": "services:\n"
            '  one: {build: {dockerfile_inline: "FROM busybox\\nRUN echo one > /one"}}\n'
            '  two: {image: two, build: {dockerfile_inline: "FROM x\\nRUN cat /one", additional_contexts: {x: "service:one"}}}\n'
        },
        ".",
    )
    done = chroot("bake", "--progress", "plain", "--metadata-file", "built.json")

    assert "one\n" in done.err
    assert set(json.loads((chroot.folder / "built.json").read_text())) == {"one", "two"}
