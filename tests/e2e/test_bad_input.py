"""What goes wrong for a reason that lies with the user, the registry or the store: a message and an exit status."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.command import Done, Pybuild


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Arguments with the files of the context they are about, and what they must lead to."""

    arguments: tuple[str, ...] = ("build", "context")
    files: dict[str, str] = field(default_factory=dict)
    status: int
    says: tuple[str, ...]


def dockerfile(text: str, **files: str) -> dict[str, str]:
    """Return a context with this Dockerfile."""
    return {"Dockerfile": text, **files}


CASES = {
    "unknown-instruction": Case(
        files=dockerfile("FROM busybox\nRUNN true\n"), status=2, says=("RUNN", "Dockerfile:2", "RUN")
    ),
    "no-from": Case(files=dockerfile("RUN true\n"), status=2, says=("Dockerfile:1", "FROM")),
    "empty-dockerfile": Case(files=dockerfile(""), status=2, says=("Dockerfile",)),
    "unterminated-heredoc": Case(
        files=dockerfile("FROM busybox\nRUN <<END\ntrue\n"), status=2, says=("Dockerfile:2", "heredoc")
    ),
    "missing-copy-source": Case(
        files=dockerfile("FROM scratch\nCOPY file-wit-typo /\n", **{"file-with-typo": "x"}),
        status=2,
        says=("file-wit-typo", "Dockerfile:2", "file-with-typo"),
    ),
    "copy-source-is-ignored": Case(
        files={"Dockerfile": "FROM scratch\nCOPY secret.txt /\n", "secret.txt": "x", ".dockerignore": "*.txt\n"},
        status=2,
        says=("secret.txt", "Dockerfile:2", ".dockerignore"),
    ),
    "copy-source-leaves-the-context": Case(
        files=dockerfile("FROM scratch\nCOPY ../../../etc/hostname /\n"),
        status=2,
        says=("etc/hostname", "Dockerfile:2"),
    ),
    "unknown-stage": Case(
        arguments=("build", "--target", "tset", "context"),
        files=dockerfile("FROM busybox AS test\n"),
        status=2,
        says=("tset", "test"),
    ),
    "unknown-run-flag": Case(
        files=dockerfile("FROM busybox\nRUN --mont=type=tmpfs true\n"), status=2, says=("mont", "Dockerfile:2")
    ),
    "unknown-option": Case(arguments=("build", "--tga", "x", "."), status=2, says=("--tga", "--tag")),
    "unknown-output": Case(arguments=("build", "--output", "type=ocy,dest=x", "."), status=2, says=("ocy", "oci")),
    "missing-context": Case(arguments=("build", "nowhere"), status=2, says=("nowhere",)),
    "missing-dockerfile": Case(files={"file": "x"}, status=2, says=("Dockerfile",)),
    "bad-tag": Case(arguments=("build", "--tag", "App:1", "."), status=2, says=("App:1",)),
    "bad-platform": Case(arguments=("build", "--platform", "lin/ux/am/d64", "."), status=2, says=("lin/ux/am/d64",)),
    "unreachable-registry-in-from": Case(
        files=dockerfile("FROM localhost:1/nothing:1\n"), status=3, says=("localhost:1",)
    ),
    "unreachable-registry": Case(arguments=("pull", "localhost:1/nothing:1"), status=3, says=("localhost:1",)),
    "image-not-there": Case(arguments=("inspect", "nothing:1"), status=3, says=("nothing:1",)),
    "push-of-nothing": Case(arguments=("push", "localhost:1/nothing:1"), status=3, says=("localhost:1/nothing:1",)),
    "import-of-nothing": Case(arguments=("import", "nothing.tar", "x"), status=2, says=("nothing.tar",)),
    "load-of-nothing": Case(arguments=("load", "--input", "nothing.tar"), status=2, says=("nothing.tar",)),
    "load-of-text": Case(
        arguments=("load", "--input", "context/file"), files={"file": "not a tar\n" * 100}, status=2, says=("tar",)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_mistake_is_explained(pybuild: Pybuild, case: Case) -> None:
    """A mistake leads to its exit status and a message that names the cause, never to a traceback."""
    pybuild.context(case.files)

    done = pybuild(*case.arguments, status=case.status)

    assert_explained(done)
    for text in case.says:
        assert text in done.err


@pytest.mark.userns
def test_user_that_is_not_in_the_image_is_explained(with_busybox: Pybuild) -> None:
    """A USER that the image does not know is a fault of the Dockerfile, as is an owner of --chown."""
    context = with_busybox.context(dockerfile("FROM busybox\nUSER nobody-here\nRUN true\n"))

    done = with_busybox("build", context, status=2)

    assert_explained(done)
    assert "nobody-here" in done.err


@pytest.mark.userns
def test_command_that_is_not_in_the_image_is_explained(with_busybox: Pybuild) -> None:
    """`run` of a command that does not exist ends as a shell would: with 127 and the name."""
    done = with_busybox("run", "busybox", "no-such-program", status=127)

    assert_explained(done)
    assert "no-such-program" in done.err


@pytest.mark.userns
def test_status_of_a_run_command_is_passed_on(with_busybox: Pybuild) -> None:
    """The exit status of `run` is that of the command."""
    with_busybox("run", "busybox", "sh", "-c", "exit 42", status=42)


@pytest.mark.userns
def test_damaged_layer_is_noticed(with_busybox: Pybuild) -> None:
    """A changed byte in a stored layer stops a build that needs the layer, with the status of a damaged store."""
    pybuild = with_busybox
    damage_layer(pybuild, "busybox")

    done = pybuild("build", pybuild.context(dockerfile("FROM busybox\nRUN true\n")), status=5)

    assert_explained(done)


@pytest.mark.userns
def test_damaged_layer_is_not_pushed_on(with_busybox: Pybuild) -> None:
    """An archive of an image whose layer is damaged is not written without a word."""
    damage_layer(with_busybox, "busybox")

    done = with_busybox("save", "--output", "out.tar", "busybox", status=5)

    assert_explained(done)


def test_missing_layer_is_noticed(with_busybox: Pybuild) -> None:
    """A layer that is gone from the store is named."""
    layer = find_layer(with_busybox, "busybox")
    path = with_busybox.images / "blobs" / layer.replace(":", "/")
    path.unlink()

    done = with_busybox("save", "--output", "out.tar", "busybox", status=5)

    assert_explained(done)
    assert layer in done.err


def test_root_that_cannot_be_written_is_explained(pybuild: Pybuild) -> None:
    """A root below a file is refused with its name."""
    context = pybuild.context(dockerfile("FROM scratch\n"))

    done = pybuild("build", "--root", f"{context}/Dockerfile/root", context, status=None)

    assert done.status in {2, 5}
    assert_explained(done)
    assert "Dockerfile/root" in done.err


def assert_explained(done: Done) -> None:
    """Check that standard error has an error for people."""
    assert "Traceback" not in done.err
    assert "error: " in done.err.lower()


def find_layer(pybuild: Pybuild, name: str) -> str:
    """Return the digest of the first layer of an image."""
    digest = json.loads(pybuild("inspect", name).out)[0]["Descriptor"]["digest"]
    manifest = json.loads((pybuild.images / "blobs" / digest.replace(":", "/")).read_text())
    layer: str = manifest["layers"][0]["digest"]
    return layer


def damage_layer(pybuild: Pybuild, name: str) -> None:
    """Change one byte in the middle of the first layer of an image."""
    path = pybuild.images / "blobs" / find_layer(pybuild, name).replace(":", "/")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(content)
