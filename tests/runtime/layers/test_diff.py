from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import socket
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import KernelError, LayerError
from runtime.layers.apply import apply_layer
from runtime.layers.archive import ArchiveWriter
from runtime.layers.diff import KnownTrees, write_changes
from runtime.layers.entry import Entry, EntryKind
from runtime.layers.read import read_archive
from runtime.layers.whiteouts import opaque_entry, whiteout_entry
from runtime.snapshots.overlay import Snapshots
from tests.runtime.inside import run_inside

if TYPE_CHECKING:
    from pathlib import Path

CAPABILITY_V2 = bytes.fromhex("0100000200200000000000000000000000000000")


def diff(upper: Path, *lowers: Path, ignore: tuple[bytes, ...] = ()) -> bytes:
    """Return the layer of an upper directory, which is the same whatever is known of the layers below."""
    known = KnownTrees()
    data = write_once(upper, lowers, ignore, known)
    for _ in range(2):
        assert write_once(upper, lowers, ignore, known) == data
    return data


def write_once(upper: Path, lowers: tuple[Path, ...], ignore: tuple[bytes, ...], known: KnownTrees) -> bytes:
    """Return the layer of an upper directory, written once."""
    pieces: list[bytes] = []
    seen: list[Entry] = []
    writer = ArchiveWriter(pieces.append)
    write_changes(upper, lowers, writer, ignore=ignore, on_entry=seen.append, known=known)
    writer.finish()
    data = b"".join(pieces)
    assert [member.entry for member in read_archive(io.BytesIO(data))] == seen
    return data


def entries(data: bytes) -> dict[str, Entry]:
    """Return the entries of a layer by path."""
    return {os.fsdecode(member.entry.path): member.entry for member in read_archive(io.BytesIO(data))}


def names(data: bytes) -> list[str]:
    """Return the paths of a layer in order."""
    return [os.fsdecode(member.entry.path) for member in read_archive(io.BytesIO(data))]


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    """Return what a tree looks like, everything that a layer keeps but which names are one file."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*"), key=os.fsencode):
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            continue
        name = str(path.relative_to(top))
        content: object = None
        xattrs: dict[str, bytes] = {}
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            kept = ("user.x", "security.capability")
            xattrs = {key: os.getxattr(path, key) for key in os.listxattr(path) if key in kept}
        found[name] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            int(status.st_mtime),
            content,
            tuple(xattrs.items()),
        )
    return found


def same_files(top: Path, paths: list[str]) -> list[list[str]]:
    """Return the groups of *paths* that are hard links of one file."""
    groups: dict[int, list[str]] = {}
    for path in paths:
        groups.setdefault(os.lstat(top / path).st_ino, []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def touch(*paths: Path, mtime: int = 1000) -> None:
    """Set a time."""
    for path in paths:
        os.utime(path, (mtime, mtime), follow_symlinks=False)


def test_diff_of_a_plain_tree_is_all_of_it_in_order(tmp_path):
    """Without layers below, everything is written: a directory, then its children by name."""
    for path in ("b/x", "b/a", "b-c", "a"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / os.fsdecode(b"\xff")).symlink_to("a")
    touch(tmp_path / "b", mtime=-1)

    data = diff(tmp_path)

    assert names(data) == ["a", "b", "b/a", "b/x", "b-c", os.fsdecode(b"\xff")]
    assert entries(data)["b"].mtime == -1


def test_diff_is_the_same_whatever_the_order_on_disk(tmp_path):
    """Two equal trees, made in different orders, give the same bytes."""
    order = [f"{number:03}" for number in range(300)]
    for name in ("one", "two"):
        random.Random(name).shuffle(order)
        (tmp_path / name).mkdir()
        for child in order:
            (tmp_path / name / child).write_text(child)
            touch(tmp_path / name / child)

    assert diff(tmp_path / "one") == diff(tmp_path / "two")


def test_diff_writes_hard_links_as_links(tmp_path):
    """The first name holds the content, later ones refer to it by a name relative to the root."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/b").write_text("content")
    os.link(tmp_path / "d/b", tmp_path / "a")

    found = entries(diff(tmp_path))

    assert (found["a"].kind, found["a"].size) == (EntryKind.FILE, 7)
    assert found["d/b"][:2] == (b"d/b", EntryKind.HARDLINK)
    assert (found["d/b"].linkname, found["d/b"].size) == (b"a", 0)


