from __future__ import annotations

import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import LayerError
from runtime.layers.archive import READ_SIZE, ArchiveWriter
from runtime.layers.entry import Entry, EntryKind
from runtime.layers.read import read_archive


def archive_of(*members: tuple[Entry, bytes | None]) -> bytes:
    """Return the bytes of an archive."""
    pieces: list[bytes] = []
    writer = ArchiveWriter(pieces.append)
    for entry, content in members:
        writer.add(entry, content)
    writer.finish()
    return b"".join(pieces)


def file_entry(path: bytes = b"a", size: int = 0, **values) -> Entry:
    """Return an entry of a file."""
    return Entry(path, EntryKind.FILE, 0o644, 0, 0, 0, size)._replace(**values)


def only_member(data: bytes) -> tarfile.TarInfo:
    """Return what tarfile reads of an archive with one member."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8") as archive:
        (member,) = archive.getmembers()
        return member


component = st.binary(min_size=1, max_size=60).map(lambda name: name.replace(b"\0", b"x").replace(b"/", b"y"))
path_bytes = st.lists(component.filter(lambda name: name not in {b".", b".."}), min_size=1, max_size=5).map(b"/".join)
xattr_names = st.text(st.characters(codec="utf-8", exclude_characters="=\0"), min_size=1, max_size=20)
entries = st.builds(
    Entry,
    path=path_bytes,
    kind=st.just(EntryKind.FILE),
    linkname=st.just(b""),
    device=st.just((0, 0)),
    mode=st.integers(0, 0o7777),
    uid=st.one_of(st.integers(0, 70000), st.integers(0, 2**32 - 2)),
    gid=st.one_of(st.integers(0, 70000), st.integers(0, 2**32 - 2)),
    mtime=st.integers(-(2**40), 2**40),
    size=st.integers(0, 2000),
    xattrs=st.dictionaries(xattr_names.map("user.{}".format), st.binary(max_size=50), max_size=3).map(
        lambda found: tuple(sorted(found.items()))
    ),
)


@given(entries)
def test_archive_says_to_tarfile_what_the_entry_says(entry: Entry):
    """What is written is read by tarfile with the same metadata and content."""
    content = os.urandom(entry.size)

    data = archive_of((entry, content))

    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8") as archive:
        (member,) = archive.getmembers()
        assert os.fsencode(member.name) == entry.path.rstrip(b"/")
        assert (member.mode, member.uid, member.gid, member.mtime) == (entry.mode, entry.uid, entry.gid, entry.mtime)
        assert (member.uname, member.gname) == ("", "")
        extracted = archive.extractfile(member)
        assert extracted is not None
        assert extracted.read() == content
        found = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
        assert {key[13:]: os.fsencode(value) for key, value in found.items()} == dict(entry.xattrs)


@given(st.lists(entries, max_size=5))
def test_archive_is_read_back_unchanged(written: list[Entry]):
    """Reading what was written gives the same entries and contents."""
    contents = [os.urandom(entry.size) for entry in written]

    data = archive_of(*zip(written, contents, strict=True))

    assert [(m.entry, m.read()) for m in read_archive(io.BytesIO(data))] == list(zip(written, contents, strict=True))


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"d", EntryKind.DIRECTORY, 0o1777, 0, 0, 5),
        Entry(b"", EntryKind.DIRECTORY, 0o755, 0, 0, 5),
        Entry(b"l", EntryKind.SYMLINK, 0o777, 0, 0, 5, linkname=b"/x" * 90),
        Entry(b"l", EntryKind.SYMLINK, 0o777, 0, 0, 5, linkname=b"\xff\xfe"),
        Entry(b"h", EntryKind.HARDLINK, 0o644, 0, 0, 5, linkname=b"a/b"),
        Entry(b"c", EntryKind.CHARACTER, 0o666, 0, 0, 5, device=(1, 3)),
        Entry(b"b", EntryKind.BLOCK, 0o660, 0, 6, 5, device=(8, 300)),
        Entry(b"p", EntryKind.FIFO, 0o644, 0, 0, 5),
    ],
    ids=["directory", "root", "long-symlink", "raw-symlink", "hard-link", "character", "block", "fifo"],
)
def test_archive_keeps_every_kind(entry: Entry):
    """Every kind of entry is read back as it was written."""
    assert [member.entry for member in read_archive(io.BytesIO(archive_of((entry, None))))] == [entry]


def test_archive_directory_ends_with_a_slash():
    """Names of directories have a trailing slash in the header."""
    assert archive_of((Entry(b"d", EntryKind.DIRECTORY, 0o755, 0, 0, 0), None)).startswith(b"d/\0")


def test_archive_header_is_plain_ustar_where_that_is_enough():
    """An ordinary file has one header block, as Go writes it."""
    data = archive_of((file_entry(b"a" * 100, 3), b"abc"))

    assert len(data) == 512 + 512 + 1024
    assert data == tarfile_bytes("a" * 100, b"abc")


def tarfile_bytes(name: str, content: bytes) -> bytes:
    """Return the archive that tarfile makes, with the device numbers that Go writes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[329:345] = b"0000000\x000000000\x00"  # Go's device numbers; tarfile writes them for devices only
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 8 * 32)
    return bytes(block) + content + bytes(-len(content) % 512) + bytes(1024)


