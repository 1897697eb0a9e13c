"""Placing what COPY copies: the cases C1 to C33 as far as entries of a layer go."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.context.select import InlineFile, Selection, select_sources
from builder.errors import ContextError, CopyError
from builder.plan.image_state import destination_path
from builder.plan.mode import Mode
from builder.solve.ops.place import Placement, encode_destination, place_copy, write_entries
from builder.tree import EmptyTree
from runtime.layers.archive import ArchiveWriter
from runtime.layers.entry import EntryKind
from tests.fakes.context import make_tree, source_root
from tests.fakes.tree import DictTree, directory, file, symlink

NOW = 1_700_000_000
OLD = 1_000_000_000


@pytest.fixture
def folder(tmp_path):
    """Give a context whose files have modes and times of their own."""
    path = tmp_path / "context"
    path.mkdir()
    make_tree(path, {"a": b"A", "b": b"BB", "d/x": b"x", "d/sub/y": b"yy", "d/l": "no/where", "e": None})
    (path / "d").chmod(0o700)
    (path / "d/sub").chmod(0o700)
    (path / "a").chmod(0o4755)
    for name in ("a", "b", "d/x", "d/sub/y", "d/sub", "d", "e"):
        os.utime(path / name, (OLD + 0.7, OLD + 0.7))
    return path


def _copy(
    folder, arguments, destination, tree=None, *, chown=None, chmod=None, keep_owner=False, workdir="/", **options
):
    with source_root(folder, keep_owner=keep_owner) as root:
        selection = Selection(root=root, sources=select_sources(root, arguments, **options))
        placed = place_copy(
            selection,
            tree if tree is not None else DictTree(),
            encode_destination(destination_path(destination, workdir)),
            owner=chown,
            mode=Mode(chmod) if chmod else None,
            now=NOW,
        )
        return list(placed)


def _paths(placed):
    return [one.entry.path.decode() for one in placed]


def _entry(placed, path):
    return next(one.entry for one in placed if one.entry.path == path)


@pytest.mark.parametrize(
    ("arguments", "destination", "tree", "expected"),
    [
        pytest.param(["d"], "/out/x/", [], ["out", "out/x", "out/x/l", "out/x/sub", "out/x/sub/y", "out/x/x"], id="C1"),
        pytest.param(["a"], "/dir/", [], ["dir", "dir/a"], id="C2-directory"),
        pytest.param(["a"], "/name", [], ["name"], id="C2-name"),
        pytest.param(["a"], "/dir", [directory(b"dir")], ["dir", "dir/a"], id="C3"),
        pytest.param(["a"], "/d/e/f/n", [], ["d", "d/e", "d/e/f", "d/e/f/n"], id="C5"),
        pytest.param(["a"], "/", [], ["a"], id="root"),
        pytest.param(["nope*"], "/out/", [], [], id="C11"),
        pytest.param(["e"], "/out", [], ["out"], id="empty directory"),
        pytest.param(["a", "b"], "/o/", [], ["o", "o/a", "o/b"], id="several"),
        pytest.param(["d", "b"], "/o", [], ["o", "o/b", "o/l", "o/sub", "o/sub/y", "o/x"], id="directory first"),
    ],
)
def test_copy_places(folder, arguments, destination, tree, expected):
    """Where things land depends on slashes, on what exists, and on what is copied."""
    assert _paths(_copy(folder, arguments, destination, DictTree(*tree))) == expected


@pytest.mark.parametrize(
    ("text", "workdir", "expected"),
    [
        ("", "/app", b"/app/"),
        (".", "/app", b"/app/."),
        ("./", "/app", b"/app/./"),
        ("x", "/app", b"/app/x"),
        ("x/", "/app", b"/app/x/"),
        ("/x", "/app", b"/x"),
        ("../x", "/app", b"/app/../x"),
        ("/", "/app", b"/"),
    ],
)
def test_destination_is_below_the_working_directory(text, workdir, expected):
    """C4: relative destinations, the empty one and the dot."""
    path = encode_destination(destination_path(text, workdir))

    assert os.path.normpath(path) == os.path.normpath(expected)
    assert path.endswith(b"/") is (expected.endswith((b"/", b"/.")))


def test_dot_destination_makes_the_working_directory(folder):
    """A dot names a directory, also one that does not exist yet."""
    assert _paths(_copy(folder, ["a"], ".", workdir="/app")) == ["app", "app/a"]


def test_files_of_a_context_belong_to_root_and_keep_mode_and_whole_seconds(folder):
    """C6, K1: owner 0:0, mtime without fraction, and no setuid, as in BuildKit without root."""
    entry = _entry(_copy(folder, ["a"], "/a"), b"a")

    assert (entry.uid, entry.gid, entry.mode, entry.mtime) == (0, 0, 0o755, OLD)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_files_of_a_stage_keep_their_owner(folder):
    """C7: the owner counts with --from; a directory made for the copy is root's."""
    os.chown(folder / "d/x", 5, 6)
    os.chown(folder / "d", 7, 7)
    placed = _copy(folder, ["d"], "/out", keep_owner=True)

    assert _entry(placed, b"out/x")[3:5] == (5, 6)
    assert _entry(placed, b"out")[3:5] == (0, 0)


