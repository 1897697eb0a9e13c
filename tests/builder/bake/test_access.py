"""Tests of builder.bake.access."""

from __future__ import annotations

import pytest

from builder.bake.access import Grants, Wish, check_access, parse_grants
from builder.bake.definition import Place, read_target
from builder.errors import BakeError, UsageError


@pytest.fixture
def project(tmp_path):
    """A project with a link out of it, beside a folder of others."""
    (tmp_path / "project").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "project" / "link").symlink_to("../other")
    return tmp_path / "project"


def _check(project, fields, grants=(), named=(), **settings):
    target = read_target("a", fields, Place("f"))
    check_access(
        [target],
        parse_grants(grants),
        cwd=project,
        named=named,
        is_address=lambda text: text.startswith("https://"),
        **settings,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"context": "sub/../sub", "contexts": {"x": "target:b", "y": "docker-image://z", "z": "https://x.org/a.git"}},
        {"context": "https://x.org/a.git", "dockerfile": "../../D"},
        {"secret": ["id=a,src=a.txt", "id=b,env=B", "id=c"], "output": ["out", "type=image", "type=tar,dest=-"]},
        {"dockerfile": "../../other/D", "dockerfile-inline": "FROM scratch"},
    ],
)
def test_access_within_the_project_needs_no_grant(project, fields):
    """Files of the project, and what is elsewhere than on this machine, are free."""
    _check(project, fields)


@pytest.mark.parametrize(
    ("fields", "wish", "grant"),
    [
        ({"context": ".."}, "read `{}`", "fs.read={}"),
        ({"context": "link"}, "read `{}/other`", "fs.read={}/other"),
        ({"dockerfile": "../D"}, "read `{}/D`", "fs.read={}"),
        ({"contexts": {"x": "../other"}}, "read `{}/other`", "fs={}/other"),
        ({"contexts": {"x": "oci-layout://../other@sha256:00"}}, "read `{}/other`", "fs={}/other"),
        ({"secret": ["id=a,src=../a"]}, "read `{}/a`", "fs.read={}/a"),
        ({"secret": ["id=../a"]}, "read `{}/a`", "fs.read=*"),
        ({"ssh": ["k=../a,link/b"]}, "read `{}/a`", "fs.read={}"),
        ({"ssh": ["default"]}, "use your ssh agent", "ssh"),
        ({"output": ["../out"]}, "write `{}/out`", "fs.write={}"),
        ({"output": ["type=oci,dest=link/a.tar"]}, "write `{}/other/a.tar`", "fs={}"),
        ({"cache-to": ["type=local,dest=../c"]}, "write `{}/c`", "fs.write=*"),
        ({"cache-from": ["type=local,src=../c"]}, "read `{}/c`", "fs.read={}/c"),
        ({"entitlements": ["network.host"]}, "allow steps network.host", "network.host"),
        ({"entitlements": ["security.insecure"]}, "allow steps security.insecure", "security.insecure"),
    ],
)
def test_access_beyond_the_project_needs_a_grant(project, fields, wish, grant):
    """What lies elsewhere, also by a link, is refused with the grant to give, and free with it."""
    above = project.parent

    with pytest.raises(BakeError) as caught:
        _check(project, fields)

    assert wish.format(above) in caught.value.message
    assert (caught.value.hint or "").startswith("if you trust the project, add --allow ")
    _check(project, fields, [grant.format(above)])


def test_access_that_the_command_line_names_is_granted(project):
    """What `--set` says is no wish of the file; another path is."""
    _check(project, {"context": ".."}, named=[Wish("read", ".."), Wish("read", "../Dockerfile")])
    with pytest.raises(BakeError):
        _check(project, {"context": ".."}, named=[Wish("read", "../other")])


def test_access_to_files_may_be_left_unchecked_but_not_entitlements(project):
    """The variable of buildx that switches the check off is for files alone."""
    _check(project, {"context": "..", "ssh": ["default"]}, checks_files=False)
    with pytest.raises(BakeError, match=r"network\.host"):
        _check(project, {"entitlements": ["network.host"]}, checks_files=False)


def test_access_that_lacks_is_told_all_at_once(project):
    """One message names everything, so that the command has to be written once more only."""
    with pytest.raises(BakeError) as caught:
        _check(project, {"context": "../other", "output": ["../o p"], "ssh": ["default"]})

    above = project.parent
    assert caught.value.hint == (
        f"if you trust the project, add --allow fs.read={above}/other --allow ssh --allow 'fs.write={above}/o p'"
    )


def test_grants_are_told_apart():
    """Files, the agent and entitlements are separate; those of images are taken and mean nothing."""
    assert parse_grants(["fs=a", "fs.read=b", "ssh", "image.push=*", "device=v.com/c=x"]) == Grants(
        read=("a", "b"), write=("a",), ssh=True, entitlements=("device=v.com/c=x",)
    )
    with pytest.raises(UsageError, match="a path is missing"):
        parse_grants(["fs.read"])