def test_diff_leaves_sockets_out(tmp_path):
    """Sockets are skipped, FIFOs are not."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)
        listener.bind("socket")
        os.chdir(here)

    assert names(diff(tmp_path)) == ["fifo"]


def test_diff_refuses_names_that_mean_deletions(tmp_path):
    """A file that RUN named `.wh.x` would delete x; that is said, not done."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.wh.x").write_text("")

    with pytest.raises(LayerError, match=r"means a deletion .*: `d/\.wh\.x`"):
        diff(tmp_path)


@pytest.mark.parametrize("key", ["metacopy", "redirect"])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_diff_refuses_trees_whose_content_lies_elsewhere(tmp_path, key: str, kind: str):
    """An upper directory of an overlay with metacopy or redirect_dir is not taken for whole."""
    (tmp_path / "x").mkdir() if kind == "directory" else (tmp_path / "x").write_text("")
    os.setxattr(tmp_path / "x", f"user.overlay.{key}", b"/y")

    with pytest.raises(LayerError, match=f"mounted with {key}.*: `x`"):
        diff(tmp_path)


def test_diff_of_a_missing_directory_names_the_error(tmp_path):
    """The upper directory has to exist."""
    with pytest.raises(KernelError, match="No such file"):
        diff(tmp_path / "missing")


def test_diff_keeps_data_xattrs_and_drops_overlays_own(tmp_path):
    """user.* travels, overlay's bookkeeping, also escaped, does not."""
    (tmp_path / "f").write_text("")
    for name in ("user.b", "user.a", "user.overlay.origin", "user.overlay.overlay.x"):
        os.setxattr(tmp_path / "f", name, b"\0v")

    assert entries(diff(tmp_path))["f"].xattrs == (("user.a", b"\0v"), ("user.b", b"\0v"))


