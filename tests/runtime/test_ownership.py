"""Records of owners: what they look like, and what is none."""

from __future__ import annotations

import os
import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.ownership import (
    LARGEST_ID,
    LINK_RECORD,
    RECORD,
    ROOT,
    Owners,
    Record,
    decode,
    decode_link,
    find_record,
    with_record,
    write_record,
)
from tests.runtime.inside import run_inside

IDS = st.integers(0, LARGEST_ID)
TYPES = st.sampled_from([0, stat.S_IFCHR, stat.S_IFBLK])


@given(record=st.builds(Record, IDS, IDS, TYPES, st.integers(0, 2**64 - 1)))
def test_record_on_a_file_is_read_as_written(tmp_path_factory, record):
    """Whatever is recorded on a file is found again, and removed by that of root."""
    path = str(tmp_path_factory.getbasetemp() / "file")
    with open(path, "w", encoding="ascii"):
        pass
    write_record(path, stat.S_IFREG, record)
    assert (find_record(path, stat.S_IFREG) or ROOT) == record
    write_record(path, stat.S_IFREG, ROOT)
    assert os.listxattr(path) == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        struct.pack("<IIIQ", 0xFFFF_FFFF, 0, 0, 0),
        struct.pack("<IIIQ", 0, 0xFFFF_FFFF, 0, 0),
        struct.pack("<IIIQ", 1, 1, stat.S_IFDIR, 0),
        struct.pack("<IIIQ", 1, 1, stat.S_IFLNK, 0),
        struct.pack("<IIIQ", 1, 1, 0, 0) + b"x",
    ],
)
def test_forged_value_is_no_record(value):
    """A value of another length, with impossible ids, or of a type that is no device, is none."""
    assert decode(value) is None


@pytest.mark.parametrize(
    "value", [b"", bytes(20), bytes(24), bytes.fromhex("01000002002000000000000000000000ffffffff")]
)
def test_capability_is_no_record(value):
    """The capabilities of a program are not taken for the owner of a link."""
    assert decode_link(value) is None


def test_status_with_a_record_keeps_the_rest(tmp_path):
    """Only owner, type and device change; times keep their nanoseconds."""
    path = tmp_path / "file"
    path.write_text("text")
    path.chmod(0o640)
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    status = os.stat(path)

    changed = with_record(status, Record(3, 4, stat.S_IFBLK, os.makedev(8, 300)))
    assert (changed.st_uid, changed.st_gid, changed.st_mode) == (3, 4, stat.S_IFBLK | 0o640)
    assert (os.major(changed.st_rdev), os.minor(changed.st_rdev)) == (8, 300)
    for name in ("st_ino", "st_dev", "st_nlink", "st_size", "st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blocks"):
        assert getattr(changed, name) == getattr(status, name)


def keep_owners_of_every_kind(folder):
    """Give away a file, a directory, a link and a FIFO by records."""
    owners = Owners(recorded=True)
    os.chdir(folder)
    os.mkdir("directory")
    os.symlink("nowhere", "link")
    os.mkfifo("fifo")
    with open("file", "w", encoding="ascii"):
        pass
    here = os.open(".", os.O_RDONLY)
    owners.make_device(b"device", stat.S_IFCHR | 0o600, os.makedev(1, 3), dir_fd=here)
    for name in ("directory", "link", "fifo", "file", "device"):
        owners.give(name, 33, 44, dir_fd=here)
        os.rename(name, name + "2")
        status = owners.true_status(os.lstat(name + "2"), name + "2")
        assert (status.st_uid, status.st_gid) == (33, 44), name
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(1, 3)
    assert os.listxattr("link2", follow_symlinks=False) == [LINK_RECORD]
    assert os.listxattr("file2") == [RECORD]


def test_every_kind_of_file_has_a_record(tmp_path):
    """Files, directories, links, FIFOs and devices keep an owner, through a rename."""
    run_inside(keep_owners_of_every_kind, tmp_path)


def test_records_do_not_count_where_ids_exist(tmp_path):
    """Without the need for records a file belongs to whom the kernel says."""
    path = tmp_path / "file"
    path.touch()
    write_record(str(path), stat.S_IFREG, Record(5, 6))

    assert Owners(recorded=False).true_status(os.stat(path), str(path)).st_uid == os.geteuid()
