"""What lies directly in a directory, read in batches."""

from __future__ import annotations

import os
import stat

import pytest

from builder.context import batch as batch_module
from builder.context.batch import from_facts, mark_facts, read_batches
from builder.context.ignore import compile_patterns
from builder.context.walk import Filter
from builder.errors import ContextError
from tests.fakes.context import make_tree, source_root

TREE = {"b": b"1", "a": b"22", "l": "a", "d/x": b"", "é": b"", "empty": None}
STATUS = ("mode", "ino", "dev", "nlink", "uid", "gid", "size", "mtime", "mtime_ns", "ctime_ns", "rdev")


@pytest.fixture
def folder(tmp_path):
    """Give a small context."""
    make_tree(tmp_path, TREE)
    return tmp_path


def test_batch_has_names_in_byte_order(folder):
    """Also those that are no text."""
    (folder / os.fsdecode(b"\xff")).touch()
    (folder / "\U0001f600").touch()
    with source_root(folder) as root:
        (batch,) = read_batches(root, b"", ())

    assert batch.names == sorted(map(os.fsencode, os.listdir(folder)))
    assert batch.links == {b"l": b"a"}
    assert batch.folders() == [b"d", b"empty"]


def test_batch_comes_back_from_its_facts(folder):
    """All that anyone asks of what lstat said is among them."""
    os.mkfifo(folder / "pipe")
    with source_root(folder) as root:
        (before,) = read_batches(root, b"", ())
    after = from_facts(before.facts())

    assert [found._replace(stat=None) for found in after.found()] == [
        found._replace(stat=None) for found in before.found()
    ]
    for name in STATUS:
        assert [int(getattr(status, f"st_{name}")) for status in after.statuses] == [
            int(getattr(status, f"st_{name}")) for status in before.statuses
        ]
    assert after.facts() == before.facts()


CHANGES = {
    "content": lambda path: path.write_bytes(b"3"),
    "time": lambda path: os.utime(path, (1, 1)),
    "mode": lambda path: path.chmod(0o755),
    "links": lambda path: os.link(path, path.parent / "d/other"),
    "type": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
    "name": lambda path: path.rename(path.with_name("c")),
    "link text": lambda path: (path.with_name("l").unlink(), path.with_name("l").symlink_to("b")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_mark_changes_with_what_lstat_says(folder, change):
    """Each change shows in the facts, and so in the mark; reading the file does not."""
    marks = []
    with source_root(folder) as root:
        for step in (lambda path: path.read_bytes(), change, lambda _: None):
            step(folder / "b")
            (batch,) = read_batches(root, b"", ())
            marks.append(mark_facts(batch.facts()))

    assert marks[0] != marks[1] == marks[2]


def test_batch_leaves_out_what_filters_hide(folder, monkeypatch):
    """Directories below which something may be kept are there, marked; what is left out for good is not looked at."""
    filters = (Filter(compile_patterns(["d", "empty", "a", "!d/x", "l"])),)
    monkeypatch.setattr(os, "readlink", None)
    with source_root(folder) as root:
        (batch,) = read_batches(root, b"", filters)

    assert batch.names == [b"b", b"d", "é".encode()]
    assert batch.hidden == {b"d"}


def test_mark_tells_hidden_directories_from_kept_ones(folder):
    """Whether an empty directory is copied depends on it."""
    marks = []
    for patterns in (["x"], ["d", "!d/y"]):
        with source_root(folder) as root:
            (batch,) = read_batches(root, b"", (Filter(compile_patterns(patterns)),))
            marks.append((batch.names, mark_facts(batch.facts())))

    assert marks[0][0] == marks[1][0]
    assert marks[0][1] != marks[1][1]


@pytest.mark.parametrize("limit", [1, 100])
def test_file_that_goes_while_its_directory_is_read_is_named(folder, monkeypatch, limit):
    """Whether its directory is a large one or not."""
    monkeypatch.setattr(batch_module, "_LARGE_DIRECTORY", limit)
    read = batch_module._filter
    monkeypatch.setattr(batch_module, "_filter", lambda *_: ((folder / "d/x").unlink(), read(*_))[1])
    with (
        source_root(folder) as root,
        pytest.raises(ContextError, match="file changed during the build in the build context: `/d/x`"),
    ):
        list(read_batches(root, b"d", ()))


def test_directory_that_became_a_link_is_not_left_by_it(folder):
    """What a name leads to is found inside the root only."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (folder / "d/x").unlink()
    (folder / "d").rmdir()
    (folder / "d").symlink_to(outside)
    with source_root(folder) as root, pytest.raises(ContextError, match="`/d`"):
        read_batches(root, b"d", ())


def test_status_has_the_type_of_a_socket_or_device(folder):
    """The number of a device is among the facts."""
    with source_root("/dev") as root:
        batches = list(read_batches(root, b"", (Filter(compile_patterns(["*", "!null"])),)))
    (null,) = [found for batch in batches for found in from_facts(batch.facts()).found() if found.path == b"null"]

    assert stat.S_ISCHR(null.stat.st_mode)
    assert null.stat.st_rdev == os.stat("/dev/null").st_rdev
