"""Tests of the verbs that list, describe and name images."""

from __future__ import annotations

import json

import pytest

from builder.cli.find_image import image_size, short_id
from builder.cli.units import format_size
from builder.store import Store
from tests.builder.cli.verbs.conftest import add_image


def test_images_lists_names_newest_first(shell, app):
    """The listing has Docker's columns; images without a name are not in it."""
    with Store(shell.root / "store") as store:
        add_image(store, "new:2", layers=(b"x",), created="2021-01-01T00:00:00Z")
        add_image(store, layers=(b"y",))
    lines = [line.split() for line in shell.ok("images").splitlines()]

    assert lines[0] == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [line[:2] for line in lines[1:]] == [["new", "2"], ["app", "1"], ["team/app", "latest"]]
    assert lines[2][2] == short_id(app.manifest.config.digest)
    assert lines[2][-1] == format_size(image_size(app))
    assert lines[2][4:6] == ["years", "ago"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("app", ["app"]),
        ("app:1", ["app"]),
        ("app:2", []),
        ("*app", ["app", "team/app"]),
        ("docker.io/library/app", ["app"]),
    ],
)
def test_images_can_be_chosen_by_name(shell, app, name, found):
    """A name with or without tag, or with `*`, chooses."""
    assert [
        json.loads(line)["Repository"] for line in shell.ok("images", "--format", "json", name).splitlines()
    ] == found


def test_images_of_all_kinds_are_shown_on_demand(shell, app):
    """`-a` shows images without a name, `-q` ids only, `--digests` and `--no-trunc` whole digests."""
    with Store(shell.root / "store") as store:
        bare = add_image(store, layers=(b"y",))

    assert "<none>" in shell.ok("images", "-a")
    assert shell.ok("images", "-q") == f"{short_id(app.manifest.config.digest)}\n"
    assert set(shell.ok("images", "-aq", "--no-trunc").split()) == {
        app.manifest.config.digest,
        bare.manifest.config.digest,
    }
    assert app.descriptor.digest in shell.ok("images", "--digests")


def test_images_survives_a_damaged_image(shell, app):
    """An image that cannot be read is still listed."""
    (shell.root / "store/images/blobs/sha256" / app.manifest.config.digest[7:]).unlink()

    assert "N/A" in shell.ok("images", "app")


def test_images_of_a_store_that_is_not_there(shell):
    """Listing makes nothing on disk."""
    assert shell.ok("images", "-q") == ""
    assert not (shell.root / "store").exists()


def test_inspect_prints_what_docker_does(shell, app):
    """One array with an object for each image, found by name or by the beginning of an id."""
    by_name, by_id = json.loads(shell.ok("inspect", "app:1", app.manifest.config.digest[7:15]))

    assert by_name == by_id
    assert by_name["Id"] == app.manifest.config.digest
    assert by_name["RepoTags"] == ["app:1", "team/app:latest"]
    assert by_name["RepoDigests"] == [f"app@{app.descriptor.digest}", f"team/app@{app.descriptor.digest}"]
    assert by_name["Config"] == {"Env": ["A=1"], "Cmd": ["sh"], "Labels": {"l": "v"}}
    assert by_name["RootFS"] == {"Type": "layers", "Layers": list(app.config.diff_ids)}
    assert by_name["Created"] == "2020-01-01T00:00:00Z"
    assert by_name["Size"] == image_size(app)


def test_inspect_of_nothing_says_so(shell, app):
    """An image that is not there is exit code 3."""
    assert shell("inspect", "nope")[::2] == (
        3,
        "ERROR: no such image: `nope`\n\nhint: `pybuild images` lists what is there\n",
    )


def test_history_is_newest_first(shell, app):
    """Instructions with the size of their layers; long ones are cut unless asked."""
    lines = shell.ok("history", "app:1").splitlines()

    assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert lines[1].startswith(short_id(app.manifest.config.digest))
    assert "COPY 1" in lines[1]
    assert "COPY 0" in lines[2]
    assert "ARG x build-arg with a long line xxxxxxxxxxx…" in lines[3]
    assert " 0B" in lines[3]
    assert "x" * 40 in shell.ok("history", "--no-trunc", "app:1")


def test_history_as_json_and_ids(shell, app):
    """Machines get every field."""
    rows = [json.loads(line) for line in shell.ok("history", "--format", "json", "app:1").splitlines()]

    assert [row["SizeBytes"] for row in rows] == [app.manifest.layers[1].size, app.manifest.layers[0].size, 0]
    assert [row["ID"] for row in rows[1:]] == ["<missing>", "<missing>"]
    assert shell.ok("history", "-q", "app:1").split()[1:] == ["<missing>", "<missing>"]


def test_tag_gives_another_name(shell, app):
    """The new name lists the same image; a name in use moves."""
    with Store(shell.root / "store") as store:
        other = add_image(store, "other:1", layers=(b"x",))
    shell.ok("tag", "app:1", "other:1")
    shell.ok("tag", app.manifest.config.digest[7:19], "reg.example:5000/x/y:2")

    assert shell.ok("images", "-q", "other:1") == shell.ok("images", "-q", "app:1")
    assert shell.ok("images", "-q", "reg.example:5000/x/y") == shell.ok("images", "-q", "app:1")
    assert short_id(other.manifest.config.digest) in shell.ok("images", "-aq")


def test_tag_refuses_a_digest(shell, app):
    """A name cannot be chosen to have a digest."""
    assert shell("tag", "app:1", f"x@{app.descriptor.digest}")[0] == 2


def test_rmi_takes_one_name_away(shell, app):
    """Other names of the image stay."""
    assert shell.ok("rmi", "app:1") == "Untagged: app:1\n"
    assert "team/app" in shell.ok("images")
    assert shell.ok("images", "app") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"


def test_rmi_by_id_wants_force_for_several_names(shell, app):
    """An id with several names is only removed on demand."""
    id_ = short_id(app.manifest.config.digest)
    code, _, error = shell("rmi", id_)

    assert code == 2
    assert error.startswith(f"pybuild: error: image has several names, app:1, team/app:latest: `{id_}`")
    lines = shell.ok("rmi", "-f", id_).splitlines()
    assert lines[:2] == ["Untagged: app:1", "Untagged: team/app:latest"]
    assert f"Deleted: {app.descriptor.digest}" in lines[2:]
    assert shell.ok("images", "-aq") == ""


def test_rmi_removes_what_it_can(shell, app):
    """A missing image does not keep the others; `-f` does not mind."""
    code, out, error = shell("rmi", "nope", "app:1", "neither")

    assert (code, out) == (3, "Untagged: app:1\n")
    assert "ERROR: 2 things failed:\nERROR: no such image: `nope`" in error
    assert shell("rmi", "-f", "nope") == (0, "", "")


def test_short_beginning_of_several_ids_is_refused(shell):
    """An id that fits several images says so."""
    with Store(shell.root / "store") as store:
        ids = [add_image(store, f"x:{n}", layers=(b"%d" % n,)).manifest.config.digest[7:10] for n in range(500)]
    twice = next((id_ for id_ in ids if ids.count(id_) > 1), None)

    assert twice is not None
    assert shell("inspect", twice)[2].startswith(f"pybuild: error: several images have an id that begins so: `{twice}`")
