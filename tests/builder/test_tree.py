"""Trees: links followed inside, entries put on top."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import CopyError
from builder.tree import EmptyTree, OverlayTree, resolve
from runtime.layers.entry import EntryKind
from tests.fakes.tree import DictTree, directory, file, symlink

LINKED = DictTree(
    symlink(b"abs", b"/usr/lib"),
    symlink(b"usr/rel", b"lib/../share/"),
    symlink(b"up", b"../../.."),
    symlink(b"chain", b"abs/x"),
    symlink(b"loop", b"./loop"),
    directory(b"usr/lib"),
)


@pytest.mark.parametrize(
    ("path", "follow_last", "expected"),
    [
        (b"", True, b""),
        (b"/", True, b""),
        (b"a//./b/", True, b"a/b"),
        (b"/../../a", True, b"a"),
        (b"abs", True, b"usr/lib"),
        (b"abs", False, b"abs"),
        (b"abs/x", False, b"usr/lib/x"),
        (b"abs/..", True, b"usr"),
        (b"usr/rel/y", True, b"usr/share/y"),
        (b"up/etc", True, b"etc"),
        (b"chain/y", True, b"usr/lib/x/y"),
        (b"no/such/../x", True, b"no/x"),
    ],
)
def test_resolve_follows_links_inside_the_tree(path, follow_last, expected):
    """Relative, absolute, chained and climbing links end where chroot would let them end."""
    assert resolve(LINKED, path, follow_last=follow_last) == expected


def test_resolve_ends_in_loops():
    """More than forty links are an error that names the path."""
    with pytest.raises(CopyError, match="too many levels of symbolic links: `/loop/x`"):
        resolve(LINKED, b"loop/x", follow_last=True)


_NAMES = st.sampled_from([b"a", b"b", b"..", b"."])
_PATHS = st.lists(_NAMES, max_size=4).map(b"/".join)


@given(st.dictionaries(st.sampled_from([b"a", b"b", b"a/b"]), _PATHS.filter(bool), max_size=3), _PATHS)
def test_resolve_gives_a_path_without_links(links, path):
    """A resolved path is clean and holds no link, so that resolving it again changes nothing."""
    tree = DictTree(*(symlink(name, text) for name, text in links.items()))
    try:
        resolved = resolve(tree, path, follow_last=True)
    except CopyError:
        return

    assert resolved == os.path.normpath(b"/" + resolved).lstrip(b"/")
    assert resolve(tree, resolved, follow_last=True) == resolved


def test_overlay_shows_added_entries_over_those_below():
    """A directory merges, a file hides what was below its path, and what a new directory covers stays hidden."""
    below = DictTree(file(b"d/x"), file(b"e/y"), file(b"f"), contents={b"etc/passwd": b"root"})
    tree = OverlayTree(below)
    tree.add(directory(b"d", 0o700))
    tree.add(file(b"e"))
    tree.add(directory(b"f"))
    tree.add(file(b"d/new"))

    assert tree.find(b"d").mode == 0o700
    assert tree.find(b"d/x") is not None
    assert tree.find(b"e/y") is None
    assert [entry.path for entry in tree.children(b"d")] == [b"d/x", b"d/new"]
    assert list(tree.children(b"f")) == []
    assert tree.read(b"etc/passwd") == b"root"
    tree.add(file(b"etc/passwd"))
    assert tree.read(b"etc/passwd") is None


def test_overlay_forgets_what_was_added_below_a_replaced_directory():
    """A file put over an added directory takes its contents away."""
    tree = OverlayTree(EmptyTree())
    tree.add(directory(b"d"))
    tree.add(file(b"d/x"))
    tree.add(file(b"d"))

    assert tree.find(b"d/x") is None
    assert tree.find(b"d").kind is EntryKind.FILE
    assert list(tree.children(b"")) == [tree.find(b"d")]


def test_empty_tree_has_a_root_and_nothing_else():
    """The tree of scratch."""
    tree = EmptyTree()

    assert tree.find(b"").kind is EntryKind.DIRECTORY
    assert tree.find(b"etc") is None
    assert list(tree.children(b"")) == []
    assert tree.read(b"etc/passwd") is None
