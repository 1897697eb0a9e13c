"""Addresses of repositories, and git kept in bounds."""

import os
from pathlib import Path

import pytest

from builder.context.git import Git, GitSource, is_git_url, parse_git_url
from builder.errors import BuildError, ContextError, SourceError
from builder.request import SshSource
from tests.fakes.git_repository import Repository

ENVIRON = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/x.git", True),
        ("http://h/x.git#main:sub", True),
        ("https://h/x.git?ref=v1", True),
        ("https://h/x.tar.gz", False),
        ("https://h/x.git/file", False),
        ("git@h:o/x.git", True),
        ("ssh://git@h/x", True),
        ("git://h/x", True),
        ("folder/x.git", False),
        ("./a", False),
    ],
)
def test_git_address_is_told_from_others(text, expected):
    """Over HTTP only a path that ends in .git is a repository."""
    assert is_git_url(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/x.git", GitSource("https://h/x.git")),
        ("https://h/x.git#main:a/b", GitSource("https://h/x.git", ref="main", subdir="a/b")),
        ("https://h/x.git#:a", GitSource("https://h/x.git", subdir="a")),
        ("https://h/x.git?tag=v1&subdir=/a/", GitSource("https://h/x.git", ref="refs/tags/v1", subdir="a")),
        ("https://h/x.git?branch=b", GitSource("https://h/x.git", ref="refs/heads/b")),
        ("https://h/x.git?commit=abcdef1", GitSource("https://h/x.git", commit="abcdef1")),
        ("https://h/x.git?keep-git-dir", GitSource("https://h/x.git", keep_git_dir=True)),
        ("https://h/x.git?submodules=false", GitSource("https://h/x.git", submodules=False)),
        ("git@h:o/x.git#v1", GitSource("git@h:o/x.git", ref="v1")),
        ("github.com/o/x#v1", GitSource("https://github.com/o/x", ref="v1")),
    ],
)
def test_fragment_and_query_are_read(text, expected):
    """Both forms say the same things."""
    assert parse_git_url(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://h/x.git?ref=a#b", "ref conflicts"),
        ("https://h/x.git?tag=a&branch=b", "ref conflicts"),
        ("https://h/x.git?wat=1", 'unexpected query "wat"'),
        ("https://h/x.git?ref=a&ref=b", 'query "ref" has multiple values'),
        ("https://h/x.git?ref=", 'query "ref" has no value'),
        ("https://h/x.git?commit=xyz", "invalid commit"),
        ("https://h/x.git?mtime=never", 'invalid value of query "mtime"'),
        ("https://h/x.git#--upload-pack=touch", "invalid git ref"),
        ("https://h/x.git?ref=-x", "invalid git ref"),
        ("https://h/x.git#a..b", "invalid git ref"),
    ],
)
def test_wrong_address_is_refused(text, message):
    """Before git is started."""
    with pytest.raises(ContextError, match=message):
        parse_git_url(text)


@pytest.fixture
def repository(tmp_path):
    """Give a repository with one commit."""
    made = Repository(tmp_path / "repository")
    made.commit({"a": "one"})
    return made


@pytest.fixture
def git(tmp_path):
    """Give a git that may read folders, which only tests allow."""
    (tmp_path / "work").mkdir()
    return Git(tmp_path / "work", ENVIRON, protocols=("file",))


def test_folders_are_no_repositories_for_a_build(repository, tmp_path):
    """The file protocol is closed unless somebody opens it in code."""
    with pytest.raises(SourceError, match="transport 'file' not allowed"):
        Git(tmp_path, ENVIRON).checkout(parse_git_url(f"file://{repository.folder}"))


def test_short_commit_is_found_in_the_whole_history(git, repository):
    """Only `commit=` may be cut short."""
    first = repository.git("rev-parse", "HEAD")
    repository.commit({"a": "two"})
    found = git.checkout(parse_git_url(f"file://{repository.folder}?commit={first[:9]}"))

    assert found.commit == first
    assert (found.top / "a").read_text() == "one"
    with pytest.raises(SourceError, match="does not contain ref"):
        git.resolve(parse_git_url(f"file://{repository.folder}?ref={first[:9]}"))


