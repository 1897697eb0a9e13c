"""What every snapshotter does, as functions of an empty one and a folder beside its store.

They run inside a namespace, in a process of their own (`test_snapshotters`).
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from random import Random
from typing import TYPE_CHECKING

from runtime.layers.archive import ArchiveWriter
from runtime.layers.diff import write_changes
from runtime.snapshots.committed import MARK
from tests.runtime.snapshots.random_steps import BEGINNING, change_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runtime.snapshots.snapshotter import Snapshotter


def make_layer(snapshots: Snapshotter, names: Sequence[str], name: str, change: Callable[[Path], None]) -> bytes:
    """Commit a snapshot of a change on a chain, and return its layer."""
    lowers = snapshots.lowers(names)
    active = snapshots.prepare(lowers)
    with snapshots.writable(lowers, active) as root:
        change(root)
    snapshots.settle(active)
    target = io.BytesIO()
    writer = ArchiveWriter(target.write)
    write_changes(active.upper, lowers, writer)
    writer.finish()
    snapshots.commit(active, name)
    return target.getvalue()


def names_in(layer: bytes) -> list[str]:
    """Return the names of a layer's entries."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return archive.getnames()


def random_layers(snapshots: Snapshotter, seed: int) -> list[bytes]:
    """Return the layers of four random steps, each on those before."""
    random = Random(seed)
    names: list[str] = []
    layers = []
    for step in range(4):
        count, when = random.choice((3, 10, 25)), BEGINNING + step * 1_000_000_000
        layers.append(
            make_layer(snapshots, names, f"s{step}", lambda root, n=count, t=when: change_tree(root, random, n, t))
        )
        names.append(f"s{step}")
    return layers


def write_base(root: Path) -> None:
    """Make a small first layer."""
    (root / "d").mkdir()
    for name in ("a", "b"):
        (root / "d" / name).write_text(name)
    (root / "f").write_text("f")


def a_chain_shows_the_changes(snapshots: Snapshotter, _folder: Path) -> None:
    """A view of a chain shows what was added and not what was deleted."""
    make_layer(snapshots, [], "base", write_base)
    make_layer(snapshots, ["base"], "next", lambda root: ((root / "d/a").unlink(), (root / "new").write_text("x")))

    with snapshots.view(["base", "next"]) as view:
        assert sorted(os.listdir(view)) == ["d", "f", "new"]
        assert os.listdir(view / "d") == ["b"]
    with snapshots.view(["base"]) as view:
        assert sorted(os.listdir(view / "d")) == ["a", "b"]


def the_empty_chain_is_an_empty_directory(snapshots: Snapshotter, _folder: Path) -> None:
    """A view of no layers shows nothing."""
    with snapshots.view([]) as view:
        assert os.listdir(view) == []


def only_changes_are_in_the_layer(snapshots: Snapshotter, _folder: Path) -> None:
    """A layer names what was changed, what was deleted, and the directories above."""
    make_layer(snapshots, [], "base", write_base)

    def change(root: Path) -> None:
        (root / "d/a").unlink()
        (root / "f").write_text("other")

    assert names_in(make_layer(snapshots, ["base"], "next", change)) == ["d", "d/.wh.a", "f"]


def a_change_that_is_taken_back_is_none(snapshots: Snapshotter, _folder: Path) -> None:
    """Content and time as before leave the layer empty."""
    make_layer(snapshots, [], "base", write_base)

    def change(root: Path) -> None:
        status = (root / "f").stat()
        (root / "f").write_text("f")
        os.utime(root / "f", ns=(status.st_atime_ns, status.st_mtime_ns))
        (root / "d").chmod(0o700)
        (root / "d").chmod(stat.S_IMODE(0o755))

    assert names_in(make_layer(snapshots, ["base"], "next", change)) == []