def make_pair(tmp_path: Path) -> tuple[Path, Path]:
    """Return a lower directory and an upper one with the same content, times included."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "d/e").mkdir(parents=True)
    for path in ("d/f", "d/e/g"):
        (lower / path).write_text(path)
    (lower / "d/s").symlink_to("f")
    os.mkfifo(lower / "d/p")
    for path in ("d/f", "d/e/g", "d/s", "d/p", "d/e", "d"):
        os.utime(lower / path, ns=(5, 1_000_000_000_123_456_789), follow_symlinks=False)
    os.mkdir(upper)
    os.mkdir(upper / "d")
    os.mkdir(upper / "d/e")
    os.mkfifo(upper / "d/p")
    for path in ("d/f", "d/e/g", "d/s"):
        shutil.copy2(lower / path, upper / path, follow_symlinks=False)
    for path in ("d/p", "d/e", "d"):
        shutil.copystat(lower / path, upper / path)
    return lower, upper


def test_diff_of_equal_trees_is_empty(tmp_path):
    """What was copied up and ends as it was is no change, directories included."""
    lower, upper = make_pair(tmp_path)

    assert names(diff(upper, lower)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: (d / "f").chmod(0o600), ["d", "d/f"]),
        (lambda d: (d / "e").chmod(0o700), ["d", "d/e"]),
        (lambda d: d.chmod(0o700), ["d"]),
        (lambda d: os.utime(d / "f", ns=(5, 1_000_000_000_123_456_788)), ["d", "d/f"]),
        (lambda d: touch(d / "s"), ["d", "d/s"]),
        (lambda d: touch(d / "p"), ["d", "d/p"]),
        (lambda d: os.setxattr(d / "f", "user.x", b""), ["d", "d/f"]),
        (lambda d: os.setxattr(d / "e", "user.x", b""), ["d", "d/e"]),
        (
            lambda d: [(d / "e/g").write_text("D/E/G"), os.utime(d / "e/g", ns=(5, 1_000_000_000_123_456_789))],
            ["d", "d/e", "d/e/g"],
        ),
        (lambda d: os.link(d / "f", d / "h"), ["d", "d/f", "d/h"]),
        (lambda d: os.setxattr(d / "e", "user.overlay.opaque", b"y"), ["d", "d/e", "d/e/.wh..wh..opq", "d/e/g"]),
    ],
    ids=[
        "mode",
        "directory-mode",
        "outer-mode",
        "nanosecond",
        "symlink-time",
        "fifo-time",
        "xattr",
        "directory-xattr",
        "content",
        "hard-link",
        "opaque",
    ],
)
def test_diff_writes_what_differs_and_its_parents(tmp_path, change, expected: list[str]):
    """One difference brings its object and the directories above, and nothing else."""
    lower, upper = make_pair(tmp_path)
    before = (upper / "d").stat()

    change(upper / "d")
    os.utime(upper / "d", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert names(diff(upper, lower)) == expected


def test_diff_ignores_stubs_and_what_they_did_to_their_directory(tmp_path):
    """A mount-point stub and the new time of its directory leave no trace; a real change beside it does."""
    lower, upper = make_pair(tmp_path)
    (upper / "d/stub/below").mkdir(parents=True)

    assert names(diff(upper, lower, ignore=(b"d/stub",))) == []
    assert names(diff(upper, lower)) == ["d", "d/stub", "d/stub/below"]
    (upper / "d/new").write_text("")
    assert names(diff(upper, lower, ignore=(b"d/stub",))) == ["d", "d/new"]


def test_diff_new_directory_that_overlay_marks_opaque_hides_nothing(tmp_path):
    """The kernel marks new directories too; without a directory below there is no marker in the layer."""
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/was-file").write_text("")
    for name in ("new", "was-file"):
        (tmp_path / "upper" / name).mkdir(parents=True)
        os.setxattr(tmp_path / "upper" / name, "user.overlay.opaque", b"y")

    assert names(diff(tmp_path / "upper", tmp_path / "lower")) == ["new", "was-file"]


def test_diff_understands_whiteouts_in_xattrs(tmp_path):
    """An empty file with overlay's attribute is a deletion, in a directory that says it has such."""
    for path in ("lower/d", "upper/d"):
        (tmp_path / path).mkdir(parents=True)
        for name in ("gone", "kept"):
            (tmp_path / path / name).write_text("")
    for name in ("gone", "never"):
        (tmp_path / "upper/d" / name).write_text("")
        os.setxattr(tmp_path / "upper/d" / name, "user.overlay.whiteout", b"")
    os.setxattr(tmp_path / "upper/d", "user.overlay.opaque", b"x")
    for path in ("lower/d", "upper/d", "lower/d/kept", "upper/d/kept"):
        touch(tmp_path / path)

    assert names(diff(tmp_path / "upper", tmp_path / "lower")) == ["d", "d/.wh.gone"]


def test_whiteout_entries_have_no_metadata():
    """Markers are empty files of the epoch, as containerd writes them."""
    assert whiteout_entry(b"a/b") == Entry(b"a/.wh.b", EntryKind.FILE, 0, 0, 0, 0)
    assert whiteout_entry(b"b").path == b".wh.b"
    assert opaque_entry(b"a").path == b"a/.wh..wh..opq"
    assert opaque_entry(b"").path == b".wh..wh..opq"


@pytest.mark.userns
def test_diff_of_a_real_overlay(tmp_path):
    """What the kernel leaves in an upper directory becomes the layer that was meant."""
    run_inside(check_real_overlay, tmp_path)


