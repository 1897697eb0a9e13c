"""The verbs about what is in the store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.terminal import INTERRUPT, SLEEP, Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.command import Pybuild


def test_images_lists_what_was_imported(with_busybox: Pybuild) -> None:
    """`images` shows name, tag and the short id under Docker's titles."""
    header, row = with_busybox("images").lines

    assert header.split()[:4] == ["REPOSITORY", "TAG", "IMAGE", "ID"]
    assert row.split()[:2] == ["busybox", "latest"]
    assert with_busybox("images", "--quiet").lines == [row.split()[2]]


def test_images_of_an_empty_store_has_only_titles(pybuild: Pybuild) -> None:
    """Listing before anything was built is no error."""
    assert len(pybuild("images").lines) == 1


def test_images_as_json_has_an_object_a_line(with_busybox: Pybuild) -> None:
    """`images --format json` can be read by programs."""
    rows = [json.loads(line) for line in with_busybox("images", "--format", "json").lines]

    assert [(row["Repository"], row["Tag"]) for row in rows] == [("busybox", "latest")]


def test_tag_gives_a_second_name(with_busybox: Pybuild) -> None:
    """A tagged image has both names and one id."""
    with_busybox("tag", "busybox", "localhost/other:2")

    image = json.loads(with_busybox("inspect", "busybox").out)[0]
    assert image["Id"] == json.loads(with_busybox("inspect", "localhost/other:2").out)[0]["Id"]
    assert sorted(image["RepoTags"]) == ["busybox:latest", "localhost/other:2"]


def test_rmi_removes_one_name_and_keeps_the_other(with_busybox: Pybuild) -> None:
    """Removing a name leaves the image under its other name."""
    with_busybox("tag", "busybox", "other:2")

    assert "busybox:latest" in with_busybox("rmi", "busybox").out

    assert [line.split()[0] for line in with_busybox("images").lines[1:]] == ["other"]


def test_rmi_of_what_is_not_there_fails(with_busybox: Pybuild) -> None:
    """Removing an unknown name is an error, unless it is forced."""
    assert "nothing" in with_busybox("rmi", "nothing", status=3).err

    with_busybox("rmi", "--force", "nothing")


@pytest.mark.userns
def test_history_lists_the_instructions(with_busybox: Pybuild) -> None:
    """`history` has the newest instruction first and the import last."""
    dockerfile = "FROM busybox\nRUN echo a > /srv/a\nENV B=c\nCMD true\n"
    with_busybox("build", "--tag", "app", with_busybox.context({"Dockerfile": dockerfile}))

    made = [
        json.loads(line)["CreatedBy"] for line in with_busybox("history", "--format", "json", "--no-trunc", "app").lines
    ]

    assert [
        any(part in text for part in parts)
        for text, parts in zip(made, [["CMD"], ["ENV B=c"], ["echo a"], [""]], strict=True)
    ]
    assert "echo a > /srv/a" in made[2]


def test_inspect_shows_the_config(with_busybox: Pybuild) -> None:
    """`inspect` has what the Dockerfile set."""
    dockerfile = (
        'FROM busybox\nENV A="b c"\nLABEL x=y\nEXPOSE 80\nUSER www\nWORKDIR /srv\nENTRYPOINT ["/bin/echo"]\nCMD ["a"]\n'
    )
    with_busybox("build", "--tag", "app", "--label", "z=1", with_busybox.context({"Dockerfile": dockerfile}))

    config = json.loads(with_busybox("inspect", "app").out)[0]["Config"]

    assert "A=b c" in config["Env"]
    assert config["Labels"] == {"x": "y", "z": "1"}
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert (config["User"], config["WorkingDir"]) == ("www", "/srv")
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/echo"], ["a"])


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_save_and_load_keep_the_id(with_busybox: Pybuild, form: str) -> None:
    """An image that went through an archive into another root is the same image under the same name."""
    saved = json.loads(with_busybox("inspect", "busybox").out)[0]

    with_busybox("save", "--format", form, "--output", "out.tar", "busybox")
    loaded = with_busybox("load", "--root", "another", "--input", "out.tar")

    assert loaded.out == "Loaded image: busybox:latest\n"
    again = json.loads(with_busybox("inspect", "--root", "another", "busybox").out)[0]
    assert again["Id"] == saved["Id"]


