"""`pybuild build` from start to end: caching, several at once, failing steps, outputs, being killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

STEPS = {
    "file": "content\n",
    "Dockerfile": (
        "FROM busybox AS one\n"
        "ARG WORD=one\n"
        "RUN echo $WORD > /srv/one\n"
        "FROM busybox\n"
        "WORKDIR /srv/app\n"
        "COPY file .\n"
        "COPY --from=one /srv/one .\n"
        "RUN cat file one > both && date +%N > moment\n"
        "CMD cat both\n"
    ),
}


def build_id(pybuild: Pybuild, context: str, *options: str) -> str:
    """Build and return the image id."""
    return pybuild("build", "--quiet", *options, context).out.strip()


def test_second_build_is_fully_cached(with_busybox: Pybuild) -> None:
    """A build without changes runs no step and yields the same image."""
    pybuild = with_busybox
    context = pybuild.context(STEPS)

    first = build_id(pybuild, context, "--tag", "app")
    again = pybuild("build", "--progress", "plain", "--tag", "app", context)

    assert json.loads(pybuild("inspect", "app").out)[0]["Id"] == first
    assert again.err.count("CACHED") >= 4
    assert pybuild("run", "app").lines == ["content", "one"]


def test_change_of_a_file_runs_only_what_depends_on_it(with_busybox: Pybuild) -> None:
    """After a change of a copied file the step of the other stage is still cached."""
    pybuild = with_busybox
    context = pybuild.context(STEPS)
    build_id(pybuild, context)

    Path(context, "file").write_text("changed\n")
    again = pybuild("build", "--progress", "plain", "--tag", "app", context)

    assert "CACHED" in again.err
    assert pybuild("run", "app").lines == ["changed", "one"]


def test_time_of_a_file_does_not_matter(with_busybox: Pybuild) -> None:
    """Touching a copied file changes nothing."""
    pybuild = with_busybox
    context = pybuild.context(STEPS)
    first = build_id(pybuild, context)

    os.utime(Path(context, "file"), (1, 1))

    assert build_id(pybuild, context) == first


def test_no_cache_runs_every_step(with_busybox: Pybuild) -> None:
    """`--no-cache` gives another image where a step is not the same each time."""
    pybuild = with_busybox
    context = pybuild.context(STEPS)

    assert build_id(pybuild, context) != build_id(pybuild, context, "--no-cache")


def test_build_argument_reaches_the_step(with_busybox: Pybuild) -> None:
    """`--build-arg` replaces the default of an ARG."""
    pybuild = with_busybox

    pybuild("build", "--build-arg", "WORD=other", "--tag", "app", pybuild.context(STEPS))

    assert pybuild("run", "app").lines == ["content", "other"]


def test_two_builds_at_once_share_a_root(with_busybox: Pybuild) -> None:
    """Builds that run at the same time in one root both succeed, and so does a third that uses what they left."""
    pybuild = with_busybox
    contexts = [
        pybuild.context(
            {"Dockerfile": f"FROM busybox\nRUN echo shared > /srv/a\nRUN echo {n} > /srv/b\n"}, f"context-{n}"
        )
        for n in range(2)
    ]

    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(pybuild.start("build", "--tag", f"app:{number}", context))
            for number, context in enumerate(contexts)
        ]
        errors = [process.communicate(timeout=120)[1].decode() for process in running]

    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)
    assert pybuild("run", "app:0", "cat", "/srv/a", "/srv/b").lines == ["shared", "0"]
    assert pybuild("run", "app:1", "cat", "/srv/a", "/srv/b").lines == ["shared", "1"]


def test_failing_step_says_what_failed_and_where(with_busybox: Pybuild) -> None:
    """A RUN that fails shows its command, output, status and line, and leaves no image."""
    pybuild = with_busybox
    dockerfile = "FROM busybox\nRUN true\nRUN echo before it broke && exit 17\n"

    done = pybuild("build", "--tag", "app", pybuild.context({"Dockerfile": dockerfile}), status=1)

    assert "echo before it broke && exit 17" in done.err
    assert "\nbefore it broke\n" in done.err
    assert "exit code: 17" in done.err
    assert "Dockerfile:3" in done.err
    assert "Traceback" not in done.err
    assert "app" not in pybuild("images").out


def test_step_after_a_repaired_one_uses_the_cache(with_busybox: Pybuild) -> None:
    """What ran before a failing step is not run again."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN date +%N > /srv/moment\nRUN false\n"})
    pybuild("build", context, status=1)

    Path(context, "Dockerfile").write_text("FROM busybox\nRUN date +%N > /srv/moment\nRUN true\n")

    assert "CACHED" in pybuild("build", "--progress", "plain", context).err


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_layers_are_compressed_as_asked(with_busybox: Pybuild, compression: str) -> None:
    """`--compression` decides the media type of new layers; the image runs all the same."""
    pybuild = with_busybox
    suffix = {"gzip": "+gzip", "zstd": "+zstd", "uncompressed": ""}[compression]

    pybuild("build", "--compression", compression, "--tag", "app", pybuild.context(STEPS))

    digest = json.loads(pybuild("inspect", "app").out)[0]["Descriptor"]["digest"]
    manifest = json.loads((pybuild.images / "blobs" / digest.replace(":", "/")).read_text())
    assert manifest["layers"][-1]["mediaType"] == f"application/vnd.oci.image.layer.v1.tar{suffix}"
    assert pybuild("run", "app").lines == ["content", "one"]


