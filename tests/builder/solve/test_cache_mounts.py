"""Caches: who shares a tree, who waits, who gets another."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from builder.errors import BuildError
from builder.solve.cache_mounts import CacheMounts, StoredCache, lay_cache_aside, list_caches

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


def test_cache_is_listed_with_its_name_and_last_use(tmp_path: Path) -> None:
    """A cache is known by its key, for people by its id, and each use is noted."""
    with make(tmp_path).hold("key", "my id", "shared", fill=leave_alone):
        pass
    os.utime(tmp_path / "mounts" / "key" / "lock-0", ns=(5, 5))
    old = list_caches(tmp_path)
    with make(tmp_path).hold("key", "my id", "shared", fill=leave_alone):
        pass
    (new,) = list_caches(tmp_path)

    assert old == (StoredCache(key="key", id="my id", used=5),)
    assert new.used > 5


def test_cache_is_removed_unless_it_is_in_use(tmp_path: Path) -> None:
    """A cache stays while a step has it, and is gone whole after that."""
    with make(tmp_path).hold("key", "id", "shared", fill=leave_alone):
        assert not lay_cache_aside(tmp_path, "key", tmp_path / "aside")
        assert list_caches(tmp_path)

    assert lay_cache_aside(tmp_path, "key", tmp_path / "aside")
    assert (tmp_path / "aside" / "tree-0").is_dir()
    assert list_caches(tmp_path) == ()


def test_cache_that_is_removed_again_and_again_serves_all(tmp_path: Path) -> None:
    """Steps that take a cache while it is removed under their hands find it whole, or a new one."""
    errors: list[BaseException] = []

    def use() -> None:
        try:
            for number in range(20):
                with make(tmp_path).hold("key", "id", "locked", fill=leave_alone) as tree:
                    (tree / "file").write_text(str(number))
                    assert (tree / "file").read_text() == str(number)
        except BaseException as error:  # noqa: BLE001  the test's own thread raises it
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    removed = 0
    while any(thread.is_alive() for thread in threads):
        removed += lay_cache_aside(tmp_path, "key", tmp_path / f"aside-{removed}")
    for thread in threads:
        thread.join()

    assert errors == []
