"""Images and stores that are not what they say: what is found, what the user is told, and that the next build is right."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.docker_registry import run_docker_registry

if TYPE_CHECKING:
    from collections.abc import Callable

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


# Stores that are damaged

DOCKERFILE = "FROM busybox\nRUN echo first > /srv/a\nRUN cat /srv/a > /srv/b\n"


@pytest.fixture
def app(with_busybox: Pybuild) -> str:
    """Build the image `app` and return its context."""
    context = with_busybox.context({"Dockerfile": DOCKERFILE})
    with_busybox("build", "--tag", "app", context)
    return context


def check_build(pybuild: Pybuild, context: str, *, cached: int | None = None) -> str:
    """Build again, check that the result is whole, and return what was shown; *cached* steps must be."""
    shown = pybuild("build", "--progress", "plain", "--tag", "app", context).err
    assert pybuild("run", "app", "cat", "/srv/b").out == "first\n"
    pybuild("save", "--output", "app.tar", "app")  # which verifies all blobs
    if cached is not None:
        assert shown.count("CACHED") == cached + 1  # and the base
    return shown


def layers_of(pybuild: Pybuild, name: str) -> list[Path]:
    """Return the files of the layers of an image, base first."""
    image = json.loads(pybuild("inspect", name).out)[0]
    manifest = read(pybuild.images, image["Descriptor"])
    return [pybuild.images / "blobs" / "sha256" / layer["digest"][7:] for layer in manifest["layers"]]


def flip(path: Path) -> None:
    """Change a byte in the middle and leave the length."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


DATABASES: dict[str, tuple[Callable[[Path], object], int, int]] = {
    # what happens to it, how often it is told, how many of two steps are cached afterwards
    "garbage": (lambda path: path.write_bytes(os.urandom(10_000)), 1, 0),
    "cut in its header": (lambda path: os.truncate(path, 50), 1, 0),
    "gone": (lambda path: path.unlink(), 0, 0),
    "page that is met when all is looked up": (lambda path: spoil_page(path, "blob"), 1, 0),
    "page that is met when steps are done": (lambda path: spoil_page(path, "tree"), 1, 2),
}


def spoil_page(path: Path, table: str) -> None:
    """Overwrite the root page of a table."""
    import sqlite3  # noqa: PLC0415  only here

    with sqlite3.connect(path) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = bytes([255]) * 4096
    path.write_bytes(data)


@pytest.mark.userns
@pytest.mark.parametrize(("damage", "told", "cached"), DATABASES.values(), ids=DATABASES.keys())
def test_damaged_database_costs_no_image(
    with_busybox: Pybuild, app: str, damage: Callable[[Path], object], told: int, cached: int
) -> None:
    """The images are there, the next build is right, and it is said once that the database is begun anew."""
    pybuild = with_busybox
    damage(pybuild.root / "state.db")

    assert len(pybuild("images").lines) == 3
    pybuild.context({"Dockerfile": f"{DOCKERFILE}COPY x /\n", "x": "x"})
    assert check_build(pybuild, app, cached=cached).count("is begun anew") == told
    assert "begun anew" not in check_build(pybuild, app, cached=3)


@pytest.mark.userns
@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda path: os.truncate(path, 100)], ids=["flip", "gone", "cut"]
)
def test_damaged_layer_of_a_step_is_made_again(
    with_busybox: Pybuild, app: str, damage: Callable[[Path], object]
) -> None:
    """Where it shows by its absence or length, at once; else when it is read: then it is removed, with what to do."""
    pybuild = with_busybox
    damage(layers_of(pybuild, "app")[1])

    if damage is flip:
        done = pybuild("save", "--output", "app.tar", "app", status=5)
        assert "a stored blob was damaged and is removed" in done.err
        assert "hint: build, pull or load the image again" in done.err
    check_build(pybuild, app)
    check_build(pybuild, app, cached=2)


