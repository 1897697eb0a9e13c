"""Looking at everything below a directory, alone or with a second process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from builder.context import sight as sight_module
from builder.context.sight import look_below
from builder.context.walk import walk, walk_batches
from builder.errors import ContextError
from tests.fakes.context import make_tree, source_root

TREE = {f"d{folder}/e{folder % 3}/f{number}": b"" for folder in range(20) for number in range(5)}

SCRIPT = """
import json, os, sys
from builder.context import sight
from builder.context.root import SourceRoot
from builder.context.walk import walk_batches
from builder.errors import ContextError

folder, room, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sight._WORTH, sight._PARTS, sight._MOST_PARTS = 1, 2, 7
sight._has_second_processor = lambda: True
first, fork, receive = os.getpid(), os.fork, sight.Look.receive
draw, sent = sight._draw, []

def work(look, *arguments, **options):
    raise SystemExit("a second process that fails")

def forks():
    child = fork()
    if child == 0 and how == "fails":
        sight.Look.below = work
    return child

def refuses():
    raise BlockingIOError("no more processes")

def draws(numbers):
    # The one that is meant to do the work takes all of it.
    if (os.getpid() == first) == (how == "first"):
        yield from draw(numbers)

def receives(look, data):
    sent.append(len(data))
    receive(look, data)

os.fork = refuses if how == "refused" else forks
sight._draw = draws if how in ("second", "fails", "first") else draw
sight.Look.receive = receives
root = SourceRoot(fd=os.open(folder, os.O_RDONLY), shown="build context")
try:
    look = sight.look_below(root, b"", (), room=room)
except ContextError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
found = [(one.path.decode(), one.stat.st_ino) for one in walk_batches(look.batches, b"")] if look.is_kept else []
try:
    os.waitpid(-1, 0)
    left = True
except ChildProcessError:
    left = False
print(json.dumps({"mark": look.mark, "count": look.count, "found": found, "left": left, "sent": sent}))
"""


def look_apart(folder, *, room=1000, how="both"):
    """Look in a process that may fork, as it has one thread."""
    command = [sys.executable, "-c", SCRIPT, str(folder), str(room), how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path):
    """Give a context of some directories."""
    make_tree(tmp_path, TREE)
    return tmp_path


@pytest.fixture
def expected(folder):
    """Give what one process sees."""
    with source_root(folder) as root:
        look = look_below(root, b"", (), room=1000)
        return {
            "mark": look.mark,
            "count": look.count,
            "found": [[one.path.decode(), one.stat.st_ino] for one in walk(root, b"")],
        }


def test_look_gives_what_the_walk_finds(folder, expected):
    """Also in the order of the walk, though it was looked for in another one."""
    with source_root(folder) as root:
        look = look_below(root, b"", (), room=1000)

        assert [[one.path.decode(), one.stat.st_ino] for one in walk_batches(look.batches, b"")] == expected["found"]
        assert look.count == len(expected["found"])


@pytest.mark.parametrize("how", ["both", "first", "second", "fails", "refused"])
def test_two_processes_see_what_one_sees(folder, expected, how):
    """Whoever does the work, and if the second one fails or cannot be had; none is left behind."""
    seen = look_apart(folder, how=how)
    sent = seen.pop("sent")

    assert seen == {**expected, "left": False}
    assert len(sent) == (how != "refused")
    assert how != "fails" or sent == [0]
    assert how != "second" or sent[0] > len(TREE) * 50


@pytest.mark.parametrize("how", ["first", "second", "both"])
def test_what_is_too_much_is_not_remembered(folder, expected, how):
    """It is counted and has the same mark all the same."""
    seen = look_apart(folder, room=100, how=how)

    assert (seen["mark"], seen["count"]) == (expected["mark"], expected["count"])
    assert seen["found"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an unprivileged user, root reads everything")
@pytest.mark.parametrize("how", ["first", "second"])
def test_error_of_the_second_process_is_that_of_the_first(folder, how):
    """What cannot be read is named."""
    locked = folder / "d7/e1"
    locked.chmod(0)
    try:
        seen = look_apart(folder, how=how)
    finally:
        locked.chmod(0o700)

    assert "permission denied: `/d7/e1`" in seen["error"]


def test_look_with_other_threads_has_no_second_process(folder, monkeypatch):
    """A fork would have their locks."""
    monkeypatch.setattr(sight_module, "_WORTH", 1)
    monkeypatch.setattr(sight_module, "_PARTS", 1)
    monkeypatch.setattr(sight_module.threading, "active_count", lambda: 2)
    monkeypatch.setattr(os, "fork", None)
    with source_root(folder) as root:
        assert look_below(root, b"", (), room=1000).count == len(list(walk(root, b"")))


def test_directory_that_goes_meanwhile_is_named(folder, monkeypatch):
    """It was seen, and is not there any more."""
    read = sight_module.read_batches

    def read_and_move(root, name, active):
        batches = list(read(root, name, active))
        if name == b"d3":
            (folder / "d3/e0").rename(folder / "gone")
        return batches

    monkeypatch.setattr(sight_module, "read_batches", read_and_move)
    with (
        source_root(folder) as root,
        pytest.raises(ContextError, match="file changed during the build in the build context: `/d3/e0`"),
    ):
        look_below(root, b"", (), room=1000)
