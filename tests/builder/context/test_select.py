"""What the arguments of COPY name."""

from __future__ import annotations

import pytest

from builder.context.select import has_wildcards, select_sources
from builder.errors import ContextError, CopyError
from builder.source import SourceFile, Span
from tests.fakes.context import make_tree, source_root

TREE = {
    "a.txt": b"a",
    "b.txt": b"b",
    ".hidden.txt": b"h",
    "dir/x": b"x",
    "dir/sub/y": b"y",
    "dir/sub/z.txt": b"z",
    "dir2/x": b"x2",
    "empty": None,
    "link": "dir",
    "abs": "/dir/sub",
    "file-link": "dir/x",
    "out": "../../../etc",
    "lit*.c": b"",
    "lita.c": b"",
    "br[ack": b"",
    "with blank": b"",
    "snow☃": b"",
}


@pytest.fixture
def root(tmp_path):
    """Give the tree above as a build context."""
    make_tree(tmp_path, TREE)
    with source_root(tmp_path) as opened:
        yield opened


def _named(selected):
    return [
        (one.name.decode(), one.item.path.decode(), [item.path[one.skip :].decode() for item in one.below])
        for one in selected
    ]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("a.txt", [("a.txt", "a.txt", [])]),
        ("/a.txt", [("a.txt", "a.txt", [])]),
        ("../../a.txt", [("a.txt", "a.txt", [])]),
        ("dir/../a.txt", [("a.txt", "a.txt", [])]),
        ("a.txt/", [("a.txt", "a.txt", [])]),
        ("dir", [("dir", "dir", ["sub", "sub/y", "sub/z.txt", "x"])]),
        ("dir/", [("dir", "dir", ["sub", "sub/y", "sub/z.txt", "x"])]),
        ("./dir/.", [("dir", "dir", ["sub", "sub/y", "sub/z.txt", "x"])]),
        ("empty", [("empty", "empty", [])]),
        ("link", [("link", "dir", ["sub", "sub/y", "sub/z.txt", "x"])]),
        ("link/sub/y", [("y", "dir/sub/y", [])]),
        ("abs/y", [("y", "dir/sub/y", [])]),
        ("file-link", [("file-link", "dir/x", [])]),
        ("*.txt", [(".hidden.txt", ".hidden.txt", []), ("a.txt", "a.txt", []), ("b.txt", "b.txt", [])]),
        ("[a-b].txt", [("a.txt", "a.txt", []), ("b.txt", "b.txt", [])]),
        ("[^a].txt", [("b.txt", "b.txt", [])]),
        ("?.txt", [("a.txt", "a.txt", []), ("b.txt", "b.txt", [])]),
        ("dir*/x", [("x", "dir/x", []), ("x", "dir2/x", [])]),
        ("dir/*", [("sub", "dir/sub", ["y", "z.txt"]), ("x", "dir/x", [])]),
        ("l*k/sub", []),
        ("fil[e]*", [("file-link", "dir/x", [])]),
        ("nope*", []),
        ("no/such/*", []),
        ("lit*.c", [("lit*.c", "lit*.c", []), ("lita.c", "lita.c", [])]),
        ("lit\\*.c", [("lit\\*.c", "lit*.c", [])]),
        ("br[[]ack", [("br[ack", "br[ack", [])]),
        ("with blank", [("with blank", "with blank", [])]),
        ("snow?", [("snow☃", "snow☃", [])]),
    ],
)
def test_argument_names(root, argument, expected):
    """Files, directories, links and wildcards name what BuildKit takes them for."""
    assert _named(select_sources(root, [argument])) == expected


def test_whole_context_is_selected_by_a_dot(root):
    """`.` names everything, links and empty directories included."""
    (selected,) = select_sources(root, ["."])

    assert selected.name == b""
    assert {b"empty", b"link", b"out", b"dir/sub/y"} <= {item.path for item in selected.below}


def test_several_arguments_keep_their_order(root):
    """Later arguments are copied later."""
    assert [one.name for one in select_sources(root, ["b.txt", "a.txt"])] == [b"b.txt", b"a.txt"]


def test_missing_source_is_reported_with_root_near_name_and_place(root):
    """The message has BuildKit's text, the hint a name that exists, the span the instruction."""
    span = Span(source=SourceFile("Dockerfile", "FROM x\nCOPY a.tx /\n"), line=2, end_line=2)

    with pytest.raises(ContextError, match=r'"/a.tx": not found in the build context') as caught:
        select_sources(root, ["a.tx"], span=span)

    assert caught.value.hint == "did you mean `a.txt`?"
    assert caught.value.span is span
    assert caught.value.exit_code == 2


def test_missing_source_in_a_directory_names_its_neighbour(root):
    """Near names are looked for where the path ends."""
    with pytest.raises(ContextError, match=r'"/dir/sub/zz.txt": not found') as caught:
        select_sources(root, ["dir/sub/zz.txt"])

    assert caught.value.hint == "did you mean `dir/sub/z.txt`?"