def test_made_top_directory_does_not_take_the_mode_of_the_source(folder):
    """C8: 0755 root with the time of the source; directories below take over everything."""
    placed = _copy(folder, ["d"], "/out")

    assert _entry(placed, b"out")[2:6] == (0o755, 0, 0, OLD)
    assert _entry(placed, b"out/sub")[2:6] == (0o700, 0, 0, OLD)


def test_existing_top_directory_keeps_mode_and_owner_but_one_below_does_not(folder):
    """C9: only the time of the top directory changes; an existing directory below is overwritten."""
    tree = DictTree(directory(b"out", 0o711, 3, 4), directory(b"out/sub", 0o711, 3, 4), file(b"out/sub/stays"))
    placed = _copy(folder, ["d"], "/out", tree)

    assert _entry(placed, b"out")[2:6] == (0o711, 3, 4, OLD)
    assert _entry(placed, b"out/sub")[2:6] == (0o700, 0, 0, OLD)
    assert "out/sub/stays" not in _paths(placed)


def test_parents_stand_in_the_layer_with_their_own_metadata(folder):
    """Existing directories above are written as they are; the one in which something changes has the time of the build."""
    tree = DictTree(directory(b"usr", 0o711, 3, 4, mtime=9), directory(b"usr/lib", 0o1777, 1, 2, mtime=9))
    placed = _copy(folder, ["a"], "/usr/lib/", tree)

    assert _paths(placed) == ["usr", "usr/lib", "usr/lib/a"]
    assert _entry(placed, b"usr")[2:6] == (0o711, 3, 4, 9)
    assert _entry(placed, b"usr/lib")[2:6] == (0o1777, 1, 2, NOW)


def test_links_in_the_destination_are_followed_inside_the_image(folder):
    """C16: relative, absolute and climbing links end inside the root."""
    tree = DictTree(symlink(b"out/l", b"/tmp/x"), symlink(b"up", b"../../../tmp"), symlink(b"f", b"tmp/name"))

    assert _paths(_copy(folder, ["a"], "/out/l/", tree)) == ["tmp", "tmp/x", "tmp/x/a"]
    assert _paths(_copy(folder, ["a"], "/up/", tree)) == ["tmp", "tmp/a"]
    assert _paths(_copy(folder, ["a"], "/f", tree)) == ["tmp", "tmp/name"]


def test_link_with_the_name_of_the_file_in_a_directory_is_replaced(folder):
    """A link is followed as destination, not as a file that is overwritten in a directory."""
    tree = DictTree(symlink(b"dir/a", b"/etc/passwd"))

    assert _paths(_copy(folder, ["a"], "/dir/", tree)) == ["dir", "dir/a"]


