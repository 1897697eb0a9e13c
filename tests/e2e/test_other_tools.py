"""What other tools make of what we write, and we of what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

FILES = {
    "script": '#!/bin/sh\necho "run with $1"\n',
    "Dockerfile": (
        "FROM busybox\n"
        "RUN mkdir /srv/folder && echo text > /srv/folder/file && chown 33:33 /srv/folder/file && rm /bin/wget\n"
        "COPY script /bin/script\n"
        "ENV WORD=set\n"
        "LABEL a=b\n"
        'ENTRYPOINT ["/bin/script"]\n'
    ),
}


@pytest.fixture
def built(with_busybox: Pybuild) -> Pybuild:
    """Return the command with the image `app:1` in its root."""
    with_busybox("build", "--tag", "app:1", with_busybox.context(FILES))
    return with_busybox


@pytest.mark.skopeo
def test_skopeo_reads_the_layout_of_the_root(built: Pybuild) -> None:
    """`skopeo inspect oci:ROOT/images:NAME` finds the image by name with the digest we say it has."""
    seen = json.loads(built.run_other("skopeo", "inspect", f"oci:{built.images}:app:1").out)
    image = json.loads(built("inspect", "app:1").out)[0]

    assert seen["Digest"] == image["Descriptor"]["digest"]
    assert seen["Labels"] == {"a": "b"}
    assert "WORD=set" in seen["Env"]


@pytest.mark.skopeo
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_skopeo_copies_our_archives(built: Pybuild, kind: str) -> None:
    """Archives of both forms are read by skopeo, which checks digests and diff_ids on the way."""
    built("save", "--format", f"{kind}-archive", "--output", "out.tar", "app:1")
    built.run_other("skopeo", "--insecure-policy", "copy", f"{kind}-archive:out.tar", "dir:copied")

    manifest = json.loads((built.folder / "copied/manifest.json").read_text())
    layers = json.loads(built("inspect", "app:1").out)[0]["RootFS"]["Layers"]
    assert len(manifest["layers"]) == len(layers)


@pytest.mark.skopeo
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archive_of_skopeo_can_be_loaded(built: Pybuild, kind: str) -> None:
    """What skopeo writes, `load` reads, and the image runs."""
    built.run_other(
        "skopeo", "--insecure-policy", "copy", f"oci:{built.images}:app:1", f"{kind}:theirs.tar:docker.io/library/app:1"
    )

    built("load", "--root", "another", "--input", "theirs.tar")

    assert built("run", "--root", "another", "app:1", "theirs").out == "run with theirs\n"


@pytest.mark.umoci
def test_umoci_unpacks_the_image(built: Pybuild) -> None:
    """Umoci applies our layers to the tree that a build sees: whiteouts, modes, contents."""
    built.run_other("umoci", "unpack", "--rootless", "--image", f"{built.images}:app:1", "bundle")

    tree = built.folder / "bundle/rootfs"
    assert (tree / "srv/folder/file").read_text() == "text\n"
    assert (tree / "bin/script").stat().st_mode & 0o7777 == 0o755
    assert not (tree / "bin/wget").is_symlink()
    assert (tree / "bin/sh").is_symlink()


@pytest.mark.podman
@pytest.mark.subids
def test_podman_runs_the_image(built: Pybuild) -> None:
    """Podman pulls the image out of our layout and runs it; owners are as the Dockerfile made them."""
    folder = built.folder
    podman = ("podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run", "--storage-driver", "vfs")
    # crun refuses hosts that have both versions of control groups, and only crun can do without any.
    is_unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    runtime, groups = ("crun", ("--cgroups", "disabled")) if is_unified else ("runc", ())
    setup = ("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", runtime)
    run = (*podman, *setup, "run", "--rm", "--network", "none", *groups)
    source = f"oci:{built.images}:app:1"

    assert built.run_other(*run, source, "podman").out == "run with podman\n"
    owner = built.run_other(*run, "--entrypoint", "stat", source, "-c", "%u:%g", "/srv/folder/file")
    assert owner.out == "33:33\n"
