"""Caches: who shares a tree, who waits, who gets another."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from builder.errors import BuildError
from builder.solve.cache_mounts import CacheMounts, cache_mounts, remove_cache_mounts

if TYPE_CHECKING:
    from pathlib import Path


def make(root: Path, *, canceled: bool = False) -> CacheMounts:
    """Return the caches of a store, as one of many processes sees them."""
    temporary = root / "tmp"
    temporary.mkdir(exist_ok=True)
    return CacheMounts(root, temporary, lambda: canceled)


def leave_alone(folder: Path) -> None:
    """Fill a cache with nothing."""
    assert folder.is_dir()


def test_shared_users_get_one_tree(tmp_path: Path) -> None:
    """Two users that share see the same directory at the same time."""
    caches = make(tmp_path)

    with (
        caches.hold("key", "id", "shared", fill=leave_alone) as first,
        caches.hold("key", "id", "shared", fill=leave_alone) as second,
    ):
        assert first == second


def test_private_user_gets_another_tree(tmp_path: Path) -> None:
    """A second private user has a fresh directory, and the first one's is used again later."""
    caches = make(tmp_path)

    with (
        caches.hold("key", "id", "private", fill=leave_alone) as first,
        caches.hold("key", "id", "private", fill=leave_alone) as second,
    ):
        (first / "file").touch()
        assert list(second.iterdir()) == []
    with caches.hold("key", "id", "private", fill=leave_alone) as again:
        assert [path.name for path in again.iterdir()] == ["file"]


def test_cache_is_read_beside_those_who_share_it(tmp_path: Path) -> None:
    """Reading gives the first tree, or None where there is none; one that somebody has alone is not waited for."""
    caches = make(tmp_path)

    with caches.read("key") as nothing:
        assert nothing is None
    with caches.hold("key", "id", "shared", fill=leave_alone) as tree, caches.read("key") as read:
        assert read == tree
    with (
        caches.hold("key", "id", "locked", fill=leave_alone),
        pytest.raises(BuildError, match="for itself"),
        caches.read("key"),
    ):
        pass


def test_locked_user_waits(tmp_path: Path) -> None:
    """Of two locked users the second begins when the first has ended."""
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with make(tmp_path).hold("key", "id", "locked", fill=leave_alone):
            order.append("second")

    with ExitStack() as stack:
        stack.enter_context(make(tmp_path).hold("key", "id", "locked", fill=leave_alone))
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        order.append("first")
        stack.close()
        thread.join()

    assert order == ["first", "second"]


def test_waiting_ends_when_the_build_is_canceled(tmp_path: Path) -> None:
    """A build that is canceled does not wait for a cache."""
    with (
        make(tmp_path).hold("key", "id", "locked", fill=leave_alone),
        pytest.raises(BuildError, match="canceled while waiting"),
        make(tmp_path, canceled=True).hold("key", "id", "locked", fill=leave_alone),
    ):
        pass


def test_failed_filling_leaves_no_tree(tmp_path: Path) -> None:
    """A cache whose content cannot be made is made by the next user."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), make(tmp_path).hold("key", "id", "shared", fill=fail):
        pass
    with make(tmp_path).hold("key", "id", "shared", fill=leave_alone) as tree:
        assert list(tree.iterdir()) == []


def test_renewed_cache_is_empty(tmp_path: Path) -> None:
    """A cache that is renewed begins anew."""
    with make(tmp_path).hold("key", "id", "shared", fill=leave_alone) as tree:
        (tree / "file").touch()

    with make(tmp_path).hold("key", "id", "shared", fill=leave_alone, renew=True) as tree:
        assert list(tree.iterdir()) == []


def test_caches_are_removed(tmp_path: Path) -> None:
    """After removing, no cache is left."""
    with make(tmp_path).hold("key", "id", "shared", fill=leave_alone):
        pass

    assert remove_cache_mounts(tmp_path) == 1
    assert cache_mounts(tmp_path) == ()