def test_loop_in_the_destination_is_an_error(folder):
    """Links of the image that go in circles end."""
    with pytest.raises(CopyError, match="too many levels of symbolic links"):
        _copy(folder, ["a"], "/l/x", DictTree(symlink(b"l", b"l")))


@pytest.mark.parametrize(
    ("arguments", "destination", "tree", "message"),
    [
        pytest.param(
            ["a"], "/o/", [directory(b"o/a")], "cannot replace to directory /o/a with file", id="file over dir"
        ),
        pytest.param(["d"], "/o", [directory(b"o/x")], "cannot replace to directory /o/x with file", id="below"),
        pytest.param(["d"], "/o", [file(b"o")], "cannot copy to non-directory: /o", id="dir over file"),
        pytest.param(["d"], "/o", [file(b"o/sub")], "cannot copy to non-directory: /o/sub", id="dir over file below"),
        pytest.param(
            ["d"], "/o", [symlink(b"o/sub", b"/")], "cannot copy to non-directory: /o/sub", id="dir over link"
        ),
        pytest.param(["a"], "/o/", [file(b"o")], "cannot copy to non-directory: /o", id="slash after a file"),
        pytest.param(["a"], "/o/p/q", [file(b"o")], "cannot copy to non-directory: /o", id="below a file"),
        pytest.param(["a", "b"], "/o", [], "several sources would be written over one another: `/o`", id="C18"),
        pytest.param(["[ab]"], "/o", [], "several sources would be written over one another: `/o`", id="C18 wildcard"),
    ],
)
def test_copy_that_does_not_fit_is_an_error(folder, arguments, destination, tree, message):
    """C17 and C18: nothing is silently lost."""
    with pytest.raises(CopyError, match=message):
        _copy(folder, arguments, destination, DictTree(*tree))


def test_later_source_overwrites_an_earlier_one_in_a_directory(folder):
    """Directories are merged in order."""
    make_tree(folder, {"d2/x": b"later", "d2/n": b""})
    placed = _copy(folder, ["d", "d2"], "/o/")

    assert _paths(placed) == ["o", "o/l", "o/n", "o/sub", "o/sub/y", "o/x"]
    assert _entry(placed, b"o/x").size == 5


def test_hard_links_inside_a_tree_are_preserved(folder):
    """C19, K5, K6: the first name in the order of the tar holds the content, others link to it from the root."""
    os.link(folder / "d/x", folder / "d/a-first")
    os.link(folder / "d/x", folder / "d/sub/z")
    os.link(folder / "d/x", folder / "outside")
    placed = _copy(folder, ["d"], "/o")

    assert _entry(placed, b"o/a-first").kind is EntryKind.FILE
    assert _entry(placed, b"o/x")[1:2] + _entry(placed, b"o/x")[6:8] == (EntryKind.HARDLINK, 0, b"o/a-first")
    assert _entry(placed, b"o/sub/z").linkname == b"o/a-first"


def test_symbolic_links_below_a_directory_are_kept(folder):
    """C14: dangling or not, their text is copied verbatim and chmod leaves them alone."""
    entry = _entry(_copy(folder, ["d"], "/o", chmod="0600"), b"o/l")

    assert (entry.kind, entry.linkname, entry.mode) == (EntryKind.SYMLINK, b"no/where", 0o777)


@pytest.mark.parametrize(
    ("chmod", "file_mode", "sub_mode", "top_mode"),
    [("0640", 0o640, 0o640, 0o640), ("1777", 0o1777, 0o1777, 0o777), ("u=rwX,go=rX", 0o644, 0o755, 0o755)],
)
def test_chmod_applies_to_everything_that_is_copied(folder, chmod, file_mode, sub_mode, top_mode):
    """C21, K2: octal also on made directories, without its upper bits; symbolic leaves those alone."""
    placed = _copy(folder, ["d"], "/o", chmod=chmod)

    assert _entry(placed, b"o/x").mode == file_mode
    assert _entry(placed, b"o/sub").mode == sub_mode
    assert _entry(placed, b"o").mode == top_mode