def check_real_overlay(tmp_path: Path) -> None:
    """Run inside."""
    lower, target = tmp_path / "lower", tmp_path / "merged"
    target.mkdir()
    for path in (
        "d1/a",
        "d1/b",
        "d2/a",
        "tofile/a",
        "todir",
        "chmod",
        "append",
        "gone",
        "same",
        "h1",
        "gone-dir/x",
        "unchanged/x",
    ):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).write_text(path)
    os.link(lower / "h1", lower / "h2")
    lower.chmod(0o751)
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    active = snapshots.prepare([lower])
    with snapshots.mount_active([lower], active, target) as m:
        assert stat.S_IMODE(m.stat().st_mode) == 0o751
        shutil.rmtree(m / "d2")
        (m / "d2").mkdir()
        (m / "d2/new").write_text("new")
        shutil.rmtree(m / "gone-dir")
        (m / "gone").unlink()
        (m / "d1/a").unlink()
        (m / "chmod").chmod(0o4755)
        (m / "chmod").chmod(0o644)
        with (m / "append").open("a") as file:
            file.write("+")
        shutil.rmtree(m / "tofile")
        (m / "tofile").write_text("file")
        (m / "todir").unlink()
        (m / "todir").mkdir()
        os.link(m / "same", m / "same-link")
        with (m / "h1").open("a") as file:
            file.write("+")
        (m / "passing").write_text("")
        (m / "passing").unlink()
        (m / "ping").write_text("x")
        os.setxattr(m / "ping", "security.capability", CAPABILITY_V2)
        os.setxattr(m / "ping", "user.x", b"1")

    data = diff(active.upper, lower)

    found = entries(data)
    assert list(found) == [
        "append", "d1", "d1/.wh.a", "d2", "d2/.wh..wh..opq", "d2/new", ".wh.gone", ".wh.gone-dir", "h1", "ping", "same",
        "same-link", "todir", "tofile",
    ]  # fmt: skip
    assert dict(found["ping"].xattrs) == {"security.capability": CAPABILITY_V2, "user.x": b"1"}
    assert found["same-link"].linkname == b"same"
    assert (found["ping"].uid, found["ping"].gid) == (0, 0)


@pytest.mark.userns
def test_diff_looks_through_a_chain(tmp_path):
    """Deletions and empty directories of the middle layers decide what a change is a change to."""
    run_inside(check_chain, tmp_path)


