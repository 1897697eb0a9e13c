from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from runtime.errors import HostUnsupportedError, KernelError
from runtime.mounts import MOST_LAYERS
from runtime.snapshots import overlay
from runtime.snapshots.overlay import Active, Snapshots
from tests.runtime.inside import run_inside


@pytest.fixture
def snapshots(tmp_path) -> Snapshots:
    """An empty store."""
    return Snapshots(tmp_path / "snapshots", tmp_path / "temporary")


def put(snapshots: Snapshots, name: str, **files: str) -> None:
    """Commit a snapshot of these files."""
    active = snapshots.prepare()
    for path, content in files.items():
        (active.upper / path).write_text(content)
    snapshots.commit(active, name)


def leftovers(tmp_path: Path) -> list[str]:
    """Return what lies among the unfinished things, but for what all steps share."""
    return [name for name in os.listdir(tmp_path / "temporary") if not name.startswith("skeleton-")]


def test_snapshots_of_an_empty_store(snapshots: Snapshots):
    """A store that does not exist yet has no snapshots."""
    assert snapshots.names() == ()
    assert not snapshots.has("a")


def test_commit_makes_the_tree_visible(snapshots: Snapshots, tmp_path):
    """A committed tree lies under its name, and nothing of the active one is left."""
    put(snapshots, "a", file="x")

    assert snapshots.has("a")
    assert snapshots.names() == ("a",)
    assert (snapshots.path("a") / "file").read_text() == "x"
    assert leftovers(tmp_path) == []


def test_commit_of_a_taken_name_keeps_the_first(snapshots: Snapshots, tmp_path):
    """The second of two processes succeeds too, and its tree goes."""
    put(snapshots, "a", file="first")
    put(snapshots, "a", file="second")

    assert (snapshots.path("a") / "file").read_text() == "first"
    assert leftovers(tmp_path) == []