def test_branch_wins_over_a_tag_and_a_tag_is_its_commit(git, repository):
    """As git checkout has it."""
    first = repository.git("rev-parse", "HEAD")
    repository.git("tag", "-a", "-m", "x", "both")
    repository.git("tag", "-a", "-m", "x", "only")
    second = repository.commit({"a": "two"})
    repository.git("branch", "both")
    url = f"file://{repository.folder}"

    assert git.resolve(parse_git_url(f"{url}#both")) == second
    assert git.resolve(parse_git_url(f"{url}#only")) == first


def test_hooks_filters_and_configuration_of_others_do_not_run(git, repository, tmp_path):
    """A repository brings attributes, but no program that they could start."""
    repository.commit({".gitattributes": "* filter=evil\n", "b": "x"})
    marker = tmp_path / "marker"
    for name in ("post-checkout", "post-merge"):
        hook = repository.folder / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
        hook.chmod(0o755)
    top = git.checkout(parse_git_url(f"file://{repository.folder}")).top

    assert not marker.exists()
    assert sorted(os.listdir(top)) == [".gitattributes", "a", "b"]


def test_submodule_over_the_file_protocol_is_refused(git, repository, tmp_path):
    """What a repository names may not read folders of this machine, even where the repository itself may."""
    other = Repository(tmp_path / "other")
    other.commit({"secret": "x"})
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", f"file://{other.folder}", "m")
    repository.commit({})

    with pytest.raises(SourceError, match="cannot fetch from git"):
        git.checkout(parse_git_url(f"file://{repository.folder}"))
    top = git.checkout(parse_git_url(f"file://{repository.folder}?submodules=false")).top
    assert os.listdir(top / "m") == []


def test_time_of_the_commit_can_be_that_of_the_files(git, repository):
    """`mtime=commit` makes checkouts alike."""
    top = git.checkout(parse_git_url(f"file://{repository.folder}?mtime=commit")).top

    assert (top / "a").stat().st_mtime == repository.time


def test_missing_reference_is_named(git, repository):
    """And the address without what may be secret."""
    with pytest.raises(BuildError, match="repository does not contain ref nothing: `file://"):
        git.checkout(parse_git_url(f"file://{repository.folder}#nothing"))


@pytest.fixture
def ssh(tmp_path):
    """Give a folder whose `ssh` notes its words and agent, and runs the command here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(
        f'#!/bin/sh\necho "$SSH_AUTH_SOCK $*" >> {folder}/log\nfor last; do :; done\n'
        f'[ -e {folder}/says ] && cat {folder}/says >&2 && exit 255\nexec sh -c "$last"\n'
    )
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, "/agent -o BatchMode=yes "),
        (SshSource("default", socket=Path("/other agent")), "/other agent -o BatchMode=yes "),
        (
            SshSource("default", keys=(Path("/k 1"), Path("/k2"))),
            "/agent -o BatchMode=yes -o IdentitiesOnly=yes -i /k 1 -i /k2 ",
        ),
    ],
    ids=["nothing", "socket", "keys"],
)
def test_ssh_uses_what_the_build_was_given(repository, ssh, tmp_path, source, expected):
    """`--ssh default` names the agent or the keys; without it ssh finds them by itself."""
    environ = {"PATH": f"{ssh}:{ENVIRON['PATH']}", "SSH_AUTH_SOCK": "/agent"}
    git = Git(tmp_path, environ, ssh=source)
    found = git.checkout(parse_git_url(f"git@example.com:{repository.folder}"))

    assert (found.top / "a").read_text() == "one"
    lines = (ssh / "log").read_text().splitlines()
    assert all(line.startswith(expected) and " git@example.com git-upload-pack " in line for line in lines)


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ("Host key verification failed.", "the key of the host is not known to ssh", "known_hosts"),
        ("git@h: Permission denied (publickey).", "the host takes no key of yours", "--ssh default=FILE"),
        ("ssh: Could not resolve hostname h", "Could not resolve hostname h", ""),
    ],
)
def test_failure_of_ssh_is_told_instead_of_that_of_git(ssh, tmp_path, said, message, hint):
    """Git says that it could not read, ssh says why."""
    (ssh / "says").write_text(f"{said}\n")
    with pytest.raises(SourceError, match=message) as raised:
        Git(tmp_path, {"PATH": f"{ssh}:{ENVIRON['PATH']}"}).resolve(parse_git_url("git@h:o/x.git"))

    assert hint in (raised.value.hint or "")
