"""The index of layer trees against the rules of image-spec, layer.md."""

import contextlib

import pytest

from builder.cache.state import State
from builder.image.layer_index import LayerIndex, TreeRows
from registry.oci.digest import digest_of
from runtime.layers.entry import Entry, EntryKind


def folder(path: bytes, mode: int = 0o755) -> Entry:
    """Make a directory entry."""
    return Entry(path=path, kind=EntryKind.DIRECTORY, mode=mode, uid=0, gid=0, mtime=0)


def file(path: bytes, uid: int = 0) -> Entry:
    """Make a file entry."""
    return Entry(path=path, kind=EntryKind.FILE, mode=0o644, uid=uid, gid=0, mtime=0)


@pytest.fixture
def tree(tmp_path):
    """Give a function that indexes layers, base first, and returns their tree."""
    state = State(tmp_path / "state.db")
    index = LayerIndex(state)

    def make(*layers):
        names = []
        for number, entries in enumerate(layers):
            names.append(digest_of(str(number).encode()))
            index.put(names[-1], entries)
        return index.tree(names, lambda path: b"content of " + path)

    yield make
    state.close()


def names(tree, path: bytes) -> list[bytes]:
    """List the children of a directory."""
    return [entry.path for entry in tree.children(path)]


def test_upper_layer_wins(tree):
    """A file of a later layer replaces the one below, and its directory takes the later metadata."""
    found = tree([folder(b"d", 0o700), file(b"d/f", 1)], [folder(b"d", 0o711), file(b"d/f", 2), file(b"d/g")])

    assert found.find(b"d").mode == 0o711
    assert found.find(b"d/f").uid == 2
    assert names(found, b"d") == [b"d/f", b"d/g"]


def test_whiteout_hides_what_lies_below(tree):
    """A deleted directory is gone with all it held; what comes later is there again."""
    found = tree([folder(b"d"), file(b"d/f"), file(b"e")], [file(b".wh.d")], [folder(b"d"), file(b"d/new")])

    assert found.find(b"d/f") is None
    assert names(found, b"d") == [b"d/new"]
    assert names(found, b"") == [b"d", b"e"]


def test_opaque_directory_hides_its_former_content(tree):
    """A directory marked opaque holds only what its layer and later ones put there."""
    found = tree([folder(b"d"), file(b"d/old")], [folder(b"d"), file(b"d/.wh..wh..opq"), file(b"d/new")])

    assert found.find(b"d/old") is None
    assert names(found, b"d") == [b"d/new"]


def test_file_over_a_directory_hides_its_content(tree):
    """A file that replaces a directory leaves nothing of it to be found."""
    found = tree([folder(b"d"), file(b"d/f")], [file(b"d")])

    assert found.find(b"d/f") is None
    assert names(found, b"d") == []


def test_parent_without_an_entry_takes_what_the_layer_below_says(tree):
    """A layer may leave parents out: they exist, with the metadata of a lower layer or the default."""
    found = tree([folder(b"a", 0o700)], [file(b"a/b/c")])

    assert found.find(b"a").mode == 0o700
    assert found.find(b"a/b").kind is EntryKind.DIRECTORY
    assert names(found, b"a") == [b"a/b"]


def test_replacement_in_one_layer_does_not_show_the_old_content(tree):
    """A whiteout and an entry of the same name in one layer mean a new directory, in either order."""
    found = tree([folder(b"d"), file(b"d/old")], [file(b".wh.d"), folder(b"d"), file(b"d/new")])
    other = tree([folder(b"d"), file(b"d/old")], [folder(b"d"), file(b"d/new"), file(b".wh.d")])

    assert names(found, b"d") == names(other, b"d") == [b"d/new"]
    assert found.find(b"d/old") is None


def test_content_is_read_of_files_only(tree):
    """Reading asks for a file that is there."""
    found = tree([folder(b"etc"), file(b"etc/passwd")])

    assert found.read(b"etc/passwd") == b"content of etc/passwd"
    assert found.read(b"etc") is None
    assert found.read(b"etc/group") is None


def rows_of(state, diff_id):
    """Read what the index has of a layer."""
    with state.reading() as connection:
        return sorted(
            connection.execute(
                "SELECT folder, names FROM tree JOIN layer ON layer.id = tree.layer WHERE diff_id = ?", (diff_id,)
            ).fetchall()
        )


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [folder(b""), file(b"a")],
        [folder(b"a"), folder(b"a/b"), file(b"a/b/c"), file(b"a/d"), file(b"a-b"), folder(b"e"), folder(b"e/\xff")],
    ],
    ids=["nothing", "root", "nested"],
)
def test_tree_that_is_taken_in_row_by_row_is_the_same(tmp_path, entries):
    """Entries in the order of the tar need not be all at hand."""
    with contextlib.closing(State(tmp_path / "state.db")) as state:
        index, rows = LayerIndex(state), TreeRows(tmp_path)
        for entry in entries:
            rows.add(entry)
        index.put(digest_of(b"whole"), entries)
        index.put_rows(digest_of(b"rows"), rows)

        assert rows_of(state, digest_of(b"rows")) == rows_of(state, digest_of(b"whole"))
