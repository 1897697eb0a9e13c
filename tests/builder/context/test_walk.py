"""Reading a source root."""

from __future__ import annotations

import os
import subprocess

import pytest

from builder.context.ignore import compile_patterns
from builder.context.walk import Filter, Opener, SourceTree, find, walk
from builder.errors import ContextError
from tests.fakes.context import make_tree, source_root

TREE = {"a-b": b"", "a/b": b"1", "a/c/d": b"22", "a.txt": b"", "z": "a/b", "empty": None}


def _paths(found):
    return [item.path for item in found]


def test_walk_lists_directories_before_contents_and_names_in_byte_order(tmp_path):
    """The order is that of a layer: `a`, what is in it, then `a-b`... by name, not by the bytes of whole paths."""
    make_tree(tmp_path, TREE)

    with source_root(tmp_path) as root:
        assert _paths(walk(root, b"")) == [b"a", b"a/b", b"a/c", b"a/c/d", b"a-b", b"a.txt", b"empty", b"z"]
        assert _paths(walk(root, b"a")) == [b"a/b", b"a/c", b"a/c/d"]


def test_walk_keeps_links_as_they_are(tmp_path):
    """A symbolic link is listed with its text and not followed."""
    make_tree(tmp_path, {"l": "/etc", "dangling": "no/where"})

    with source_root(tmp_path) as root:
        assert [item.linkname for item in walk(root, b"")] == [b"no/where", b"/etc"]


def test_walk_lists_an_ignored_directory_only_for_what_is_kept_below(tmp_path):
    """Re-included files bring the directories above them along, others are not listed."""
    make_tree(tmp_path, {"d/x/keep": b"", "d/x/drop": b"", "d/y/drop": b"", "e/drop": b"", "f": b""})

    with source_root(tmp_path, ignore="d\ne\n!d/x/keep\n") as root:
        assert _paths(walk(root, b"")) == [b"d", b"d/x", b"d/x/keep", b"f"]


def test_walk_does_not_enter_directories_without_selected_files(tmp_path):
    """An ignored directory that cannot be read is no error."""
    make_tree(tmp_path, {"secret/x": b"", "f": b""})
    entered = []
    with source_root(tmp_path, ignore="secret") as root:
        os.rename(tmp_path / "secret/x", tmp_path / "secret/y")
        entered = _paths(walk(root, b""))

    assert entered == [b"f"]


def test_walk_applies_filters_relative_to_their_directory(tmp_path):
    """`--exclude` counts from the directory that is copied."""
    make_tree(tmp_path, {"a/x.txt": b"", "a/b/x.txt": b"", "a/y": b""})

    with source_root(tmp_path) as root:
        found = _paths(walk(root, b"a", filters=[Filter(compile_patterns(["*.txt"]), 2)]))

    assert found == [b"a/b", b"a/b/x.txt", b"a/y"]


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an unprivileged user, root reads everything")
def test_unreadable_directory_is_an_error_that_names_it(tmp_path):
    """A selected directory that cannot be read stops the build with its name."""
    make_tree(tmp_path, {"a/locked/x": b""})
    (tmp_path / "a/locked").chmod(0)
    try:
        with source_root(tmp_path) as root, pytest.raises(ContextError, match="permission denied: `/a/locked`"):
            list(walk(root, b""))
        with source_root(tmp_path, ignore="a/locked") as root:
            assert _paths(walk(root, b"")) == [b"a"]
    finally:
        (tmp_path / "a/locked").chmod(0o700)


def test_walk_takes_very_deep_trees(tmp_path):
    """Depth is no matter of recursion or of the length of a path."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=fd)
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)

    try:
        with source_root(tmp_path) as root:
            assert len(list(walk(root, b""))) == 1200
    finally:  # what clears temporary folders recurses, and would fail
        subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_find_does_not_leave_the_root(tmp_path):
    """A link on the way is followed inside the root only."""
    make_tree(tmp_path, {"out/secret": b"", "context/up": "../out", "context/abs": f"{tmp_path}/out"})

    with source_root(tmp_path / "context") as root:
        assert find(root, b"up/secret") is None
        assert find(root, b"abs/secret") is None


def test_tree_hides_ignored_paths(tmp_path):
    """What is ignored is not there."""
    make_tree(tmp_path, {"a/b": b"", "c": b""})

    with source_root(tmp_path, ignore="x\na\n") as root:
        tree = SourceTree(root)
        assert tree.find(b"a/b") is None
        assert [entry.path for entry in tree.children(b"")] == [b"c"]


@pytest.mark.parametrize("change", ["content", "replaced", "gone", "link", "mode"])
def test_opener_refuses_a_file_that_changed(tmp_path, change):
    """A file that is not the one that was selected is never read."""
    make_tree(tmp_path, {"d/f": b"abc", "g": b"abc"})
    path = tmp_path / "d/f"
    with source_root(tmp_path) as root:
        found = find(root, b"d/f")
        match change:
            case "content":
                path.write_bytes(b"abcd")
            case "replaced":
                os.rename(tmp_path / "g", path)
            case "gone":
                path.unlink()
            case "link":
                path.unlink()
                path.symlink_to("../g")
            case "mode":
                path.chmod(0o600)
        with Opener(root) as opener, pytest.raises(ContextError, match=r"file changed during the build.*`/d/f`"):
            opener.open(found)
