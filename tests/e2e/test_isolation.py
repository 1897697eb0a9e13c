"""What a place allows, as `pybuild doctor` tells it and as `--isolation` takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.command import Pybuild

STEP = "FROM busybox\nRUN id -u > /id\n"


@pytest.mark.userns
def test_doctor_names_the_isolation_that_a_build_gets(pybuild_of_each: Pybuild) -> None:
    """One screen that ends well; as JSON every finding has the same members."""
    done = pybuild_of_each("doctor")
    document = json.loads(pybuild_of_each("doctor", "--json").out)

    assert f" isolation          {document['isolation']}: user namespaces with" in done.out
    assert f" snapshots          by {document['snapshots']}\n" in done.out
    assert len(done.lines) < 30
    assert max(len(line) for line in done.lines[:16]) <= 80
    assert all(set(finding) == {"name", "state", "text", "fix"} for finding in document["findings"])
    assert [rung["name"] for rung in document["rungs"]] == ["subids", "single-id", "chroot", "none"]


@pytest.mark.userns
def test_who_has_no_sub_ids_is_told_how_to_get_some(pybuild_of_each: Pybuild) -> None:
    """The line can be pasted, and is there for who has none alone."""
    account = pybuild_of_each.account
    document = json.loads(pybuild_of_each("doctor", "--json").out)
    has_sub_ids = (
        account.uid == 0 or account.name in Path("/etc/subuid").read_text(encoding="utf-8").replace(":", "\n").split()
    )
    fix = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {account.name}"

    assert document["isolation"] == ("subids" if has_sub_ids else "single-id")
    assert document["rungs"][0]["fix"] == (None if has_sub_ids else fix)


@pytest.mark.userns
@pytest.mark.parametrize("name", ["subids", "single-id"])
def test_isolation_is_taken_by_name(with_busybox: Pybuild, name: str) -> None:
    """Both kinds of user namespaces run steps."""
    with_busybox("build", "--isolation", name, "--no-cache", with_busybox.context({"Dockerfile": STEP}))


@pytest.mark.userns
def test_isolation_that_cannot_be_had_is_refused_with_its_reason(with_busybox: Pybuild) -> None:
    """No other one is taken instead, and the status is 4."""
    context = with_busybox.context({"Dockerfile": STEP})
    done = with_busybox("build", "--isolation", "chroot", "--no-cache", context, status=4)
    variable = replace(with_busybox, variables={"PYBUILD_ISOLATION": "chroot"})

    assert "the isolation `chroot`: the user is not uid 0" in done.err
    assert "`pybuild doctor`" in done.err
    assert variable("build", "--no-cache", context, status=4).err.splitlines()[-3:] == done.err.splitlines()[-3:]
    assert "unknown isolation: `jail`" in with_busybox("build", "--isolation", "jail", context, status=2).err


@pytest.mark.userns
def test_isolation_none_builds_what_needs_no_step(with_busybox: Pybuild) -> None:
    """COPY and metadata on a base need no rights; a RUN is refused before anything runs."""
    files = {"Dockerfile": "FROM busybox\nCOPY a /a\nENV b=c\n", "a": "1"}
    with_busybox("build", "--isolation", "none", "--tag", "copied", with_busybox.context(files))
    done = with_busybox(
        "build", "--isolation", "none", "--no-cache", with_busybox.context({"Dockerfile": STEP}), status=4
    )

    assert json.loads(with_busybox("inspect", "copied").out)[0]["Config"]["Env"][-1] == "b=c"
    assert "isolation `none` runs no steps" in done.err