def check_chain(tmp_path: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    target = tmp_path / "merged"
    target.mkdir()
    base = snapshots.prepare()
    for path in ("a/x", "b/x", "f"):
        (base.upper / path).parent.mkdir(exist_ok=True)
        (base.upper / path).write_text("base")
    snapshots.commit(base, "1")
    middle = snapshots.prepare(snapshots.lowers(["1"]))
    with snapshots.mount_active(snapshots.lowers(["1"]), middle, target) as m:
        shutil.rmtree(m / "a")
        (m / "a").mkdir()
        (m / "f").unlink()
    snapshots.commit(middle, "2")
    lowers = snapshots.lowers(["1", "2"])
    top = snapshots.prepare(lowers)
    with snapshots.mount_active(lowers, top, target) as m:
        assert os.listdir(m / "a") == []
        (m / "a/x").write_text("top")
        (m / "a/x").unlink()
        (m / "f").write_text("top")
        (m / "f").unlink()
        (m / "b/x").unlink()
        (m / "a").chmod(0o700)

    assert names(diff(top.upper, *lowers)) == ["a", "b", "b/.wh.x"]


@pytest.mark.userns
def test_layers_that_are_known_are_not_asked_again(tmp_path, monkeypatch):
    """The third layer on many costs no call for each of them: a step is as fast on 300 layers as on one."""
    lowers = []
    for number in range(50):
        (tmp_path / f"{number}/srv").mkdir(parents=True)
        (tmp_path / f"{number}/srv/{number}").touch()
        lowers.append(tmp_path / str(number))
    (tmp_path / "upper/srv").mkdir(parents=True)
    (tmp_path / "upper/srv/new").touch()
    known = KnownTrees()
    asked: list[object] = []
    for call in ("lstat", "open", "scandir"):
        real = getattr(os, call)
        monkeypatch.setattr(
            os, call, lambda path, *rest, real=real, **more: (asked.append(path), real(path, *rest, **more))[1]
        )
    counts = []
    for _ in range(3):
        asked.clear()
        write_changes(tmp_path / "upper", lowers, ArchiveWriter(lambda _: None), known=known)
        counts.append(len(asked))

    assert counts[0] > len(lowers)
    assert counts[2] < 10


def test_directory_made_anew_has_lost_its_xattrs(tmp_path):
    """A directory that takes the place of one with xattrs has none, also where the layer is applied."""
    run_inside(check_renewed_directory, tmp_path)


def check_renewed_directory(tmp_path: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    target, copy = tmp_path / "merged", tmp_path / "copy"
    target.mkdir()
    (copy / "d").mkdir(parents=True)
    os.setxattr(copy / "d", "user.x", b"1")
    base = snapshots.prepare()
    (base.upper / "d").mkdir()
    os.setxattr(base.upper / "d", "user.x", b"1")
    snapshots.commit(base, "1")
    top = snapshots.prepare(snapshots.lowers(["1"]))
    with snapshots.mount_active(snapshots.lowers(["1"]), top, target) as m:
        (m / "d").rmdir()
        (m / "d").mkdir()
    apply_layer(io.BytesIO(diff(top.upper, *snapshots.lowers(["1"]))), copy)

    assert os.listxattr(copy / "d") == []


@pytest.mark.userns
def test_diff_then_apply_gives_the_same_tree(tmp_path):
    """For random changes to random trees: the layer of the upper directory, applied, shows what the overlay showed."""
    run_inside(check_round_trips, tmp_path)


actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "mkdir", "rmtree", "symlink", "link", "chmod", "rename", "fifo", "xattr", "touch", "replace"]
        ),
        st.integers(0, 11),
        st.integers(0, 11),
    ),
    max_size=14,
)
DIRECTORY = EntryKind.DIRECTORY
FULL = [
    ("mkdir", 0, 0),
    ("mkdir", 1, 0),
    ("mkdir", 2, 0),
    ("write", 3, 3),
    ("write", 4, 4),
    ("write", 6, 6),
    ("write", 9, 9),
]
PLACES = ["a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "b/a/a", "c", "c/a", os.fsdecode(b"\xff")]


def check_round_trips(tmp_path: Path) -> None:
    """Run inside."""

    @settings(max_examples=60, database=None, deadline=None)
    @given(actions, actions, actions)
    def round_trip(first, second, third) -> None:
        key = hashlib.sha256(repr((first, second, third)).encode()).hexdigest()
        here = tmp_path / key
        shutil.rmtree(here, ignore_errors=True)
        target = here / "merged"
        copy = here / "copy"
        for path in (target, copy):
            path.mkdir(parents=True)
        snapshots = Snapshots(here / "snapshots", here / "temporary")
        chain: list[str] = []
        for name, changes in zip("123", (first, second, third), strict=True):
            lowers = snapshots.lowers(chain)
            active = snapshots.prepare(lowers)
            with snapshots.mount_active(lowers, active, target):
                for change in (FULL if name == "1" else []) + changes:
                    perform(target, *change)
                shown = tree(target)
            layer = diff(active.upper, *lowers)
            apply_layer(io.BytesIO(layer), copy)
            assert tree(copy) == shown
            # A live overlay shows a pair of which one was copied up as two inodes, so the upper directory is asked.
            written = [
                path for path, entry in entries(layer).items() if ".wh." not in path and entry.kind is not DIRECTORY
            ]
            assert same_files(copy, written) == same_files(active.upper, written)
            # The same layer applied through an overlay shows the same too, and the next layers are made on that.
            again = snapshots.prepare(lowers)
            with snapshots.mount_active(lowers, again, target):
                apply_layer(io.BytesIO(layer), target)
                assert tree(target) == shown
            snapshots.commit(again, name)
            chain.append(name)
        shutil.rmtree(here)

    round_trip()


def perform(root: Path, action: str, first: int, second: int) -> None:
    """Make one change, if it is possible in this tree."""
    path, other = root / PLACES[first], root / PLACES[second]
    try:
        match action:
            case "write":
                # A FIFO would wait for its reader.
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
                os.write(fd, b"%d" % second * second)
                os.close(fd)
            case "mkdir":
                path.mkdir()
            case "rmtree":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            case "symlink":
                path.symlink_to(PLACES[second])
            case "link":
                os.link(other, path, follow_symlinks=False)
            case "chmod":
                path.chmod([0o755, 0o4711, 0o600, 0o1777][second % 4])
            case "rename":
                path.rename(other)
            case "fifo":
                os.mkfifo(path)
            case "xattr":
                os.setxattr(path, "user.x", b"%d" % second)
            case "touch":
                touch(path, mtime=second)
            case _ if stat.S_ISDIR(path.lstat().st_mode):
                shutil.rmtree(path)
                path.mkdir()
            case _:
                path.unlink()
                path.mkdir()
    except OSError:
        pass  # not every change is possible in every tree