@pytest.mark.userns
@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda path: os.truncate(path, 100)], ids=["flip", "gone", "cut"]
)
@pytest.mark.registry
def test_damaged_base_is_pulled_again(
    pybuild: Pybuild, busybox_archive: Path, tmp_path: Path, damage: Callable[[Path], object], part: str
) -> None:
    """A base that came from a registry comes from there again, without a word about what to do."""
    with run_docker_registry(tmp_path) as address:
        name = f"{address}/base:1"
        pybuild("import", str(busybox_archive), name)
        pybuild("push", name)
        damage(part_of(pybuild, name, part))
        context = pybuild.context({"Dockerfile": f"FROM {name}\nRUN echo made > /srv/made\n"})

        done = pybuild("build", "--tag", "app", context, status=None)
        if done.status:  # the bytes of a layer show only to who reads them
            assert (part, damage) == ("layer", flip)
            assert done.status == 5
            assert "hint: build again: it is made or pulled anew" in done.err
            pybuild("build", "--tag", "app", context)

        assert pybuild("run", "app", "cat", "/srv/made").out == "made\n"


@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
def test_damaged_base_that_is_nowhere_else_is_named(with_busybox: Pybuild, part: str) -> None:
    """An image that was imported cannot be pulled; that it is damaged is said first."""
    part_of(with_busybox, "busybox", part).unlink()
    context = with_busybox.context({"Dockerfile": "FROM localhost:1/gone:1\nFROM busybox\nRUN true\n"})
    Path(context, "Dockerfile").write_text("FROM busybox\nRUN true\n")

    done = with_busybox("build", context, status=5)

    assert "the image is damaged in the store, blob is not in the store" in done.err
    assert "hint: build, load or import it again" in done.err


def part_of(pybuild: Pybuild, name: str, part: str) -> Path:
    """Return the file of a blob of an image."""
    descriptor = json.loads(pybuild("inspect", name).out)[0]["Descriptor"]
    manifest = read(pybuild.images, descriptor)
    chosen = {"layer": manifest["layers"][0], "config": manifest["config"], "manifest": descriptor}[part]
    return pybuild.images / "blobs" / "sha256" / chosen["digest"][7:]


SNAPSHOTS: dict[str, Callable[[Path], object]] = {
    "gone": shutil.rmtree,
    "emptied": lambda tree: (shutil.rmtree(tree), tree.mkdir()),
    "half removed": lambda tree: shutil.rmtree(tree / "srv"),
    "something put in": lambda tree: (tree / "new").touch(),
    "no mark": lambda tree: os.removexattr(tree, "user.pybuild.committed"),
}


@pytest.mark.userns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change files of sub-ids")
@pytest.mark.parametrize("damage", SNAPSHOTS.values(), ids=SNAPSHOTS.keys())
def test_damaged_snapshots_are_made_again(with_busybox: Pybuild, app: str, damage: Callable[[Path], object]) -> None:
    """Trees that are not what was committed are unpacked from their layers, and the steps stay cached."""
    assert app
    for tree in (with_busybox.root / "snapshots").iterdir():
        if not tree.name.startswith("."):
            damage(tree)
    context = with_busybox.context({"Dockerfile": f"{DOCKERFILE}RUN ls / > /srv/names\n"})

    shown = check_build(with_busybox, context)

    assert shown.count("CACHED") == 3
    assert "new" not in with_busybox("run", "app", "cat", "/srv/names").lines


@pytest.mark.userns
def test_damaged_list_of_images_is_named_with_what_to_do(with_busybox: Pybuild, app: str) -> None:
    """What the hint says gives the names back to who builds and imports again, and loses no layer."""
    index = with_busybox.images / "index.json"
    text = index.read_text()
    index.write_text(text[: len(text) // 2])

    for words in (("images",), ("build", app), ("run", "app", "true")):
        done = with_busybox(*words, status=5)
        assert "list of images is damaged" in done.err
        assert f"mv {index}" in done.err

    index.write_text(text)
    assert len(with_busybox("images").lines) == 3


@pytest.mark.userns
def test_missing_oci_layout_file_is_written_again(with_busybox: Pybuild, app: str) -> None:
    """The list of images says all there is to know; other tools want the file, so the next build writes it."""
    file = with_busybox.images / "oci-layout"
    file.unlink()

    check_build(with_busybox, app, cached=2)
    with_busybox("tag", "app", "other")

    assert json.loads(file.read_text()) == {"imageLayoutVersion": "1.0.0"}