def test_commit_by_many_at_once_has_one_winner(snapshots: Snapshots, tmp_path):
    """All that commit one name at the same time succeed."""
    actives = [snapshots.prepare() for _ in range(8)]
    for number, active in enumerate(actives):
        (active.upper / f"{number}").write_text("")
    errors: list[BaseException] = []
    start = threading.Barrier(len(actives))

    def commit(active: Active) -> None:
        start.wait()
        try:
            snapshots.commit(active, "a")
        except BaseException as error:  # noqa: BLE001 - given to the test
            errors.append(error)

    threads = [threading.Thread(target=commit, args=(active,)) for active in actives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(os.listdir(snapshots.path("a"))) == 1
    assert leftovers(tmp_path) == []


def test_prepare_copies_the_root_of_the_layer_below(snapshots: Snapshots):
    """The root directory shows the mode and time of the topmost layer, a first one 0755."""
    first = snapshots.prepare()
    assert stat.S_IMODE(first.upper.stat().st_mode) == 0o755
    first.upper.chmod(0o1751)
    os.utime(first.upper, ns=(0, 1_000_000_001))
    snapshots.commit(first, "a")
    put(snapshots, "base")

    second = snapshots.prepare(snapshots.lowers(["base", "a"]))

    assert stat.S_IMODE(second.upper.stat().st_mode) == 0o1751
    assert second.upper.stat().st_mtime_ns == 1_000_000_001


def test_remove_takes_trees_of_any_mode(snapshots: Snapshots, tmp_path):
    """Directories of mode 0000 go too, and removing twice is no error."""
    active = snapshots.prepare()
    (active.upper / "d/e").mkdir(parents=True)
    (active.upper / "d/e/f").write_text("")
    (active.upper / "d/e").chmod(0)
    (active.upper / "d").chmod(0)
    snapshots.commit(active, "a")

    snapshots.remove("a")
    snapshots.remove("a")

    assert snapshots.names() == ()
    assert leftovers(tmp_path) == []


def test_discard_is_idempotent(snapshots: Snapshots, tmp_path):
    """An active snapshot can be discarded twice."""
    active = snapshots.prepare()

    snapshots.discard(active)
    snapshots.discard(active)

    assert leftovers(tmp_path) == []


def test_size_counts_disk_blocks_and_hard_links_once(snapshots: Snapshots):
    """The size is that on disk."""
    active = snapshots.prepare()
    (active.upper / "f").write_bytes(bytes(100_000))
    snapshots.commit(active, "a")
    alone = snapshots.measure("a")
    os.link(snapshots.path("a") / "f", snapshots.path("a") / "g")

    assert 100_000 <= alone < 200_000
    assert snapshots.measure("a") == alone


def test_size_is_remembered_and_use_is_noted(snapshots: Snapshots, tmp_path):
    """A size is found out once; asking for a snapshot is a use of it only where somebody collects."""
    put(snapshots, "a", file="x")
    (fresh,) = snapshots.stored()
    os.utime(tmp_path / "snapshots" / ".sizes" / "a", (1, 1))
    size = snapshots.measure("a")
    (measured,) = snapshots.stored()
    snapshots.has("a")
    (read,) = snapshots.stored()
    collected = Snapshots(tmp_path / "snapshots", tmp_path / "temporary", hold=lambda _: contextlib.nullcontext())
    collected.has("a")
    (used,) = snapshots.stored()

    assert fresh.size is None
    assert (measured.size, measured.used) == (size, 1_000_000_000)
    assert read == measured
    assert used.used > 1_000_000_000


def test_snapshot_is_held_before_it_is_found(tmp_path):
    """Whoever asks for a snapshot, or makes one, holds the directory that it is or will be in."""
    held: list[str] = []

    def hold(name: str) -> contextlib.nullcontext[None]:
        held.append(name)
        return contextlib.nullcontext()

    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary", hold=hold)
    put(snapshots, "a", file="x")
    made = list(held)
    snapshots.has("b")

    assert set(made) == {snapshots.path("a").name}
    assert held[-1] == snapshots.path("b").name


def test_snapshot_without_a_note_is_as_old_as_its_directory(snapshots: Snapshots, tmp_path):
    """A snapshot of an earlier version is listed, and measured, like others."""
    put(snapshots, "a", file="x")
    (tmp_path / "snapshots" / ".sizes" / "a").unlink()
    (found,) = snapshots.stored()
    size = snapshots.measure("a")
    (known,) = snapshots.stored()

    assert (found.size, found.used) == (None, (tmp_path / "snapshots" / "a").stat().st_ctime_ns)
    assert (known.size, known.used) == (size, found.used)


def test_snapshot_laid_aside_is_whole(snapshots: Snapshots, tmp_path):
    """It goes at once with what is known of it; a second time is no error."""
    put(snapshots, "a", file="x")
    snapshots.lay_aside("a", tmp_path / "aside")
    snapshots.lay_aside("a", tmp_path / "aside")

    assert (tmp_path / "aside" / "file").read_text() == "x"
    assert snapshots.stored() == ()
    assert os.listdir(tmp_path / "snapshots" / ".sizes") == []


def test_size_of_a_missing_snapshot_names_it(snapshots: Snapshots):
    """A missing snapshot is a kernel error with its path."""
    with pytest.raises(KernelError, match=r"read on `.*snapshots/a`: No such file"):
        snapshots.measure("a")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", ".hidden"])
def test_path_refuses_names_that_are_none(snapshots: Snapshots, name: str):
    """A name is one component."""
    with pytest.raises(ValueError, match="not the name of a snapshot"):
        snapshots.path(name)


@pytest.mark.userns
@pytest.mark.parametrize("depth", [1, 2, 90])
@pytest.mark.parametrize("way", ["contexts", "options"])
def test_mount_view_shows_a_chain(tmp_path, depth: int, way: str):
    """A chain of any length is seen as one tree, read-only, also on kernels that know only mount(2)."""
    run_inside(check_view_by_contexts if way == "contexts" else check_view_by_options, tmp_path, Path(str(depth)))


def check_view_by_options(tmp_path: Path, depth: Path) -> None:
    """Run inside, without the newer calls."""

    def refuse(*_: object, **__: object) -> int:
        raise KernelError("fsopen", errno.ENOSYS)

    overlay.create_mount = refuse
    check_view_by_contexts(tmp_path, depth)


def check_view_by_contexts(tmp_path: Path, depth: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "a:b,c" / "snapshots", tmp_path / "temporary")
    target = tmp_path / "target"
    target.mkdir()
    chain = [f"{number:064}" for number in range(int(str(depth)))]
    for name in chain:
        put(snapshots, name, top=name, **{f"f{name}": name})

    with snapshots.mount_view(chain, target) as view:
        assert (view / "top").read_text() == chain[-1]
        assert len(os.listdir(view)) == len(chain) + 1
        with pytest.raises(OSError, match="Read-only"):
            (view / "new").write_text("")

    assert os.listdir(target) == []


@pytest.mark.userns
def test_chain_is_as_long_as_the_kernel_allows(tmp_path):
    """500 layers are one tree; one more is refused in words that say what can be done."""
    run_inside(check_longest_chain, tmp_path)


def check_longest_chain(tmp_path: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    (tmp_path / "target").mkdir()
    chain = [f"{number:064}" for number in range(MOST_LAYERS + 1)]
    for name in chain:
        put(snapshots, name, top=name)

    with snapshots.mount_view(chain[:-1], tmp_path / "target") as view:
        assert (view / "top").read_text() == chain[-2]
    with (
        pytest.raises(HostUnsupportedError, match="a file system of 501 layers: its kernel stacks at most 500"),
        snapshots.mount_view(chain, tmp_path / "target"),
    ):
        pass


@pytest.mark.userns
def test_mount_active_takes_changes(tmp_path):
    """Changes land in the active snapshot, which becomes the next layer of the chain."""
    run_inside(check_active, tmp_path)


def check_active(tmp_path: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    target = tmp_path / "target"
    target.mkdir()
    put(snapshots, "1", gone="1", kept="1")
    (snapshots.path("1") / "d").mkdir()
    (snapshots.path("1") / "d/x").write_text("")
    lowers = snapshots.lowers(["1"])
    active = snapshots.prepare(lowers)
    with snapshots.mount_active(lowers, active, target) as tree:
        (tree / "gone").unlink()
        (tree / "new").write_text("2")
        (tree / "d/x").unlink()
        (tree / "d").rmdir()
        (tree / "d").mkdir()
        (tree / "d").chmod(0)
    snapshots.commit(active, "2")

    with snapshots.mount_view(["1", "2"], target) as view:
        assert sorted(os.listdir(view)) == ["d", "kept", "new"]
        assert os.listdir(view / "d") == []
    snapshots.remove("2")
    assert snapshots.names() == ("1",)
    assert leftovers(tmp_path) == []


@pytest.mark.userns
def test_mount_active_without_a_chain_is_the_upper_directory(tmp_path):
    """A first layer needs no overlay."""
    run_inside(check_active_alone, tmp_path)


def check_active_alone(tmp_path: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    (tmp_path / "target").mkdir()
    active = snapshots.prepare()

    with snapshots.mount_active((), active, tmp_path / "target") as tree:
        (tree / "f").write_text("x")

    assert (active.upper / "f").read_text() == "x"
    assert os.listdir(tmp_path / "target") == []


@pytest.mark.userns
def test_mounts_end_with_an_error_in_the_block(tmp_path):
    """A block that fails leaves no mount."""
    run_inside(check_error_unmounts, tmp_path)


def check_error_unmounts(tmp_path: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    target = tmp_path / "target"
    target.mkdir()
    put(snapshots, "1", f="1")

    with pytest.raises(KeyError), snapshots.mount_view(["1"], target):
        raise KeyError

    assert os.listdir(target) == []


@pytest.mark.userns
def test_mount_view_of_a_missing_layer_names_it(tmp_path):
    """A chain with a hole is an error that says where."""
    run_inside(check_missing_layer, tmp_path)


def check_missing_layer(tmp_path: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(tmp_path / "snapshots", tmp_path / "temporary")
    (tmp_path / "target").mkdir()
    put(snapshots, "1", f="1")

    with (
        pytest.raises(KernelError, match="snapshots/missing"),
        snapshots.mount_view(["1", "missing"], tmp_path / "target"),
    ):
        pass