def a_file_of_the_same_size_and_time_is_noticed(snapshots: Snapshotter, _folder: Path) -> None:
    """Other content with the old size and the old time is a change."""
    make_layer(snapshots, [], "base", write_base)

    def change(root: Path) -> None:
        status = (root / "f").stat()
        (root / "f").write_text("g")
        os.utime(root / "f", ns=(status.st_atime_ns, status.st_mtime_ns))

    assert names_in(make_layer(snapshots, ["base"], "next", change)) == ["f"]


def a_directory_made_again_is_opaque(snapshots: Snapshotter, _folder: Path) -> None:
    """A directory that was removed and made again hides what was in it."""
    make_layer(snapshots, [], "base", write_base)

    def change(root: Path) -> None:
        shutil.rmtree(root / "d")
        (root / "d").mkdir()
        (root / "d" / "c").write_text("c")

    assert names_in(make_layer(snapshots, ["base"], "next", change)) == ["d", "d/.wh..wh..opq", "d/c"]
    with snapshots.view(["base", "next"]) as view:
        assert os.listdir(view / "d") == ["c"]


def committed_snapshots_do_not_change(snapshots: Snapshotter, _folder: Path) -> None:
    """Writing into a file on a chain leaves the chain as it is, whoever shows it."""
    make_layer(snapshots, [], "base", write_base)
    make_layer(snapshots, ["base"], "one", lambda root: (root / "g").write_text("g"))

    def append(root: Path) -> None:
        for name in ("f", "g"):
            with (root / name).open("a") as file:
                file.write("!")

    make_layer(snapshots, ["base", "one"], "two", append)

    with snapshots.view(["base", "one"]) as view:
        assert ((view / "f").read_text(), (view / "g").read_text()) == ("f", "g")
    with snapshots.view(["base", "one", "two"]) as view:
        assert ((view / "f").read_text(), (view / "g").read_text()) == ("f!", "g!")


def two_branches_are_apart(snapshots: Snapshotter, _folder: Path) -> None:
    """Two snapshots on one chain do not see each other."""
    make_layer(snapshots, [], "base", write_base)
    lowers = snapshots.lowers(["base"])
    one, two = snapshots.prepare(lowers), snapshots.prepare(lowers)
    with snapshots.writable(lowers, one) as root:
        (root / "one").write_text("")
    with snapshots.writable(lowers, two) as root:
        assert not (root / "one").exists()
        (root / "two").write_text("")
    for active, name in ((one, "x"), (two, "y")):
        snapshots.settle(active)
        snapshots.commit(active, name)

    with snapshots.view(["base", "y"]) as view:
        assert sorted(os.listdir(view)) == ["d", "f", "two"]


def metadata_travels(snapshots: Snapshotter, _folder: Path) -> None:
    """Owner, mode, time, attributes, links and holes are as they were written."""

    def write(root: Path) -> None:
        path = root / "file"
        with path.open("wb") as file:
            file.truncate(1 << 20)
            file.seek(1 << 19)
            file.write(b"middle")
        os.chown(path, 5, 6)
        path.chmod(0o4711)
        os.setxattr(path, "user.note", b"1")
        os.utime(path, ns=(BEGINNING, BEGINNING + 1))
        os.link(path, root / "twin")
        (root / "link").symlink_to("/nowhere")
        os.mkfifo(root / "fifo", 0o640)

    make_layer(snapshots, [], "base", write_base)
    make_layer(snapshots, ["base"], "next", write)

    with snapshots.view(["base", "next"]) as view:
        found = (view / "file").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (5, 6, 0o4711)
        assert (found.st_mtime_ns, found.st_size) == (BEGINNING + 1, 1 << 20)
        assert found.st_blocks * 512 < 1 << 19
        assert os.getxattr(view / "file", "user.note") == b"1"
        assert os.path.samefile(view / "file", view / "twin")
        assert (view / "file").read_bytes()[1 << 19 :][:6] == b"middle"
        assert os.readlink(view / "link") == "/nowhere"
        assert stat.S_ISFIFO((view / "fifo").stat().st_mode)


