"""The contract of snapshotters, run over all of them, and that they give the same layers."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from runtime import syscalls
from runtime.errors import KernelError
from runtime.snapshots.copies import CopiedSnapshots
from runtime.snapshots.copying import Copier
from runtime.snapshots.overlay import Snapshots, takes_upper
from tests.runtime.inside import run_inside
from tests.runtime.snapshots import contract

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.snapshots.snapshotter import Snapshotter

pytestmark = pytest.mark.userns

KINDS = ("overlay", "overlay-on-tmpfs", "copies", "copies-on-overlay", "copies-on-tmpfs")


_MOUNTED = ExitStack()
"""Mounts that last as long as the process, which has a mount namespace of its own."""


def _make(kind: str, folder: Path) -> tuple[Snapshotter, Path]:
    """Make an empty snapshotter; return it with the folder of its store."""
    name, _, place = kind.partition("-on-")
    if place == "overlay":
        folder = _mount_overlay(folder)
    elif place:
        folder = _mount_memory(folder, place)
    made = Snapshots if name == "overlay" else CopiedSnapshots
    return made(folder / "snapshots", folder / "temporary"), folder


def _mount_memory(folder: Path, kind: str) -> Path:
    """Mount a tmpfs, or a ramfs, which is one without extended attributes."""
    syscalls.mount(kind, str(folder), kind)
    return folder


def _mount_overlay(folder: Path) -> Path:
    """Mount an overlay, as a container's root file system is one: it makes no devices 0:0, and is no upper."""
    (folder / "root").mkdir()
    outer = Snapshots(folder / "outer", folder / "outer-temporary")
    lower, active = outer.prepare(), outer.prepare()
    _MOUNTED.enter_context(outer.mount_active((lower.upper,), active, folder / "root"))
    return folder / "root"


def _check(kind: Path, name: Path, folder: Path) -> None:
    snapshots, place = _make(kind.name, folder)
    next(rule for rule in contract.CONTRACT if rule.__name__ == name.name)(snapshots, place)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [rule.__name__ for rule in contract.CONTRACT])
def test_contract(tmp_path: Path, kind: str, rule: str):
    """Each snapshotter does what the rule says."""
    run_inside(_check, tmp_path / kind, tmp_path / rule, tmp_path)


def _compare(kind: Path, first: Path, folder: Path) -> None:
    for seed in range(int(first.name), int(first.name) + 10):
        place = folder / f"{seed}"
        (place / "a").mkdir(parents=True)
        (place / "b").mkdir()
        wanted = contract.random_layers(_make("overlay", place / "a")[0], seed)
        snapshots, _ = _make(kind.name, place / "b")
        assert contract.random_layers(snapshots, seed) == wanted, seed


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_steps_give_the_same_layers(tmp_path: Path, kind: str, first: int):
    """Whatever steps do, their layers are the same bytes on overlay and on copies, wherever the store lies."""
    run_inside(_compare, tmp_path / kind, tmp_path / f"{first}", tmp_path)


def _listing(view: Path) -> dict[str, tuple[int, int]]:
    found = sorted(view.rglob("*"))
    return {str(path.relative_to(view)): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in found}


def _files(tree: Path) -> list[Path]:
    return [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]


def _read_by_overlay(folder: Path) -> None:
    snapshots, place = _make("copies-on-overlay", folder)
    names = [f"s{step}" for step in range(4)]
    marks = 0
    for seed in range(12):
        contract.random_layers(snapshots, seed)
        snapshots = CopiedSnapshots(place / "snapshots", place / "temporary")  # has no tree that waits
        overlay = Snapshots(place / "snapshots", folder / "mounts")
        with overlay.view(names) as mounted, snapshots.view(names) as linked:
            assert _listing(linked) == _listing(mounted), seed
        for name in names:
            marks += sum("user.overlay.whiteout" in os.listxattr(path) for path in _files(snapshots.lowers([name])[0]))
            snapshots.remove(name)
    assert marks


def test_overlay_reads_what_copies_wrote_on_an_overlay(tmp_path: Path):
    """Whiteouts that are files with an attribute mean the same to the kernel as to us."""
    run_inside(_read_by_overlay, tmp_path)


def _ask(folder: Path) -> None:
    assert takes_upper(folder)
    assert not list(folder.iterdir())
    assert not takes_upper(_mount_overlay(folder))


def test_overlay_does_not_take_an_upper_on_an_overlay(tmp_path: Path):
    """A store on a container's root file system is known to need copies."""
    run_inside(_ask, tmp_path)


def _ask_without_attributes(folder: Path) -> None:
    assert not takes_upper(_mount_memory(folder, "ramfs"))
    snapshots = CopiedSnapshots(folder / "snapshots", folder / "temporary")
    with pytest.raises(KernelError, match="Operation not supported") as caught:
        contract.a_directory_made_again_is_opaque(snapshots, folder)
    assert "keeps no extended attributes" in (caught.value.hint or "")


def test_file_system_without_attributes_is_known_and_named(tmp_path: Path):
    """Overlay mounts there and fails later, in the middle of a step; copies say what is wrong when it matters."""
    run_inside(_ask_without_attributes, tmp_path)


def _hand_on(folder: Path) -> None:
    snapshots, place = _make("copies", folder)
    contract.make_layer(snapshots, [], "base", contract.write_base)
    contract.make_layer(snapshots, ["base"], "one", lambda root: (root / "x").write_text(""))
    copied: list[bytes] = []
    copy_object = Copier.copy_object

    def count(self, source_fd, name, status, target_fd):
        copied.append(name)
        copy_object(self, source_fd, name, status, target_fd)

    Copier.copy_object = count  # type: ignore[method-assign] - counted in this process alone
    contract.make_layer(snapshots, ["base", "one"], "two", lambda root: (root / "y").write_text(""))
    assert copied == [b"y"]
    assert len([name for name in os.listdir(place / "temporary") if name.startswith("kept-")]) == 1


def test_the_next_step_takes_the_tree_over(tmp_path: Path):
    """A step on the chain that was just committed copies nothing but what it changes."""
    run_inside(_hand_on, tmp_path)
