from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading

import pytest

from runtime import paths
from runtime.errors import KernelError
from runtime.paths import mkdirs_in_root, open_directory_in_root, open_in_root, remove_tree


@pytest.fixture(params=["openat2", "walker"])
def how(request, monkeypatch) -> str:
    """Both ways to resolve a path: the kernel's, and ours where seccomp refuses it."""
    if request.param == "walker":
        monkeypatch.setattr(paths, "_has_openat2", lambda: False)
    return request.param


@pytest.fixture
def tree(tmp_path):
    """A root with files, links of every kind, and a secret beside it."""
    root = tmp_path / "root"
    (root / "dir/sub").mkdir(parents=True)
    (root / "file").write_text("root file")
    (root / "dir/file").write_text("dir file")
    (root / "secret").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    for name, target in {
        "absolute": "/dir/file",
        "relative": "dir/file",
        "up": "../../../secret",
        "absolute-up": "/../../secret",
        "dir/link": "../dir/sub/../file",
        "dirlink": "/dir",
        "slash": "dir/",
        "loop": "loop",
        "dangling": "/new/target",
        "host": str(tmp_path / "secret"),
        "dot": "/.",
        "chain0": "file",
        **{f"chain{n + 1}": f"chain{n}" for n in range(60)},
    }.items():
        (root / name).symlink_to(target)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield root, fd
    os.close(fd)


def content_of(fd: int) -> str:
    """Return the text of an open file and close it."""
    with open(fd) as file:
        return file.read()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("file", "root file"),
        ("/file", "root file"),
        ("../../file", "root file"),
        ("dir/../file", "root file"),
        ("dir//./file", "dir file"),
        ("absolute", "dir file"),
        ("relative", "dir file"),
        ("dir/link", "dir file"),
        ("dirlink/file", "dir file"),
        ("slash/file", "dir file"),
        ("dirlink/sub/../../file", "root file"),
        ("up", "inside"),
        ("absolute-up", "inside"),
        ("dot/file", "root file"),
        ("chain39", "root file"),
    ],
)
def test_open_in_root_follows_links_inside_the_root(how: str, tree, path: str, content: str):
    """Absolute links begin at the root, and `..` stops at it."""
    assert content_of(open_in_root(tree[1], path, os.O_RDONLY)) == content


@pytest.mark.parametrize(
    ("path", "flags", "number"),
    [
        ("missing", os.O_RDONLY, errno.ENOENT),
        ("host", os.O_RDONLY, errno.ENOENT),
        ("dangling", os.O_RDONLY, errno.ENOENT),
        ("loop", os.O_RDONLY, errno.ELOOP),
        ("loop/x", os.O_RDONLY, errno.ELOOP),
        ("chain40", os.O_RDONLY, errno.ELOOP),
        ("file/x", os.O_RDONLY, errno.ENOTDIR),
        ("file/..", os.O_RDONLY, errno.ENOTDIR),
        ("file/", os.O_RDONLY, errno.ENOTDIR),
        ("relative", os.O_RDONLY | os.O_NOFOLLOW, errno.ELOOP),
        ("dir", os.O_WRONLY, errno.EISDIR),
        ("x" * 256, os.O_RDONLY, errno.ENAMETOOLONG),
    ],
)
def test_open_in_root_fails_as_the_kernel_does(how: str, tree, path: str, flags: int, number: int):
    """The errors are those of open(2) in a process with that root."""
    with pytest.raises(KernelError) as caught:
        open_in_root(tree[1], path, flags)

    assert caught.value.errno == number


def test_open_in_root_opens_a_link_itself(how: str, tree):
    """O_PATH with O_NOFOLLOW gives the link."""
    fd = open_in_root(tree[1], "dirlink/link", os.O_PATH | os.O_NOFOLLOW)

    assert stat.S_ISLNK(os.fstat(fd).st_mode)
    os.close(fd)


def test_open_in_root_creates_what_a_link_points_to(how: str, tree):
    """O_CREAT follows a dangling link inside the root, as the kernel does."""
    (tree[0] / "new").mkdir()

    os.close(open_in_root(tree[1], "dangling", os.O_WRONLY | os.O_CREAT, 0o600))

    assert (tree[0] / "new/target").stat().st_size == 0


def test_open_in_root_takes_bytes_that_are_not_utf8(how: str, tree):
    """Names are bytes."""
    (tree[0] / os.fsdecode(b"\xff")).write_text("raw")

    assert content_of(open_in_root(tree[1], b"dir/../\xff", os.O_RDONLY)) == "raw"