def a_discarded_snapshot_leaves_nothing(snapshots: Snapshotter, folder: Path) -> None:
    """What is discarded is gone from the disk and from the chain."""
    make_layer(snapshots, [], "base", write_base)
    lowers = snapshots.lowers(["base"])
    active = snapshots.prepare(lowers)
    with snapshots.writable(lowers, active) as root:
        (root / "new").write_text("")
    snapshots.discard(active)
    snapshots.discard(active)

    assert not [name for name in os.listdir(folder / "temporary") if name.startswith("snapshot-")]
    with snapshots.view(["base"]) as view:
        assert sorted(os.listdir(view)) == ["d", "f"]


def a_snapshot_that_was_tampered_with_is_replaced(snapshots: Snapshotter, _folder: Path) -> None:
    """What lost or got something at its top, or its mark, counts as missing, and is made again under its name."""
    tampering: list[Callable[[Path], None]] = [
        lambda tree: (tree / "f").unlink(),
        lambda tree: shutil.rmtree(tree / "d"),
        lambda tree: (tree / "new").touch(),
        lambda tree: os.removexattr(tree, MARK),
        shutil.rmtree,
        lambda tree: (shutil.rmtree(tree), tree.mkdir()),
        lambda tree: (shutil.rmtree(tree), tree.touch()),
    ]
    make_layer(snapshots, [], "base", write_base)
    for tamper in tampering:
        assert snapshots.has("base")
        (tree,) = snapshots.lowers(["base"])
        tamper(tree)
        assert not snapshots.has("base")

        make_layer(snapshots, [], "base", write_base)
        with snapshots.view(["base"]) as view:
            assert sorted(os.listdir(view)) == ["d", "f"]


def a_snapshot_made_twice_stays_as_it_was_first(snapshots: Snapshotter, _folder: Path) -> None:
    """Who commits what is there already changes nothing."""
    make_layer(snapshots, [], "base", write_base)
    (tree,) = snapshots.lowers(["base"])
    before = tree.stat().st_ino
    make_layer(snapshots, [], "base", write_base)

    assert tree.stat().st_ino == before
    assert snapshots.has("base")


def a_used_snapshot_can_be_reopened(snapshots: Snapshotter, folder: Path) -> None:
    """One more step sees what was changed and deleted, and what it changes itself is gone when all is discarded."""
    make_layer(snapshots, [], "base", write_base)
    lowers = snapshots.lowers(["base"])
    active = snapshots.prepare(lowers)
    with snapshots.writable(lowers, active) as root:
        (root / "d/a").unlink()
        shutil.copytree(root / "d", root / "e")
        shutil.rmtree(root / "d")
        (root / "d").mkdir(mode=0o711)
        root.chmod(0o750)
    with snapshots.reopened(lowers, active) as (chain, above), snapshots.writable(chain, above) as root:
        assert sorted(os.listdir(root)) == ["d", "e", "f"]
        assert (os.listdir(root / "d"), os.listdir(root / "e")) == ([], ["b"])
        assert stat.S_IMODE(root.stat().st_mode) == 0o750
        (root / "f").write_text("other")
    snapshots.discard(active)

    assert not [name for name in os.listdir(folder / "temporary") if name.startswith("snapshot-")]
    with snapshots.view(["base"]) as view:
        assert (view / "f").read_text() == "f"


CONTRACT = (
    a_chain_shows_the_changes,
    the_empty_chain_is_an_empty_directory,
    only_changes_are_in_the_layer,
    a_change_that_is_taken_back_is_none,
    a_file_of_the_same_size_and_time_is_noticed,
    a_directory_made_again_is_opaque,
    committed_snapshots_do_not_change,
    two_branches_are_apart,
    metadata_travels,
    a_discarded_snapshot_leaves_nothing,
    a_snapshot_that_was_tampered_with_is_replaced,
    a_snapshot_made_twice_stays_as_it_was_first,
    a_used_snapshot_can_be_reopened,
)