def test_archive_raw_name_stands_in_a_pax_record():
    """A name that is not UTF-8 is written byte by byte."""
    assert b"12 path=\xff\xfe\n" not in (data := archive_of((file_entry(b"\xff\xfe"), None)))
    assert b"11 path=\xff\xfe\n" in data


@pytest.mark.parametrize("length", range(95, 110))
def test_archive_record_length_counts_itself(length: int):
    """PAX records around the change from two to three digits of length are read back."""
    entry = file_entry(b"n" * length)

    assert only_member(archive_of((entry, None))).name == "n" * length


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, 3 * READ_SIZE + 7])
def test_archive_copies_from_a_descriptor(tmp_path, size: int):
    """Content is read from an open file, whatever its size."""
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    pieces: list[bytes] = []
    writer = ArchiveWriter(pieces.append)

    with open(tmp_path / "a", "rb") as file:
        writer.add(file_entry(b"a", size), file.fileno())
    writer.finish()

    assert b"".join(pieces) == archive_of((file_entry(b"a", size), content))


@pytest.mark.parametrize("size", [5, READ_SIZE + 5])
@pytest.mark.parametrize("difference", [-1, 1])
@pytest.mark.parametrize("form", ["bytes", "descriptor", "stream"])
def test_archive_refuses_content_of_another_length(tmp_path, size: int, difference: int, form: str):
    """A file that shrank or grew since it was looked at is an error that names it, and ends the archive."""
    content = bytes(size + difference)
    (tmp_path / "a").write_bytes(content)
    writer = ArchiveWriter(lambda _: None)

    with open(tmp_path / "a", "rb") as file:
        source = {"bytes": content, "descriptor": file.fileno(), "stream": file}[form]
        with pytest.raises(LayerError, match="changed while it was read: `dir/a`"):
            writer.add(file_entry(b"dir/a", size), source)

    with pytest.raises(LayerError, match="cannot be finished"):
        writer.finish()


def test_archive_refuses_more_entries_after_its_end():
    """Nothing can be added once the archive is finished."""
    writer = ArchiveWriter(lambda _: None)
    writer.finish()

    with pytest.raises(LayerError, match="has ended: `a`"):
        writer.add(file_entry())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (file_entry(b"a\0b"), "NUL byte"),
        (file_entry(uid=-1), "negative uid"),
        (file_entry(xattrs=(("user.a=b", b""),)), "xattr name"),
        (Entry(b"d", EntryKind.DIRECTORY, 0o755, 0, 0, 0, size=3), "only files have content"),
    ],
    ids=["nul", "negative-uid", "xattr-with-equals", "directory-with-content"],
)
def test_archive_refuses_what_tar_cannot_say(entry: Entry, message: str):
    """An entry that would be read differently is not written."""
    with pytest.raises(LayerError, match=message):
        archive_of((entry, None))


def test_archive_is_given_on_in_large_pieces():
    """Thousands of small files reach the sink in few calls."""
    pieces: list[bytes] = []
    writer = ArchiveWriter(pieces.append)

    for number in range(4000):
        writer.add(file_entry(b"%d" % number, 10), b"0123456789")
    writer.finish()

    assert len(pieces) == 4000 * 1024 // READ_SIZE + 1


@given(st.lists(entries, max_size=4), st.integers(-10, 2**40))
def test_clamped_bytes_are_those_of_an_archive_without_later_times(found: list[Entry], latest: int):
    """What is told beside the archive is the archive of the same entries with their times limited."""
    contents = [(entry, bytes(entry.size)) for entry in found]
    clamped: list[bytes] = []
    written: list[bytes] = []
    writer = ArchiveWriter(written.append, latest=latest, write_clamped=clamped.append)
    for entry, content in contents:
        writer.add(entry, content)
    writer.finish()

    limited = [(entry._replace(mtime=min(entry.mtime, latest)), content) for entry, content in contents]
    assert b"".join(clamped) == archive_of(*limited)
    assert b"".join(written) == archive_of(*contents)


@pytest.mark.parametrize("size", [0, 5, READ_SIZE + 5], ids=["empty", "small", "large"])
def test_clamped_bytes_have_the_content_of_streams(size: int):
    """However it is read."""
    entry, clamped = file_entry(size=size, mtime=9), list[bytes]()
    writer = ArchiveWriter(lambda _: None, latest=5, write_clamped=clamped.append)
    writer.add(entry, io.BytesIO(b"x" * size))
    writer.finish()

    assert b"".join(clamped) == archive_of((entry._replace(mtime=5), b"x" * size))