def test_files_name_what_was_built(with_busybox: Pybuild) -> None:
    """`--iidfile` has the image id, `--metadata-file` digests and names."""
    pybuild = with_busybox
    context = pybuild.context(STEPS)

    pybuild("build", "--iidfile", "iid", "--metadata-file", "metadata.json", "--tag", "app:2", context)

    image = json.loads(pybuild("inspect", "app:2").out)[0]
    metadata = json.loads((pybuild.folder / "metadata.json").read_text())
    assert (pybuild.folder / "iid").read_text() == image["Id"]
    assert metadata["containerimage.config.digest"] == image["Id"]
    assert metadata["containerimage.digest"] == image["Descriptor"]["digest"]
    assert metadata["image.name"] == "docker.io/library/app:2"


def test_local_output_is_the_tree(with_busybox: Pybuild) -> None:
    """`--output FOLDER` writes the files of the result, owned by the user."""
    pybuild = with_busybox

    pybuild("build", "--output", "out", pybuild.context({"a/b": "text\n", "Dockerfile": "FROM scratch\nCOPY a /a\n"}))

    assert (pybuild.folder / "out/a/b").read_text() == "text\n"
    assert (pybuild.folder / "out/a/b").stat().st_uid == pybuild.account.uid


def test_tar_output_is_the_tree(with_busybox: Pybuild) -> None:
    """`--output type=tar` writes the files of the result as one tar, with the owners they have in the image."""
    pybuild = with_busybox
    dockerfile = "FROM busybox\nCOPY --chown=33:33 file /srv/file\n"
    context = pybuild.context({"file": "text\n", "Dockerfile": dockerfile})

    pybuild("build", "--output", "type=tar,dest=out.tar", context)

    with tarfile.open(pybuild.folder / "out.tar") as archive:
        names = {member.name.removeprefix("./").rstrip("/"): member for member in archive}
    assert (names["srv/file"].uid, names["srv/file"].gid, names["srv/file"].size) == (33, 33, 5)
    assert "bin/busybox" in names


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_archive_output_can_be_loaded(with_busybox: Pybuild, kind: str) -> None:
    """`--output type=oci` and `type=docker` write archives that `load` reads back under the same id."""
    pybuild = with_busybox

    pybuild(
        "build", "--output", f"type={kind},dest=out.tar", "--iidfile", "iid", "--tag", "app", pybuild.context(STEPS)
    )
    pybuild("load", "--input", "out.tar", "--root", "another")

    loaded = json.loads(pybuild("inspect", "--root", "another", "app").out)[0]
    assert loaded["Id"] == (pybuild.folder / "iid").read_text()


def test_killed_build_leaves_no_process_and_a_usable_root(with_busybox: Pybuild) -> None:
    """After SIGKILL for the command nothing of it runs on, and the next build works and sweeps what was left."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN echo begun && sleep 4242\n"})

    with pybuild.start("build", "--progress", "plain", context) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(b" begun"):
                break
        started = set(find_processes(pybuild))
        process.send_signal(signal.SIGKILL)

    assert len(started) > 1
    wait_until_gone(pybuild)
    Path(context, "Dockerfile").write_text("FROM busybox\nRUN echo begun\n")
    pybuild("build", context)
    assert list((pybuild.root / "tmp").iterdir()) == []


def test_interrupted_build_ends_its_steps(with_busybox: Pybuild) -> None:
    """SIGINT ends the running step, and the exit status says so."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN echo begun && sleep 4242\n"})

    with pybuild.start("build", "--progress", "plain", context) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(b" begun"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().decode()

    assert process.returncode == 130
    assert "Traceback" not in rest
    wait_until_gone(pybuild)


def find_processes(pybuild: Pybuild) -> Iterator[int]:
    """Yield the processes that belong to builds of this root: the program's own and the step's."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            environment = Path("/proc", name, "environ").read_bytes()
            command = Path("/proc", name, "cmdline").read_bytes()
            if str(pybuild.root).encode() in environment or b"sleep\x004242" in command:
                yield int(name)


def wait_until_gone(pybuild: Pybuild) -> None:
    """Wait until no process of the build is left; the kernel takes a moment for a whole namespace."""
    deadline = time.monotonic() + 10
    while left := list(find_processes(pybuild)):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)
