"""The store: who lives in it, what is swept, what keeps others out."""

import errno
import os

import pytest

from builder.errors import StoreError, UsageError
from builder.store import BOOT_ID, RESERVE_NAME, RESERVE_SIZE, Store, check_root
from registry.errors import StoreFullError
from runtime.errors import KernelError


@pytest.fixture
def store(tmp_path):
    """Give an open store."""
    with Store(tmp_path / "root") as opened:
        yield opened


def test_sweep_removes_what_the_dead_left_and_spares_the_living(store):
    """A folder whose owner holds its lock stays, one without owner goes."""
    abandoned = store.root / "tmp" / "1-dead"
    abandoned.mkdir()
    (abandoned / ".lock").touch()
    (abandoned / "half").write_text("x")
    with Store(store.root) as other:
        store.sweep()

        assert not abandoned.exists()
        assert other.temporary.is_dir()
        assert store.temporary.is_dir()


def test_sweep_drops_snapshots_of_another_boot(store):
    """Snapshots are not synced, so those of another boot are made again; those of this one stay."""
    store.sweep()
    (store.root / "snapshots" / "made-now").mkdir()
    store.sweep()
    kept = store.snapshots.names()
    (store.root / "snapshots" / ".boot").write_text("another boot")
    store.sweep()

    assert kept == ("made-now",)
    assert store.snapshots.names() == ()
    assert (store.root / "snapshots" / ".boot").read_bytes() == BOOT_ID.read_bytes()


def test_close_leaves_nothing_unfinished(tmp_path):
    """The folder of a process goes with it, also when something in it cannot be entered."""
    store = Store(tmp_path / "root")
    closed = store.temporary / "closed"
    closed.mkdir()
    (closed / "file").touch()
    closed.chmod(0)
    store.close()

    assert list((tmp_path / "root" / "tmp").iterdir()) == []


def test_sweep_tells_what_the_dead_held(tmp_path):
    """What a killed process held is given back once, what a living one holds is not."""
    store = Store(tmp_path / "root")
    with Store(store.root) as other:
        other.snapshots.has("living")
        dead = store.root / "tmp" / "1-dead"
        dead.mkdir()
        (dead / ".held").write_text("one\ntwo\n")

        assert store.sweep_unfinished() == {"one", "two"}
        assert store.sweep_unfinished() == set()
        with store.removing() as held:
            assert held == {"living"}
    store.close()


def test_root_that_cannot_be_made_is_refused_with_its_name(tmp_path):
    """A file in the way is named, with what to do."""
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="store cannot be used") as caught:
        Store(tmp_path / "file" / "root")

    assert "--root" in str(caught.value.hint)


@pytest.mark.parametrize("made", [False, True], ids=["missing", "a file"])
def test_root_that_is_not_there_is_not_made_by_who_only_looks(tmp_path, made):
    """A typing error in the root makes no store, and is named."""
    root = tmp_path / "root"
    if made:
        root.touch()

    with pytest.raises(UsageError, match=r"store does not exist: `.*/root`"):
        check_root(root)


def test_root_of_something_else_is_refused(tmp_path):
    """A folder with other things in it is left alone; an empty one will do."""
    (tmp_path / "photos").mkdir()

    with pytest.raises(UsageError, match="no store of pybuild"):
        check_root(tmp_path)

    assert check_root(tmp_path / "photos") == tmp_path / "photos"


def test_descriptors_of_the_store_are_not_inherited(store):
    """A step or credential helper gets none of the store's descriptors."""
    opened = [fd for fd in os.listdir("/proc/self/fd") if _points_into(fd, str(store.root))]

    assert opened
    assert not any(os.get_inheritable(int(fd)) for fd in opened)


def _points_into(fd: str, folder: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(folder)
    except OSError:
        return False


def test_store_keeps_a_reserve_that_deleting_uses_up(tmp_path):
    """The bytes are really there, are given back for deleting, and kept anew when that is done."""
    with Store(tmp_path):
        status = (tmp_path / RESERVE_NAME).stat()
    with Store(tmp_path, deletes=True):
        given_back = not (tmp_path / RESERVE_NAME).exists()
    kept = (tmp_path / RESERVE_NAME).exists()

    assert status.st_blocks * 512 >= RESERVE_SIZE
    assert (given_back, kept) == (True, True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(OSError(errno.ENOSPC, "x"), StoreFullError, id="system"),
        pytest.param(KernelError("unpack", errno.EDQUOT, subject="x"), StoreFullError, id="unpacking"),
        pytest.param(KernelError("mount", errno.ENOSPC), KernelError, id="too many mounts"),
        pytest.param(OSError(errno.EACCES, "x"), PermissionError, id="other"),
    ],
)
def test_full_store_is_told_from_other_errors(store, error, expected):
    """What means that no byte is left becomes one error; limits on other things stay what they are."""
    with pytest.raises(expected, match=r"No space|quota|mount|x") as caught, store.telling_when_full():
        raise error

    assert type(caught.value) is expected
