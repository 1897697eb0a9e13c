"""What a build makes of its result, from start to end: linked layers, times, platforms, outputs."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.fakes.docker_registry import run_docker_registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

BOTH = "--platform=linux/amd64,linux/arm64"
EPOCH = "SOURCE_DATE_EPOCH=1700000000"


def test_linked_copy_outlives_a_changed_run(with_busybox: Pybuild) -> None:
    """An earlier RUN is done again, the COPY --link after it is not, from the context as from a stage."""
    pybuild = with_busybox
    files = {
        "file": "content\n",
        "Dockerfile": (
            "FROM busybox AS made\nRUN echo made > /made\n"
            "FROM busybox\nARG WORD\nRUN echo $WORD > /word\n"
            "COPY --link file /srv/file\nCOPY --link --from=made /made /srv/made\n"
        ),
    }
    context = pybuild.context(files)
    pybuild("build", "--build-arg", "WORD=one", context)
    again = pybuild("build", "--progress", "plain", "--build-arg", "WORD=two", "--tag", "app", context).err.splitlines()

    steps = {line.split(" ", 1)[0]: line for line in again if "] " in line}
    cached = {steps[line.split(" ", 1)[0]].split("] ")[1] for line in again if line.endswith(" CACHED")}
    assert {"COPY --link file /srv/file", "COPY --link --from=made /made /srv/made"} <= cached
    assert "RUN echo $WORD > /word" not in cached
    assert pybuild("run", "app", "cat", "/word", "/srv/file", "/srv/made").lines == ["two", "content", "made"]


def test_rewritten_image_of_a_run_is_the_same_in_two_stores(with_busybox: Pybuild) -> None:
    """A file that a RUN makes gets the epoch, so two stores give one image."""
    pybuild = with_busybox
    base = json.loads(pybuild("inspect", "busybox").out)[0]["Descriptor"]["digest"]
    pybuild("save", "-o", str(pybuild.folder / "base.tar"), "busybox")
    pybuild("load", "-i", str(pybuild.folder / "base.tar"), "--root", str(pybuild.folder / "other"))
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN echo made > /srv/made\n"})
    ids = [
        pybuild(
            "build", "-q", "--build-arg", EPOCH, "-o", "type=image,name=app,rewrite-timestamp=true", *root, context
        ).out
        for root in ((), ("--root", str(pybuild.folder / "other")))
    ]

    assert base
    assert ids[0] == ids[1]


def test_folders_of_platforms_hold_their_files_with_the_epoch(with_busybox: Pybuild) -> None:
    """A local output of several platforms has a folder for each; times are the epoch's."""
    pybuild = with_busybox
    text = "FROM scratch\nARG TARGETARCH\nCOPY <<A /arch\n$TARGETARCH\nA\nCOPY file /file\n"
    context = pybuild.context({"file": "x", "Dockerfile": text})
    out, tar = pybuild.folder / "out", pybuild.folder / "out.tar"
    pybuild("build", BOTH, "--build-arg", EPOCH, "-o", f"type=local,dest={out}", "-o", f"type=tar,dest={tar}", context)

    assert (out / "linux_amd64" / "arch").read_text() == "amd64\n"
    assert (out / "linux_arm64" / "arch").read_text() == "arm64\n"
    assert (out / "linux_arm64" / "file").stat().st_mtime == 1_700_000_000
    with tarfile.open(tar) as archive:
        names = {member.name: member.mtime for member in archive}
    assert set(names) >= {"linux_amd64/arch", "linux_arm64/file"}
    assert set(names.values()) == {1_700_000_000}


def test_platforms_that_differ_cannot_share_a_folder(with_busybox: Pybuild) -> None:
    """platform-split=false fails where two platforms have one file."""
    context = with_busybox.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    done = with_busybox("build", BOTH, "-o", "type=local,dest=out,platform-split=false", context, status=1)

    assert "cannot overwrite" in done.err


@pytest.mark.registry
def test_index_is_pushed_whole_and_read_by_others(with_busybox: Pybuild, tmp_path: Path) -> None:
    """Two names, one index with both platforms in the registry; skopeo finds each."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    with run_docker_registry(tmp_path) as address:
        output = f"type=image,name={address}/app:1,{address}/team/app:2,push=true"
        pybuild("build", BOTH, "-o", output, "--annotation", "index:who=me", "--metadata-file", "m.json", context)
        digest = json.loads((pybuild.folder / "m.json").read_text())["containerimage.digest"]
        for name in ("app:1", "team/app:2"):
            raw = pybuild.run_other(
                "skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{address}/{name}"
            ).out
            index = json.loads(raw)
            assert index["annotations"] == {"who": "me"}
            assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
        assert digest.startswith("sha256:")


def test_run_for_a_foreign_platform_says_what_is_missing(with_busybox: Pybuild) -> None:
    """Where no emulator is registered nothing runs and the cure is named."""
    context = with_busybox.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\nRUN true\n"})
    done = with_busybox("build", "--platform", "linux/s390x", context, status=None)

    if done.status == 1:
        pytest.skip("needs a machine without an emulator for s390x")
    assert done.status == 4
    assert "qemu-user-static" in done.err


def test_working_directory_that_is_gone_is_made_again(with_busybox: Pybuild) -> None:
    """A RUN whose directory an earlier one removed gets a new one of mode 0755."""
    text = "FROM busybox\nWORKDIR /gone/deep\nRUN rm -r /gone\nRUN pwd && stat -c %a /gone/deep > mode\n"
    with_busybox("build", "--tag", "app", with_busybox.context({"Dockerfile": text}))

    assert with_busybox("run", "app", "cat", "/gone/deep/mode").out == "755\n"
