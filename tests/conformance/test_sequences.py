"""Several builds in one store: which steps of each run, and which are taken from the cache.

A file in `sequences` is a list of builds, done in this order with one context:

    files        path -> text to write before the build; what lies in `web` is served, as in the cases
    prepare      a shell command that is run in the context after that
    arguments    of the build; environment: variables of the command
    status       the exit status, 0 if absent
    cached       steps, by their text after the bracket, that must be taken from the cache
    ran          steps that must not be
    printed      parts of what is printed
    image        what the image must be, as in the cases; output: further keys of the output it is written to
    nowhere      texts that no file of the store may have in it, compressed or not
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.flatten import read_archive
from tests.conformance.test_cases import check_image, serve, with_variables
from tests.fakes.docker_registry import run_docker_registry

if TYPE_CHECKING:
    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

SEQUENCES = Path(__file__).with_name("sequences")


@pytest.mark.parametrize("name", sorted(path.stem for path in SEQUENCES.iterdir()))
def test_sequence_runs_what_changed(alone: Pybuild, name: str) -> None:
    """Each build of a sequence runs the steps that the specification names, and no other of those it names."""
    steps = json.loads((SEQUENCES / f"{name}.json").read_text(encoding="utf-8"))
    context = alone.context(steps[0]["files"])
    with serve(Path(context)) as (_, told):
        for number, step in enumerate(steps):
            alone.context(step.get("files", {}))
            if "prepare" in step:
                alone.run_other("sh", "-ec", f"umask 022; cd {context}; {step['prepare']}")
            check_build(
                alone, context, step | {"arguments": [*told, *step.get("arguments", [])]}, f"build {number + 1}"
            )


def test_new_digest_of_a_base_is_noticed_with_pull(alone: Pybuild, tmp_path: Path) -> None:
    """A tag that names another image in the registry makes the steps on it run again, once it is asked for."""
    with run_docker_registry(tmp_path) as host:
        base = f"{host}/base:1"
        again = alone.context({"Dockerfile": f"FROM {base}\nRUN touch /x\n"}, "derived")
        plain = ["--insecure-registry", host]
        for text, cached in (("1", False), ("2", False), ("2", True)):
            make = alone.context({"Dockerfile": f"FROM busybox:1\nRUN echo {text} > /a\n"}, "base")
            alone("build", *plain, "--push", "-t", base, make)
            step = {"arguments": [*plain, "--pull"], "cached" if cached else "ran": ["RUN touch /x"]}
            check_build(alone, again, step, text)


def check_build(command: Pybuild, context: str, step: dict[str, Any], where: str) -> None:
    """Build *context* as *step* says and compare."""
    command = with_variables(command, step.get("environment", {}))
    arguments = ["--progress", "rawjson", *step.get("arguments", [])]
    archive = command.folder / "image.tar"
    if "image" in step:
        arguments += ["-o", ",".join([f"type=oci,dest={archive}", *filter(None, [step.get("output")])])]
    done = command("build", *arguments, context, status=step.get("status", 0))
    if "image" in step:
        check_image(read_archive(archive), done, step["image"])
    outcome = read_outcome(done.err)
    for text in step.get("cached", ()):
        assert outcome.get(text) == "cached", (where, text, outcome)
    for text in step.get("ran", ()):
        assert outcome.get(text) == "ran", (where, text, outcome)
    for part in step.get("printed", ()):
        assert part in done.err, where
    for text in step.get("nowhere", ()):
        assert text not in done.err, where
        assert find_text(command.root, text.encode()) == [], where


def read_outcome(progress: str) -> dict[str, str]:
    """Return of each step, by its text, whether it was `cached`, `ran` or `failed`."""
    outcome: dict[str, str] = {}
    for line in progress.splitlines():
        if not line.startswith("{"):
            continue
        for vertex in json.loads(line).get("vertexes", ()):
            text = vertex["name"].partition("] ")[2]
            if "completed" in vertex and text:
                ended = "failed" if vertex.get("error") else "ran"
                outcome[text] = "cached" if vertex.get("cached") else ended
    return outcome


def find_text(folder: Path, text: bytes) -> list[Path]:
    """Return the files below *folder* that have *text* in them, in their names or behind gzip."""
    found = []
    for path in folder.rglob("*"):
        if text in str(path).encode(errors="surrogateescape"):
            found.append(path)
        if path.is_symlink() or not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except PermissionError:  # of a sub-id, for which the tests have no right without root
            continue
        if data[:2] == b"\x1f\x8b":
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error):
                continue
        if text in data:
            found.append(path)
    return found
