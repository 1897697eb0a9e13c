"""Whole builds compared with what the specification of the Dockerfile says they give.

A case is a folder in `cases`: a build context, and beside its files

    build.json            optional: {"arguments": [...], "environment": {...}, "prepare": a shell command that is run
                          in the copy of the context, for what a checkout does not keep: modes, times, hard links,
                          "context": what is built instead of the copy, "stdin": a file of the copy that is the
                          standard input}; arguments are relative to the folder that the copy, NAME, lies in
    web                   optional: a folder that is served over HTTP; `{web}` in arguments and context is its
                          address, which is the build argument WEB too
    expected.json         config    members of the config's `config`; null: must be absent
                          top       members of the config beside `config`; null: must be absent
                          manifest  members of the manifest; null: must be absent
                          media     the media types of the layers, without what all have in common
                          history   [text, has no layer] of the entries after those of the base, in order
                          layers    how many the image has
                          tree      path -> members of what lies there; whole: nothing else may be there
                          last      name -> members of the entries of the last layer, with nothing else in it
                          diff      the digest of the last layer's tar
                          printed   parts of what the steps print; unprinted: what must not be among it
                          warnings  parts of the warnings, each of which must be printed
    expected-error.json   message   a part of what is printed; line: where the excerpt points; status: the exit status
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.flatten import read_archive
from tests.fakes.web_server import serve_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.flatten import Flat
    from tests.e2e.command import Done, Pybuild

pytestmark = pytest.mark.userns

CASES = Path(__file__).with_name("cases")
OURS = ("build.json", "expected.json", "expected-error.json")


@pytest.mark.parametrize("name", sorted(case.name for case in CASES.iterdir()))
def test_case_is_as_expected(shared: Pybuild, name: str) -> None:
    """The build of a case gives the image, or the error, that the specification names."""
    case = CASES / name
    wishes = _read(case / "build.json")
    error = _read(case / "expected-error.json")
    context, archive = shared.folder / name, shared.folder / f"{name}.tar"
    shutil.copytree(case, context, symlinks=True, ignore=shutil.ignore_patterns(*OURS))
    for path in (context, *context.rglob("*")):
        os.chown(path, shared.account.uid, shared.account.gid, follow_symlinks=False)
    command = with_variables(shared, wishes.get("environment", {}))
    if "prepare" in wishes:
        command.run_other("sh", "-ec", f"umask 022; cd {name}; {wishes['prepare']}")
    stdin = (context / wishes["stdin"]).read_bytes() if "stdin" in wishes else b""
    with serve(context) as (web, told):
        wanted = [*wishes.get("arguments", []), wishes.get("context", name)]
        arguments = [*told, "--progress", "plain", "-o", f"type=oci,dest={archive}"]
        arguments += [part.replace("{web}", web) for part in wanted]
        done = command("build", *arguments, status=error.get("status", 0), stdin=stdin)

    if error:
        check_error(done, error)
    else:
        check_image(read_archive(archive), done, _read(case / "expected.json"))


def with_variables(command: Pybuild, variables: dict[str, str]) -> Pybuild:
    """Return *command* with these environment variables."""
    return type(command)(program=command.program, account=command.account, folder=command.folder, variables=variables)


@contextmanager
def serve(context: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folder `web` of a context, if there is one: gives its address and the arguments that tell it."""
    if not (context / "web").is_dir():
        yield "", []
        return
    with serve_folder(context / "web") as address:
        yield address, ["--build-arg", f"WEB={address}"]


def check_error(done: Done, expected: dict[str, Any]) -> None:
    """Compare what was printed."""
    assert expected["message"] in done.err
    assert "Traceback" not in done.err
    if "line" in expected:
        assert f"{expected['line']:>4} | >>>" in done.err


def check_image(image: Flat, done: Done, expected: dict[str, Any]) -> None:
    """Compare what *expected* says of an image with *image*; of what it does not say, nothing is asked."""
    config = image.config["config"]
    for key, value in expected.get("config", {}).items():
        assert config.get(key) == value, key
    for part, members in ((image.config, "top"), (image.manifest, "manifest")):
        for key, value in expected.get(members, {}).items():
            assert part.get(key) == value, key
    if "media" in expected:
        types = [layer["mediaType"] for layer in image.manifest["layers"] or []]
        assert [text.removeprefix("application/vnd.oci.image.layer.v1.") for text in types] == expected["media"]
    if "history" in expected:
        written = image.config.get("history") or []
        entries = [[entry.get("created_by", ""), bool(entry.get("empty_layer"))] for entry in written]
        assert entries[len(entries) - len(expected["history"]) :] == expected["history"]
    if "layers" in expected:
        assert image.layers == expected["layers"]
        assert len(image.config["rootfs"]["diff_ids"] or []) == expected["layers"]
    if "tree" in expected:
        found = {
            path: {key: image.tree.get(path, {}).get(key) for key in members}
            for path, members in expected["tree"].items()
        }
        assert found == expected["tree"]
        if expected.get("whole", True):
            assert sorted(image.tree) == sorted(expected["tree"])
    if "last" in expected:
        assert sorted(image.last) == sorted(expected["last"])
        for name, members in expected["last"].items():
            assert {key: image.last[name].get(key) for key in members} == members, name
    if "diff" in expected:
        assert image.config["rootfs"]["diff_ids"][-1] == expected["diff"]
    for part in (*expected.get("warnings", ()), *expected.get("printed", ())):
        assert part in done.err
    for part in expected.get("unprinted", ()):
        assert part not in done.err


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
