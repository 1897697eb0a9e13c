"""Images and stores that are not what they say: what is found, what the user is told, and that the next build is right."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.command import Pybuild

# Images that lie


@pytest.fixture
def hostile(with_busybox: Pybuild) -> Path:
    """Write an image layout whose only image says that its layer is that of `busybox`."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM scratch\nCOPY etc /etc\n", "etc/passwd": "evil\n"}, "evil")
    pybuild("build", "--output", "type=oci,tar=false,dest=layout", "--tag", "evil:1", context)
    truth = json.loads(pybuild("inspect", "busybox").out)[0]["RootFS"]["Layers"]
    layout = pybuild.folder / "layout"
    index = json.loads((layout / "index.json").read_text())
    manifest = read(layout, index["manifests"][0])
    config = read(layout, manifest["config"])
    config["rootfs"]["diff_ids"] = truth
    manifest["config"] |= write(layout, config)
    index["manifests"][0] |= write(layout, manifest)
    (layout / "index.json").write_text(json.dumps(index))
    return layout


def read(layout: Path, descriptor: dict[str, str]) -> dict:
    """Read a document of a layout."""
    return json.loads((layout / "blobs" / "sha256" / descriptor["digest"][7:]).read_text())


def write(layout: Path, document: object) -> dict[str, object]:
    """Write a document into a layout and return what names it."""
    data = json.dumps(document).encode()
    name = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / name).write_bytes(data)
    return {"digest": f"sha256:{name}", "size": len(data)}


@pytest.mark.userns
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_false_diff_ids_of_a_layout_are_found_and_change_nothing(
    with_busybox: Pybuild, hostile: Path, *, first: bool
) -> None:
    """Whether the true image was unpacked before or not: the step does not run on it, and later ones are right."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM base\nRUN cp /etc/passwd /srv/seen\n"})
    honest = ("build", "--build-context", "base=docker-image://busybox", "--tag", "honest", context)
    if not first:
        pybuild(*honest)

    done = pybuild("build", "--no-cache", "--build-context", f"base=oci-layout://{hostile}:1", context, status=3)

    assert "a layer of the image is not the one that its config names" in done.err
    assert "Dockerfile:2" in done.err
    pybuild(*honest)
    assert "root:" in pybuild("run", "honest", "cat", "/srv/seen").out


@pytest.mark.userns
def test_false_diff_ids_of_a_loaded_image_are_found_when_it_runs(with_busybox: Pybuild, hostile: Path) -> None:
    """`run` checks what it unpacks, and says which image it is."""
    pybuild = with_busybox
    pybuild.run_other("tar", "-C", str(hostile), "-cf", "evil.tar", ".")
    pybuild("load", "--input", "evil.tar")

    done = pybuild("run", "evil:1", "true", status=3)

    assert "its config names" in done.err
    assert "`evil:1`" in done.err
    assert "hint: use another tag or digest" in done.err


@pytest.mark.userns
def test_false_diff_ids_are_found_by_a_copy_from_the_image(with_busybox: Pybuild, hostile: Path) -> None:
    """COPY --from takes nothing out of it, though the true image lies unpacked."""
    pybuild = with_busybox
    pybuild("run", "busybox", "true")
    context = pybuild.context({"Dockerfile": "FROM scratch\nCOPY --from=base /etc/passwd /\n"})

    done = pybuild("build", "--build-context", f"base=oci-layout://{hostile}:1", context, status=3)

    assert "its config names" in done.err