def test_import_takes_a_changed_config(pybuild: Pybuild, busybox_archive: Path) -> None:
    """`import --change` sets what the image runs by default."""
    pybuild("import", "--change", 'ENTRYPOINT ["/bin/echo", "hi"]', "--change", "ENV A=b", str(busybox_archive), "base")

    config = json.loads(pybuild("inspect", "base").out)[0]["Config"]
    assert config["Entrypoint"] == ["/bin/echo", "hi"]
    assert "A=b" in config["Env"]


def test_import_reads_standard_input(pybuild: Pybuild, busybox_archive: Path) -> None:
    """`import -` reads the tar from a pipe; the id is the digest of the config it makes."""
    pybuild("import", "-", "base", stdin=busybox_archive.read_bytes())

    assert [line.split()[0] for line in pybuild("images").lines[1:]] == ["base"]


@pytest.mark.userns
def test_prune_removes_what_nothing_names(with_busybox: Pybuild) -> None:
    """After the last name went, prune gives the space back and leaves other images usable."""
    pybuild = with_busybox
    dockerfile = "FROM busybox\nRUN dd if=/dev/urandom of=/srv/random bs=1M count=8\n"
    pybuild("build", "--tag", "app", pybuild.context({"Dockerfile": dockerfile}))
    before = blobs_size(pybuild)

    pybuild("rmi", "app")
    pybuild("prune", "--all", "--force")

    assert before - blobs_size(pybuild) > 8 * 1024 * 1024
    assert pybuild("run", "busybox", "echo", "still here").out == "still here\n"


@pytest.mark.userns
def test_prune_keeps_what_has_a_name(with_busybox: Pybuild) -> None:
    """Prune without `--all` leaves a named image whole and its build cached."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN date +%N > /srv/moment\n"})
    pybuild("build", "--tag", "app", context)
    before = pybuild("run", "app", "cat", "/srv/moment").out

    pybuild("prune", "--force")

    assert pybuild("run", "app", "cat", "/srv/moment").out == before
    assert "CACHED" in pybuild("build", "--progress", "plain", context).err


@pytest.mark.userns
def test_df_adds_up(with_busybox: Pybuild) -> None:
    """`df` shows kinds with counts and bytes; images take at least what their blobs take."""
    rows = {row["Type"]: row for row in map(json.loads, with_busybox("df", "--format", "json").lines)}

    assert rows["Images"]["TotalCount"] == 1
    assert rows["Images"]["Size"] >= blobs_size(with_busybox)


@pytest.mark.userns
def test_run_passes_what_is_asked(with_busybox: Pybuild) -> None:
    """`run` sets variables, folder, user and host name of the command, and passes standard input on."""
    options = ("--env", "A=b c", "--workdir", "/srv", "--user", "www", "--hostname", "inside", "--interactive")

    done = with_busybox(
        "run", *options, "busybox", "sh", "-c", 'echo "$A"; pwd; id -u; id -G; hostname; cat', stdin=b"fed\n"
    )

    assert done.lines == ["b c", "/srv", "33", "33 29", "inside", "fed"]


@pytest.mark.userns
def test_run_shows_a_folder_of_the_host(with_busybox: Pybuild) -> None:
    """`run --volume` shows a folder inside; with `:ro` it cannot be written to."""
    folder = with_busybox.context({"file": "of the host\n"}, "shown")

    assert (
        with_busybox("run", "--volume", f"{folder}:/shown:ro", "busybox", "cat", "/shown/file").out == "of the host\n"
    )
    denied = with_busybox("run", "--volume", f"{folder}:/shown:ro", "busybox", "touch", "/shown/new", status=1)

    assert "Read-only" in denied.err


@pytest.mark.userns
def test_run_leaves_the_image_unchanged(with_busybox: Pybuild) -> None:
    """What a command writes is gone with it."""
    with_busybox("run", "busybox", "touch", "/srv/left")

    assert with_busybox("run", "busybox", "ls", "/srv").out == ""


@pytest.mark.userns
def test_interrupt_reaches_the_command_of_run(with_busybox: Pybuild) -> None:
    """Ctrl-C in `pybuild run -it` is for the command, as in docker."""
    with Terminal(with_busybox, "run", "-it", "busybox", "sh") as terminal:
        terminal.send(SLEEP)
        terminal.expect("begun\n")
        terminal.send(INTERRUPT)

        assert terminal.ask("echo alive") == "alive\n"
        terminal.send("exit 6\n")
        assert terminal.end() == 6


def blobs_size(pybuild: Pybuild) -> int:
    """Return the bytes of all blobs."""
    return sum(path.stat().st_size for path in (pybuild.images / "blobs").rglob("*") if path.is_file())
