"""What lies below a directory, looked for as often as it is asked for."""

from __future__ import annotations

import os

import pytest

from builder.context import batch as batch_module
from builder.context import contents as contents_module
from builder.context import root as root_module
from builder.context.contents import Contents
from builder.context.ignore import compile_patterns
from builder.context.walk import Filter, SourceTree, walk
from builder.errors import ContextError
from tests.fakes.context import make_tree, source_root

TREE = {f"d{folder}/{name}{number}": b"" for folder in range(3) for name in ("a", "a-") for number in range(3)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give a small context, and have it looked at in small pieces."""
    make_tree(tmp_path, {**TREE, "l": "d0"})
    for module in (contents_module, batch_module):
        monkeypatch.setattr(module, "CHUNK", 5)
    return tmp_path


@pytest.fixture(params=["remembered", "forgotten"])
def is_remembered(request, monkeypatch):
    """Have room for everything, or for nothing."""
    if request.param == "forgotten":
        monkeypatch.setattr(root_module, "KEPT", 4)
    return request.param == "remembered"


def change(folder):
    """Add a file to a directory."""
    (folder / "d1/new").touch()


@pytest.mark.usefixtures("is_remembered")
def test_contents_are_the_same_each_time(folder):
    """They are what the walk finds, in pieces of bounded length."""
    with source_root(folder) as root:
        contents = Contents(root, b"")
        found = [[one.path for one in contents] for _ in range(3)]
        pieces = [len(chunk) for chunk in contents.chunks()]
        expected = [one.path for one in walk(root, b"")]

    assert found == [expected] * 3
    assert pieces == [5, 5, 5, 5, 2]


def test_contents_that_are_few_are_looked_for_once(folder):
    """What is remembered does not change any more, and is counted."""
    with source_root(folder) as root:
        contents = Contents(root, b"")
        before, room = list(contents), root.room.left
        change(folder)

        assert list(contents) == before
        assert room == root_module.KEPT - len(before)


def test_contents_that_are_many_have_to_stay_as_they_were(folder, monkeypatch):
    """They are looked for anew and take up no room; a change is named by a directory in which it lies."""
    monkeypatch.setattr(root_module, "KEPT", 4)
    with source_root(folder) as root:
        contents = Contents(root, b"")
        list(contents)
        change(folder)

        assert root.room.left == root_module.KEPT
        with pytest.raises(ContextError, match="file changed during the build in the build context: `/"):
            list(contents)


def test_contents_that_end_earlier_are_not_as_they_were(folder, monkeypatch):
    """Also where what went lay in a piece of its own."""
    monkeypatch.setattr(root_module, "KEPT", 4)
    with source_root(folder) as root:
        contents = Contents(root, b"")
        list(contents)
        (folder / "l").unlink()
        (folder / "d2/a2").unlink()

        with pytest.raises(ContextError, match="file changed during the build"):
            list(contents)


def test_contents_that_were_not_looked_at_to_the_end_take_up_no_room(folder):
    """Nothing is remembered of them, and a later look is the first one."""
    with source_root(folder) as root:
        contents = Contents(root, b"")
        chunks = contents.chunks()
        next(chunks)
        chunks.close()

        assert root.room.left == root_module.KEPT
        change(folder)
        assert b"d1/new" in [found.path for found in contents]


@pytest.mark.usefixtures("is_remembered")
def test_sight_is_that_of_everything(folder):
    """It needs no look before, and shows what lstat shows."""
    with source_root(folder) as root:
        before = Contents(root, b"").sight()
        contents = Contents(root, b"")
        list(contents)
        again = contents.sight()
        os.utime(folder / "d2/a1", (1, 1))

        assert before == again
        assert Contents(root, b"").sight() != before


def test_contents_that_were_seen_are_not_looked_for_again(folder, monkeypatch):
    """What the sight was made of is what is given, if there is room for it."""
    with source_root(folder) as root:
        expected = [one.path for one in walk(root, b"")]
        contents = Contents(root, b"")
        contents.sight()
        monkeypatch.setattr(batch_module, "read_batches", None)

        assert [[one.path for one in contents] for _ in range(2)] == [expected] * 2
        assert root.room.left == root_module.KEPT - len(expected)


def test_contents_that_are_many_have_to_be_as_they_were_seen(folder, monkeypatch):
    """A key may have been found by what was seen, so nothing else may be copied."""
    monkeypatch.setattr(root_module, "KEPT", 4)
    with source_root(folder) as root:
        contents = Contents(root, b"")
        contents.sight()
        change(folder)

        with pytest.raises(ContextError, match="file changed during the build in the build context: `/"):
            list(contents)


def test_contents_have_one_sight_whatever_was_asked_for_first(folder):
    """With filters, and a directory that is left out but for what is below it, too."""
    filters = [Filter(compile_patterns(["d0", "!d0/a1", "d1/a*"]))]
    with source_root(folder) as root:
        seen, walked = Contents(root, b"", filters=filters), Contents(root, b"", filters=filters)
        sight = seen.sight()
        found = list(walked)

        assert walked.sight() == sight
        assert list(seen) == found
        assert b"d0/a1" in [one.path for one in found]
        assert b"d0/a2" not in [one.path for one in found]


def test_contents_are_empty_if_filters_leave_nothing(folder):
    """Whether there is anything is known without looking at everything."""
    with source_root(folder) as root:
        assert not Contents(root, b"").is_empty()
        assert Contents(root, b"d0", filters=[Filter(compile_patterns(["*"]), 3)]).is_empty()


@pytest.mark.parametrize("ignore", ["", "d0/*\n!d0/a1\n"])
def test_large_directory_is_walked_in_the_same_order(folder, monkeypatch, ignore):
    """Of a directory with many names, those come first that sort first, though not all are looked at together."""
    with source_root(folder, ignore=ignore) as root:
        expected = [one.path for one in walk(root, b"")]
        listed = [one.path for one in SourceTree(root).list(b"d1")]
        monkeypatch.setattr(batch_module, "_LARGE_DIRECTORY", 2)

        assert [one.path for one in walk(root, b"")] == expected
        assert [one.path for one in SourceTree(root).list(b"d1")] == listed


def test_file_that_goes_while_a_large_directory_is_walked_is_named(folder, monkeypatch):
    """Its name was seen, and it is not there any more."""
    monkeypatch.setattr(batch_module, "_LARGE_DIRECTORY", 2)
    with source_root(folder) as root:
        found = walk(root, b"d1")
        next(found)
        (folder / "d1/a2").unlink()

        with pytest.raises(ContextError, match="file changed during the build in the build context: `/d1/a2`"):
            list(found)