@pytest.mark.parametrize("argument", ["dir/x", "dir", "link/x"])
def test_ignored_source_is_reported_with_the_rule(tmp_path, argument):
    """A source that an ignore rule hides is told apart from one that does not exist."""
    make_tree(tmp_path, TREE)

    with (
        source_root(tmp_path, ignore="# comment\n\ndir\n") as root,
        pytest.raises(ContextError, match=r"not found .* an ignore rule hides it: .dockerignore:3: `dir`") as caught,
    ):
        select_sources(root, [argument])

    assert caught.value.hint.startswith("add the line `!dir")


def test_ignored_files_do_not_match_wildcards(tmp_path):
    """A wildcard sees what the build sees."""
    make_tree(tmp_path, TREE)

    with source_root(tmp_path, ignore="*\n!b.txt\n!dir/x") as root:
        assert _named(select_sources(root, ["*"])) == [("b.txt", "b.txt", []), ("dir", "dir", ["x"])]


@pytest.mark.parametrize("argument", ["out", "out/passwd", "out/*"])
def test_link_that_leads_out_of_the_root_stays_inside(root, argument):
    """A symbolic link cannot name a file of the host."""
    try:
        selected = select_sources(root, [argument])
    except ContextError as error:
        assert "not found" in error.message  # noqa: PT017 - either is right, leaving the root is not
    else:
        assert selected == ()


def test_loop_of_links_is_an_error(tmp_path):
    """Links that go in circles end."""
    make_tree(tmp_path, {"a": "b", "b": "a"})

    with source_root(tmp_path) as root, pytest.raises(CopyError, match="too many levels of symbolic links: `/a`"):
        select_sources(root, ["a"])


@pytest.mark.parametrize("argument", ["a[", "[]a]", "x[a-"])
def test_wrong_wildcard_is_an_error(root, argument):
    """A class that is not closed is refused as Go's filepath.Match does."""
    with pytest.raises(ContextError, match="syntax error in pattern"):
        select_sources(root, [argument])


@pytest.mark.parametrize(
    ("argument", "excludes", "expected"),
    [
        ("dir", ["*.txt"], [("dir", "dir", ["sub", "sub/y", "sub/z.txt", "x"])]),
        ("dir", ["**/*.txt"], [("dir", "dir", ["sub", "sub/y", "x"])]),
        ("dir", ["sub", "!sub/y"], [("dir", "dir", ["sub", "sub/y", "x"])]),
        ("dir", ["**"], [("dir", "dir", [])]),
        ("a.tx*", ["*.txt"], [("a.txt", "a.txt", [])]),
    ],
)
def test_excludes_count_from_each_source(root, argument, excludes, expected):
    """`--exclude` leaves things out of directories; a file that is named itself is copied."""
    assert _named(select_sources(root, [argument], excludes=excludes)) == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("dir/sub/y", ["dir", "dir/sub", "dir/sub/y"]),
        ("dir/./sub/y", ["sub", "sub/y"]),
        ("./dir/sub", ["dir", "dir/sub", "dir/sub/y", "dir/sub/z.txt"]),
        ("dir/**/*.txt", ["dir", "dir/sub", "dir/sub/z.txt"]),
        ("**/x", ["dir", "dir/x", "dir2", "dir2/x"]),
        ("d*/x", ["dir", "dir/x", "dir2", "dir2/x"]),
        ("dir/./.", ["sub", "sub/y", "sub/z.txt", "x"]),
    ],
)
def test_parents_keep_the_directories_of_an_argument(root, argument, expected):
    """`--parents` keeps what stands before a file, from the pivot on."""
    (selected,) = select_sources(root, [argument], parents=True)

    assert [item.path[selected.skip :].decode() for item in selected.below] == expected


def test_parents_without_match_select_nothing_or_fail(root):
    """A wildcard may match nothing, a plain path must exist."""
    assert select_sources(root, ["**/*.nope"], parents=True) == ()
    with pytest.raises(ContextError, match='"/dir/nope": not found'):
        select_sources(root, ["dir/nope"], parents=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a*", True), ("a?", True), ("[a]", True), ("a\\*", False), ("a\\\\*", True), ("plain", False), ("a]", False)],
)
def test_wildcards_are_told_from_escaped_characters(path, expected):
    """A backslash takes the meaning of a wildcard away, two do not."""
    assert has_wildcards(path) is expected


@pytest.mark.parametrize("argument", ["a\0b", "\ud800", "x" * 5000, "x/" * 3000, "*" * 3000])
def test_argument_that_cannot_exist_is_a_context_error_or_nothing(root, argument):
    """No argument gives a traceback."""
    try:
        selected = select_sources(root, [argument])
    except ContextError:
        return

    assert isinstance(selected, tuple)