def test_open_in_root_takes_paths_longer_than_the_kernel(how: str, tmp_path):
    """A path over PATH_MAX is walked in steps."""
    root = os.open(tmp_path, os.O_PATH)
    path = "/".join(["d" * 200] * 25)

    os.close(mkdirs_in_root(root, path))

    os.close(open_in_root(root, path, os.O_RDONLY))
    remove_tree(root, b"d" * 200)
    assert os.listdir(tmp_path) == []
    os.close(root)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        (b"", b""),
        (b"dir", b"dir"),
        (b"/dir/sub/", b"dir/sub"),
        (b"dirlink/sub", b"dir/sub"),
        (b"dot/dirlink/../slash/./sub", b"dir/sub"),
        (b"dir/../dir", b"dir"),
    ],
)
def test_open_directory_in_root_tells_where_it_is(how: str, tree, path: bytes, real: bytes):
    """The path without symbolic links names the directory that was opened."""
    fd, found = open_directory_in_root(tree[1], path)

    assert found == real
    assert os.path.samestat(os.fstat(fd), os.stat(os.fsencode(tree[0]) + b"/" + real))
    os.close(fd)


def test_mkdirs_in_root_makes_what_is_missing(how: str, tree):
    """Missing directories get the mode whatever the umask; existing ones stay."""
    (tree[0] / "dir").chmod(0o700)
    old = os.umask(0o077)

    try:
        os.close(mkdirs_in_root(tree[1], "dirlink/a/../b/c", 0o755))
    finally:
        os.umask(old)

    modes = {path: stat.S_IMODE((tree[0] / path).stat().st_mode) for path in ("dir", "dir/a", "dir/b", "dir/b/c")}
    assert modes == {"dir": 0o700, "dir/a": 0o755, "dir/b": 0o755, "dir/b/c": 0o755}


def test_mkdirs_in_root_makes_the_target_of_a_dangling_link(how: str, tree):
    """A link to a directory that does not exist yet leads inside the root."""
    os.close(mkdirs_in_root(tree[1], "dangling/x"))

    assert (tree[0] / "new/target/x").is_dir()


@pytest.mark.parametrize(("path", "number"), [("file/x", errno.ENOTDIR), ("loop/x", errno.ELOOP)])
def test_mkdirs_in_root_fails_where_no_directory_can_be(how: str, tree, path: str, number: int):
    """A file on the way, or a loop, is an error."""
    with pytest.raises(KernelError) as caught:
        mkdirs_in_root(tree[1], path)

    assert caught.value.errno == number


def test_open_in_root_never_leaves_while_directories_are_swapped(how: str, tmp_path):
    """A directory that becomes a link and back, and moves, never leads to what lies outside the root."""
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for place in (root, root / "a", tmp_path / "outside", tmp_path):
        (place / "file").write_text("outside" if place in {tmp_path, tmp_path / "outside"} else "inside")
    (root / "evil").symlink_to("../outside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(root / "a", root / "moved")
            os.rename(root / "evil", root / "a")
            os.rename(root / "a", root / "evil")
            os.rename(root / "moved", tmp_path / "away")
            os.rename(tmp_path / "away", root / "a")

    swapper = threading.Thread(target=swap)
    swapper.start()
    fd = os.open(root, os.O_PATH)
    seen = set()
    try:
        for _ in range(300):
            for path in ("a/file", "a/b/../file", "a/b/../../file"):
                try:
                    seen.add(content_of(open_in_root(fd, path, os.O_RDONLY)))
                except KernelError as error:
                    assert error.errno in {errno.ENOENT, errno.EAGAIN, errno.EXDEV, errno.ELOOP}  # noqa: PT017 - either outcome is right
    finally:
        done.set()
        swapper.join()
        os.close(fd)

    assert seen <= {"inside"}


def test_remove_tree_removes_trees_without_permissions(tmp_path):
    """Directories of mode 0000 go, links are not followed, and a missing tree is no error."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    deep = tmp_path / "tree/a/b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("")
    (deep / "link").symlink_to(tmp_path / "kept")
    for path in (deep, deep.parent, tmp_path / "tree"):
        path.chmod(0)
    fd = os.open(tmp_path, os.O_PATH)

    remove_tree(fd, b"tree")
    remove_tree(fd, b"tree")

    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept/file").exists()
    os.close(fd)


def test_remove_tree_removes_trees_deeper_than_descriptors_last(tmp_path):
    """Three thousand levels are removed without opening them all."""
    fd = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(fd)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    try:
        remove_tree(fd, b"d")

        assert os.listdir(tmp_path) == []
    finally:
        os.close(fd)
        # Left behind, it would end every later run of pytest, which cleans up by recursion.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_walker_is_taken_where_openat2_is_missing(monkeypatch, tmp_path):
    """A kernel or a seccomp profile without openat2 is noticed once."""

    def refuse(*_: object) -> int:
        raise KernelError("openat2", errno.ENOSYS)

    (tmp_path / "file").write_text("found")
    monkeypatch.setattr(paths, "openat2", refuse)
    paths._has_openat2.cache_clear()
    fd = os.open(tmp_path, os.O_PATH)

    try:
        assert content_of(open_in_root(fd, "file", os.O_RDONLY)) == "found"
    finally:
        paths._has_openat2.cache_clear()
        os.close(fd)