def test_chown_applies_to_files_and_made_parents(folder):
    """C23: every entry that is made belongs to the owner, existing directories do not."""
    placed = _copy(folder, ["d"], "/p/q", DictTree(directory(b"p")), chown=(5, 6))

    assert {one.entry.path: one.entry[3:5] for one in placed if one.entry.path != b"p"} == dict.fromkeys(
        (b"p/q", b"p/q/l", b"p/q/sub", b"p/q/sub/y", b"p/q/x"), (5, 6)
    )
    assert _entry(placed, b"p")[3:5] == (0, 0)


def test_parents_flag_keeps_directories_with_their_metadata(folder):
    """C26: the directories of the argument come along."""
    placed = _copy(folder, ["d/sub/./y", "d/sub/y"], "/o/", parents=True)

    assert _paths(placed) == ["o", "o/d", "o/d/sub", "o/d/sub/y", "o/y"]
    assert _entry(placed, b"o/d").mode == 0o700


def test_excluding_everything_leaves_an_empty_directory(folder):
    """C27: no error, the destination exists."""
    assert _paths(_copy(folder, ["d"], "/o", excludes=["**"])) == ["o"]


def test_sockets_become_empty_files_and_fifos_stay(folder):
    """C33: what a layer cannot hold is made harmless."""
    with socket.socket(socket.AF_UNIX) as listener:
        os.mkfifo(folder / "e/pipe")
        here = os.open(folder / "e", os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/sock")
        finally:
            os.close(here)
        placed = _copy(folder, ["e"], "/o")

    assert _entry(placed, b"o/pipe").kind is EntryKind.FIFO
    assert (_entry(placed, b"o/sock").kind, _entry(placed, b"o/sock").size) == (EntryKind.FILE, 0)


def test_names_that_mean_deletions_are_refused(folder):
    """K7: a file called .wh.x cannot be told from the deletion of x."""
    make_tree(folder, {"w/.wh.x": b""})

    with pytest.raises(CopyError, match=r"cannot hold a file whose name begins with .wh.: `/o/.wh.x`"):
        _copy(folder, ["w"], "/o")


def test_inline_files_are_placed_with_their_name(folder):
    """A here-document is a file 0644 of the build's time."""
    selection = Selection(
        root=None, sources=(InlineFile(name=b"one", content=b"1\n"), InlineFile(name=b"two", content=b""))
    )
    placed = place_copy(selection, EmptyTree(), b"/o/", owner=None, mode=None, now=NOW)

    assert [(one.entry.path, one.entry.mode, one.entry.mtime, one.content) for one in placed[1:]] == [
        (b"o/one", 0o644, NOW, b"1\n"),
        (b"o/two", 0o644, NOW, b""),
    ]


def test_order_is_that_of_a_walk_also_over_several_sources(folder):
    """Each directory stands directly before its contents, whatever bytes its neighbours begin with."""
    make_tree(folder, {"s/a/1": b"", "s/a-b": b"", "t/a/0": b""})

    assert _paths(_copy(folder, ["s", "t"], "/o")) == ["o", "o/a", "o/a/0", "o/a/1", "o/a-b"]


def _written(folder, placed):
    tar = io.BytesIO()
    with source_root(folder) as root:
        writer = ArchiveWriter(tar.write)
        write_entries(placed, writer, root=root)
        writer.finish()
    return tar.getvalue()


def test_written_layer_holds_the_content(folder):
    """The tar holds what the files hold, and the same twice."""
    make_tree(folder, {"d/large": os.urandom(3 << 20), "d/none": b""})
    placed = _copy(folder, ["d"], "/o")
    data = _written(folder, placed)

    assert hashlib.sha256(data).digest() == hashlib.sha256(_written(folder, placed)).digest()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.extractfile("o/sub/y").read() == b"yy"
        assert tar.extractfile("o/large").read() == (folder / "d/large").read_bytes()
        assert tar.getnames() == ["o", "o/l", "o/large", "o/none", "o/sub", "o/sub/y", "o/x"]


def test_file_that_changes_before_it_is_written_is_named(folder):
    """The layer never holds anything but what the cache key was made of."""
    placed = _copy(folder, ["d"], "/o")
    (folder / "d/x").write_bytes(b"other")

    with pytest.raises(ContextError, match="file changed during the build in the build context: `/d/x`"):
        _written(folder, placed)


def test_capabilities_are_written(folder):
    """K31: security.capability travels with a program."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    try:
        os.setxattr(folder / "a", "security.capability", capability)
    except OSError:
        pytest.skip("needs the right to set file capabilities")
    data = _written(folder, _copy(folder, ["a"], "/a"))

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "SCHILY.xattr.security.capability" in tar.getmember("a").pax_headers


_ARGUMENTS = st.lists(st.sampled_from(["a", "b", "d", "d/sub", "e", "d/[xs]*", "s", "t", "."]), min_size=1, max_size=4)
_DESTINATIONS = st.sampled_from(["/o", "/o/", "/", "/usr/lib/", "/link/x/", "/o/p/q"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(arguments=_ARGUMENTS, destination=_DESTINATIONS, parents=st.booleans())
def test_layer_is_ordered_complete_and_without_duplicates(folder, arguments, destination, parents):
    """Whatever is copied: each path once, in the order of a walk, all directories above present."""
    if not (folder / "s").exists():
        make_tree(folder, {"s/a/1": b"", "s/a-b": b"", "t/a/0": b""})
    tree = DictTree(symlink(b"link", b"usr"), directory(b"usr/lib/a"), file(b"usr/lib/x"))
    try:
        paths = [one.entry.path for one in _copy(folder, arguments, destination, tree, parents=parents)]
    except CopyError:
        return

    assert paths == sorted(set(paths), key=lambda path: path.split(b"/"))
    assert {path.rpartition(b"/")[0] for path in paths} <= {*paths, b""}


def _placed_or_refused(place):
    try:
        return list(place())
    except CopyError as error:
        return error.message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    argument=st.sampled_from(["d", "d/sub", "e", "s", "t", "."]),
    destination=_DESTINATIONS,
    occupied=st.sets(st.sampled_from(["a", "a/0", "x", "sub", "sub/y", "a-b"])),
    parents=st.booleans(),
)
def test_directory_is_placed_entry_by_entry_as_at_once(folder, argument, destination, occupied, parents):
    """What is there already is merged or refused in the same way; hard links are to the same name."""
    if not (folder / "s").exists():
        make_tree(folder, {"s/a/1": b"", "s/a-b": b"", "t/a/0": b"0"})
        (folder / "t/0").hardlink_to(folder / "t/a/0")
        (folder / "s/1").hardlink_to(folder / "s/a/1")
    lying = [directory(b"usr/lib/" + name.encode()) for name in occupied]
    tree = DictTree(symlink(b"link", b"usr"), *lying, *(file(b"o/" + name.encode()) for name in occupied))
    with source_root(folder) as root:
        (source,) = select_sources(root, [argument], parents=parents)

        def make():
            return Placement(tree, owner=None, mode=None, now=NOW, span=None)

        def at_once():
            placement = make()
            placement.copy(source, encode_destination(destination), root=root)
            return placement.take()

        by_entry = _placed_or_refused(lambda: make().copy_directory(source, encode_destination(destination), root=root))
        assert by_entry == _placed_or_refused(at_once)


def test_destination_that_cannot_be_a_path_is_refused():
    """A NUL or a lone surrogate is an error, not a traceback."""
    for text in ("a\0b", "\ud800"):
        with pytest.raises(CopyError, match="destination cannot be a path"):
            encode_destination(destination_path(text, "/"))
