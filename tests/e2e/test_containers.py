"""Builds inside containers of Docker and Podman, by the rights the engine gives: each gets the best rung there is.

The places are those of the container matrix; what is refused is refused with what doctor tells.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import _find_account, place
from tests.e2e.engine import mounts_of, start_docker, start_podman

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.isolation import Rung
    from runtime.snapshots.snapshotter import SnapshotterName
    from tests.e2e.command import Account, Pybuild
    from tests.e2e.engine import Engine

CONTEXT = {
    "Dockerfile": """
        FROM busybox
        RUN echo "hello of $(id -u)" > /hello
        COPY file /
        RUN chown 33:44 /file && rm /etc/group
        FROM busybox
        COPY --from=0 /file /hello /
        RUN stat -c %u:%g /file > /owner
        CMD ["cat", "/hello", "/file", "/owner"]
        """,
    "copy.Dockerfile": """
        FROM busybox
        COPY --chown=33:44 file /
        ENV A=b
        """,
    "file": "content\n",
}
UNCONFINED = ("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined")
NO_RIGHTS = ("--cap-drop=ALL", "--security-opt=no-new-privileges")
VOLUME = ("--volume=/store", "--env=PYBUILD_ROOT=/store")
MEMORY = ("--tmpfs=/store", "--env=PYBUILD_ROOT=/store")
USER = ("--user=1000",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How a container is started, and what must be had in it: the rung, and what shows the layers to its steps."""

    engine: Engine
    options: tuple[str, ...]
    rung: Rung
    snapshotter: SnapshotterName | None

    def __call__(self, script: str, status: int = 0) -> tuple[str, str]:
        done = self.engine(script, *self.options, status=status)
        return done.out, done.err


@pytest.fixture(scope="module")
def outside(program: tuple[str, ...], user: Account, busybox_archive: Path) -> Iterator[Pybuild]:
    """Return the command outside of containers, with the context."""
    with place(program, user) as command:
        command.folder.chmod(0o755)
        command.context(CONTEXT)
        command("import", str(busybox_archive), "busybox")
        yield command


@pytest.fixture(scope="module")
def mounts(packages: Path, outside: Pybuild, busybox_archive: Path) -> dict[str, str]:
    """Return what is mounted into each container."""
    return mounts_of(packages, {str(outside.folder / "context"): "/context", str(busybox_archive): "/busybox.tar"})


@pytest.fixture(scope="module")
def docker(program: tuple[str, ...], mounts: dict[str, str]) -> Iterator[Engine]:
    """Return Docker with a daemon of our own."""
    with place(program, _find_account("root")) as user, start_docker(user, program, mounts) as engine:
        yield engine


@pytest.fixture(scope="module")
def podman(program: tuple[str, ...], mounts: dict[str, str]) -> Iterator[Engine]:
    """Return Podman as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to run Podman as root")
    with place(program, _find_account("root")) as user:
        yield start_podman(user, program, mounts)


@pytest.fixture(scope="module")
def rootless_podman(program: tuple[str, ...], user: Account, mounts: dict[str, str]) -> Iterator[Engine]:
    """Return Podman as the unprivileged user."""
    with place(program, user) as command:
        yield start_podman(command, program, mounts)


def _place(
    engine: str, name: str, options: tuple[str, ...], rung: Rung, snapshotter: SnapshotterName | None = None
) -> object:
    marks = [pytest.mark.docker] if engine == "docker" else [pytest.mark.podman]
    if engine == "rootless_podman":
        marks.append(pytest.mark.subids)
    return pytest.param((engine, options, rung, snapshotter), marks=marks, id=f"{engine}-{name}")


@pytest.fixture(
    params=[
        _place("docker", "default", (), "chroot", "copies"),
        _place("docker", "volume", VOLUME, "chroot", "copies"),
        _place("docker", "user", USER, "none"),
        _place("docker", "no-rights", NO_RIGHTS, "none"),
        _place("docker", "no-rights-user", (*NO_RIGHTS, *USER), "none"),
        _place("docker", "unconfined", UNCONFINED, "subids", "copies"),
        _place("docker", "unconfined-volume", (*UNCONFINED, *VOLUME), "subids", "overlay"),
        _place("docker", "unconfined-memory", (*UNCONFINED, *MEMORY), "subids", "overlay"),
        _place("docker", "unconfined-user", (*UNCONFINED, *USER), "single-id", "copies"),
        _place("podman", "default", (), "subids", "overlay"),
        _place("podman", "user", USER, "single-id", "overlay"),
        _place("rootless_podman", "default", (), "subids", "overlay"),
    ]
)
def here(request: pytest.FixtureRequest) -> Place:
    """Return each place in turn."""
    engine, options, rung, snapshotter = request.param
    return Place(engine=request.getfixturevalue(engine), options=options, rung=rung, snapshotter=snapshotter)


def test_doctor_names_what_is_had(here: Place):
    """The rung is the best that the rights of the container allow, and without one the exit status says so."""
    out, _ = here('"$@" doctor --json', status=4 if here.rung == "none" else 0)
    found = json.loads(out)

    assert (found["isolation"], found["snapshots"]) == (here.rung, here.snapshotter)


def test_hello_is_built_and_run_or_refused(here: Place):
    """Steps run and files have the owners they were given; where no step can run, the error says what would help."""
    build = '"$@" import /busybox.tar busybox >/dev/null; "$@" build --tag hello /context >&2'
    if here.rung == "none":
        out, err = here(build, status=4)

        assert out == ""
        assert "ERROR: this host does not offer user namespaces: a seccomp filter refuses them" in err
        assert "hint: docker run --security-opt seccomp=unconfined" in err
        assert "`pybuild doctor` tells what else was tried" in err
    else:
        out, _ = here(f'{build}; "$@" run hello')

        assert out == "hello of 0\ncontent\n33:44\n"


def test_build_without_steps_works_everywhere(here: Place, outside: Pybuild):
    """It needs no rights at all, and has the layers that it has outside of containers."""
    options = ("build", "--isolation=none", "--tag=copied", "--file")
    outside(*options, str(outside.folder / "context/copy.Dockerfile"), str(outside.folder / "context"))
    out, _ = here(
        '"$@" import /busybox.tar busybox >/dev/null;'
        f' "$@" {" ".join(options)} /context/copy.Dockerfile /context >&2; "$@" inspect copied'
    )

    assert _diff_ids(out) == _diff_ids(outside("inspect", "copied").out)


def _diff_ids(text: str) -> list[str]:
    (shown,) = json.loads(text)
    layers = shown["RootFS"]["Layers"]
    assert len(layers) == 2
    return layers
