"""Contexts that come as a tar."""

import io
import os
import stat
import tarfile

import pytest

from builder.context.archive import looks_like_archive, unpack_context
from builder.errors import ContextError


def make_tar(*members):
    """Make a tar of pairs of a name and a content or a change of the header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                for key, value in what.items():
                    setattr(info, key, value)
                tar.addfile(info)
    return out.getvalue()


def unpack(folder, data):
    """Unpack into a folder below *folder* and return it."""
    target = folder / "target"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unpack_context(io.BytesIO(data), fd, subject="archive")
    finally:
        os.close(fd)
    return target


def link(target, kind=tarfile.SYMTYPE):
    """Describe a link."""
    return {"type": kind, "linkname": target}


@pytest.mark.parametrize(
    "members",
    [
        [("/abs", b"x")],
        [("l", link("/")), ("l/tmp/outside", b"x")],
        [("l", link("../..")), ("l/outside", b"x")],
        [("d", link("/etc")), ("d", b"file")],
        [("l", link("../outside")), ("l", b"x")],
        [("f", b"x"), ("h", link("f", tarfile.LNKTYPE))],
    ],
    ids=["absolute", "link to root", "link up", "link replaced", "link to a file", "hard link"],
)
def test_hostile_archive_stays_in_its_folder(tmp_path, members):
    """Links are written as they are, and lead nowhere outside when something is put behind them."""
    before = set(os.listdir(tmp_path))
    unpack(tmp_path, make_tar(*members))

    assert set(os.listdir(tmp_path)) - before == {"target"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../x", b"x")], "leaves the root"),
        ([("h", link("/etc/passwd", tarfile.LNKTYPE))], "cannot be unpacked"),
        ([("l", link("/etc")), ("h", link("l/passwd", tarfile.LNKTYPE))], "cannot be unpacked"),
        ([("dev", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})], "cannot hold a device node"),
    ],
)
def test_archive_that_cannot_be_a_context_is_refused(tmp_path, members, message):
    """With the entry that is wrong."""
    with pytest.raises(ContextError, match=message):
        unpack(tmp_path, make_tar(*members))


def test_modes_and_times_are_kept_and_setuid_is_not(tmp_path):
    """Also those of directories that cannot be written."""
    data = make_tar(("d", {"type": tarfile.DIRTYPE, "mode": 0o555, "mtime": 5}), ("d/f", {"mode": 0o4755, "mtime": 7}))
    target = unpack(tmp_path, data)

    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o555
    assert stat.S_IMODE((target / "d/f").stat().st_mode) == 0o755
    assert ((target / "d").stat().st_mtime, (target / "d/f").stat().st_mtime) == (5, 7)
    (target / "d").chmod(0o755)


def test_damaged_archive_is_refused(tmp_path):
    """A cut one, too."""
    with pytest.raises(ContextError, match="archive is damaged"):
        unpack(tmp_path, make_tar(("f", b"x" * 5000))[:2000])


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"FROM scratch\n", False),
        (b"# " + b"x" * 600, False),
        (b"\x1f\x8b\x08", True),
        (b"BZh91AY&SY", True),
        (b"\xfd7zXZ\x00", True),
        (make_tar(("a", b"x"))[:512], True),
    ],
)
def test_archive_is_told_from_a_dockerfile(head, expected):
    """By its first bytes."""
    assert looks_like_archive(head) is expected
