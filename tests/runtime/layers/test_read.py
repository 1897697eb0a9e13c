from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import LayerError
from runtime.layers.archive import _block, _record
from runtime.layers.entry import Entry, EntryKind
from runtime.layers.read import EXTENDED_LIMIT, read_archive

END = bytes(1024)


def members(data: bytes) -> list[tuple[Entry, bytes]]:
    """Return entries and contents of an archive."""
    return [(member.entry, member.read()) for member in read_archive(io.BytesIO(data))]


def only_entry(data: bytes) -> Entry:
    """Return the entry of an archive with one."""
    ((entry, _),) = members(data)
    return entry


def pax(*records: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    """Return an extended header."""
    data = b"".join(_record(key, value) for key, value in records)
    return _block(b"pax", size=len(data), flag=flag) + data + bytes(-len(data) % 512)


def with_field(block: bytes, start: int, value: bytes) -> bytes:
    """Return the header block with a field replaced and its checksum put right."""
    changed = bytearray(block)
    changed[start : start + len(value)] = value
    changed[148:156] = b"%06o\0 " % (sum(changed[:148]) + sum(changed[156:]) + 8 * 32)
    return bytes(changed)


FILE = _block(b"a", mode=0o644, flag=b"0")

names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
        lambda name: name not in {".", ".."}
    ),
    min_size=1,
    max_size=6,
).map("/".join)


@st.composite
def tar_infos(draw):
    """Draw a member for tarfile to write."""
    info = tarfile.TarInfo(draw(names))
    info.type = draw(
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    )
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, 2**32 - 2)), draw(st.integers(0, 2**32 - 2))
    info.mtime = draw(st.integers(-(2**34), 2**40))
    if info.type == tarfile.SYMTYPE:
        info.linkname = draw(names)
    if info.type == tarfile.REGTYPE:
        info.size = draw(st.integers(0, 1500))
    if info.type == tarfile.CHRTYPE:
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 100000))
    return info


@given(st.lists(tar_infos(), max_size=4), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_read_agrees_with_tarfile(infos: list[tarfile.TarInfo], format_: int):
    """What tarfile writes as GNU or PAX is read with the same metadata and content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_, encoding="utf-8") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size))

    found = members(stream.getvalue())

    assert [entry.path for entry, _ in found] == [info.name.encode() for info in infos]
    for (entry, content), info in zip(found, infos, strict=True):
        assert entry.kind.value == info.type
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (info.mode, info.uid, info.gid, info.mtime)
        assert (entry.size, content) == (info.size, b"x" * info.size)
        assert entry.linkname == info.linkname.encode()
        assert entry.device == (info.devmajor, info.devminor)


@given(st.binary(max_size=3000), st.integers(0, 2047), st.binary(min_size=1, max_size=20))
def test_read_damaged_archive_is_a_layer_error_or_an_archive(noise: bytes, position: int, patch: bytes):
    """Whatever bytes come, nothing but LayerError is raised."""
    valid = pax((b"path", b"b" * 120)) + FILE
    damaged = bytearray(valid + noise)
    damaged[position : position + len(patch)] = patch

    for data in (noise, bytes(damaged), with_field(FILE, position % 500, patch[:12]) + noise):
        try:
            members(data)
        except LayerError as error:
            assert error.reason  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("format_", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_read_understands_gnu_tar(tmp_path, format_: str):
    """All formats of GNU tar give the same entries."""
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/file").write_bytes(b"content")
    os.link(tree / "dir/file", tree / "link")
    (tree / "symlink").symlink_to("/dir/../file")
    for path in ("dir/file", "dir"):
        os.utime(tree / path, (1_600_000_000, 1_600_000_000))
    command = [
        "tar",
        "cf",
        "-",
        f"--format={format_}",
        "--numeric-owner",
        "--owner=5",
        "--group=6",
        "dir",
        "link",
        "symlink",
    ]

    data = subprocess.run(command, cwd=tree, check=True, capture_output=True).stdout

    directory, file, link, symlink = members(data)
    assert directory[0][:2] == (b"dir", EntryKind.DIRECTORY)
    assert directory[0][3:6] == (5, 6, 1_600_000_000)
    assert (file[0].path, file[0].mtime, file[1]) == (b"dir/file", 1_600_000_000, b"content")
    assert link[0][:2] == (b"link", EntryKind.HARDLINK)
    assert (link[0].linkname, link[0].size) == (b"dir/file", 0)
    assert (symlink[0].kind, symlink[0].linkname) == (EntryKind.SYMLINK, b"/dir/../file")


@pytest.mark.parametrize(
    "options",
    [
        ["--format=oldgnu"],
        ["--format=gnu"],
        *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")),
    ],
    ids=["oldgnu", "gnu", "pax-0.0", "pax-0.1", "pax-1.0"],
)
@pytest.mark.parametrize("pieces", [0, 1, 40, 400])
def test_read_expands_sparse_files(tmp_path, options: list[str], pieces: int):
    """Every way of GNU tar to write holes gives the file as it is, and the pieces of data where they are."""
    size = 4096 * (2 * pieces + 3)
    with open(tmp_path / "sparse", "wb") as file:
        for number in range(pieces):
            file.seek(4096 * (2 * number + 1))
            file.write(b"%04d" % number * 1024)
        file.truncate(size)
    (tmp_path / "after").write_bytes(b"after")
    command = ["tar", "cf", "-", "--sparse", "--hole-detection=raw", *options, "sparse", "after"]
    data = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout

    sparse, after = members(data)

    assert sparse[0][:2] == (b"sparse", EntryKind.FILE)
    assert sparse[0].size == size
    assert sparse[1] == (tmp_path / "sparse").read_bytes()
    assert after[1] == b"after"
    rebuilt = bytearray(size)
    for offset, piece in next(read_archive(io.BytesIO(data))).pieces():
        rebuilt[offset : offset + len(piece)] = piece
    assert bytes(rebuilt) == sparse[1]


def test_read_skips_content_that_nobody_read():
    """The next member begins where it should, however much of a content was read."""
    content = os.urandom(5000)
    data = with_field(FILE, 124, b"%011o\0" % 5000) + content + bytes(-5000 % 512) + FILE + END

    reader = read_archive(io.BytesIO(data))

    assert next(reader).read(7) == content[:7]
    assert next(reader).entry.path == b"a"
    assert next(reader, None) is None


def test_read_takes_streams_that_give_little_at_a_time():
    """A stream may return fewer bytes than were asked for."""

    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 100))

    data = with_field(FILE, 124, b"%011o\0" % 1000) + bytes(1024) + FILE + END

    assert [member.read() for member in read_archive(Dribble(data))] == [bytes(1000), b""]


def test_read_goes_to_the_end_of_the_stream():
    """What follows the end of the archive is read too, so a verifying stream sees all bytes."""
    stream = io.BytesIO(FILE + END + bytes(9000) + b"trailer")

    list(read_archive(stream))

    assert stream.read() == b""


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"./", b""),
        (b".", b""),
        (b"/", b""),
        (b"./a", b"a"),
        (b"/a/b", b"a/b"),
        (b"a//b/./c/", b"a/b/c"),
        (b"a/../b", b"b"),
        (b"..a/.b", b"..a/.b"),
        (b"./.wh.a", b".wh.a"),
        (b".//./a", b"a"),
        (b"a/..", b""),
    ],
)
def test_read_cleans_names(name: bytes, path: bytes):
    """Names come without anything that means nothing, and relative; the name as written stays known."""
    (member,) = read_archive(io.BytesIO(_block(name, flag=b"5")))

    assert (member.entry.path, member.name) == (path, name)


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/../../b", b"/../a", b"./../a"])
@pytest.mark.parametrize("link", [False, True], ids=["name", "hard-link"])
def test_read_refuses_names_that_leave_the_root(name: bytes, link: bool):
    """A name or hard link target that goes above the root is an error."""
    block = _block(b"a", flag=b"1", linkname=name) if link else _block(name, flag=b"0")

    with pytest.raises(LayerError, match="leaves the root"):
        members(block)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"this is no tar" * 50, "no tar archive"),
        (b"short", "in the middle"),
        (FILE[:300], "in the middle"),
        (with_field(FILE, 124, b"%011o\0" % 600) + bytes(512), "in the middle"),
        (FILE + b"x" * 512, "header that follows .*: `a`"),
        (pax((b"path", b"b")), "after an extended header"),
        (with_field(FILE, 124, b"9" * 11), "number that is none"),
        (with_field(FILE, 124, b"\xff" * 12), "impossible size -1"),
        (with_field(FILE, 124, b"\x80" + b"\x7f" * 11), "impossible size"),
        (with_field(FILE, 108, b"\xff" * 8), "impossible owner -1"),
        (with_field(FILE, 136, b"\x80" + b"\x7f" * 11), "impossible mtime"),
        (_block(b"a", flag=b"Q"), "unknown type"),
        (pax((b"size", b"-5")) + FILE, "impossible size"),
        (pax((b"uid", b"1e3")) + FILE, "impossible uid"),
        (pax((b"uid", b"99999999999")) + FILE, "impossible uid"),
        (pax((b"mtime", b"soon")) + FILE, "impossible mtime"),
        (pax((b"path", b"a\0b")) + FILE, "NUL byte"),
        (pax((b"linkpath", b"a\0b")) + _block(b"l", flag=b"2"), "NUL byte"),
        (pax((b"SCHILY.xattr.a\0b", b"1")) + FILE, "NUL byte"),
        (_block(b"x", size=8, flag=b"x") + b"9 path=a".ljust(512, b"\0") + FILE, "is cut"),
        (_block(b"x", size=8, flag=b"x") + b"x path=a".ljust(512, b"\0") + FILE, "without length"),
        (_block(b"x", size=5, flag=b"x") + b"5 =a\n".ljust(512, b"\0") + FILE, "no key"),
        (_block(b"x", size=EXTENDED_LIMIT + 1, flag=b"x"), "extended headers of more than"),
        (_block(b"x", size=0o77777777777, flag=b"L"), "extended headers of more than"),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,5,3,4")) + FILE, "overlap"),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,5,8,4")) + FILE, "does not fit"),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,x")) + FILE, "map that cannot be"),
    ],
)
def test_read_refuses_damage(data: bytes, message: str):
    """Damaged, cut and impossible archives are errors that say what is wrong."""
    with pytest.raises(LayerError, match=message):
        members(data)


def test_read_refuses_a_flood_of_extended_headers():
    """Extended headers in front of one entry have a limit together, not each."""
    flood = pax((b"comment", b"x" * 300_000)) * 4

    with pytest.raises(LayerError, match="extended headers of more than"):
        members(flood + FILE)


def test_read_refuses_a_flood_of_global_headers():
    """Global headers cannot fill the memory with ever new keys."""
    flood = b"".join(pax((b"key%d" % number, b"x" * 300_000), flag=b"g") + FILE for number in range(5))

    with pytest.raises(LayerError, match="global headers of more than"):
        members(flood)


@pytest.mark.parametrize(
    ("text", "mtime"),
    [(b"12", 12), (b"12.9", 12), (b"-3", -3), (b"-3.0", -3), (b"-3.5", -4), (b"0.5", 0), (b"-0.5", -1)],
)
def test_read_rounds_times_towards_the_past(text: bytes, mtime: int):
    """Times with a fraction are whole seconds, as the kernel's own second of the file would be."""
    assert only_entry(pax((b"mtime", text)) + FILE).mtime == mtime


def test_read_pax_records_win_over_the_header():
    """Path, size and owner of the extended header are those of the entry, and of this one only."""
    data = pax((b"path", b"long"), (b"size", b"3"), (b"uid", b"70000")) + FILE + b"abc".ljust(512, b"\0") + FILE

    (first, content), (second, _) = members(data)

    assert (first.path, first.size, first.uid, content) == (b"long", 3, 70000, b"abc")
    assert (second.path, second.size, second.uid) == (b"a", 0, 0)


def test_read_empty_pax_value_takes_a_global_one_back():
    """A global value holds until an entry's own header empties it."""
    data = pax((b"uid", b"7"), flag=b"g") + FILE + pax((b"uid", b"")) + FILE + FILE

    assert [entry.uid for entry, _ in members(data)] == [7, 0, 7]


def test_read_star_prefix_is_shorter():
    """In star's headers times stand behind the prefix."""
    block = with_field(with_field(FILE, 345, b"dir"), 476, b"00000000000 00000000000 ")
    block = with_field(block, 508, b"tar\0")

    assert only_entry(block).path == b"dir/a"


def test_read_v7_directory_is_told_by_its_slash():
    """An old header without type, whose name ends with a slash, is a directory."""
    block = with_field(_block(b"d/", flag=b"\0"), 257, bytes(8))

    assert only_entry(block).kind is EntryKind.DIRECTORY


def test_read_signed_checksum_is_accepted():
    """Old programs summed signed characters."""
    block = bytearray(_block(b"a", flag=b"0"))
    block[0:2] = b"\xe4\xfc"
    block[148:156] = b"%06o\0 " % (sum(b - 256 * (b > 127) for b in block[:148] + block[156:]) + 8 * 32)

    assert only_entry(bytes(block)).path == b"\xe4\xfc"


def test_read_xattrs_of_both_forms():
    """Star's xattrs are taken byte by byte, libarchive's decoded; star's win."""
    records = [
        (b"LIBARCHIVE.xattr.user.a%3D", b"AQI"),
        (b"LIBARCHIVE.xattr.user.b", b"AQI="),
        (b"SCHILY.xattr.user.b", b"\xff=\n"),
    ]

    assert only_entry(pax(*records) + FILE).xattrs == (("user.a=", b"\x01\x02"), ("user.b", b"\xff=\n"))


def test_read_empty_stream_is_an_empty_archive():
    """Nothing at all is an archive without entries, as it is for other readers."""
    assert members(b"") == []


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar")
@pytest.mark.parametrize("format_", ["ustar", "pax", "gnutar", "v7"])
def test_read_understands_bsdtar(tmp_path, format_: str):
    """Archives of libarchive are read."""
    (tmp_path / "file").write_bytes(b"content")

    data = subprocess.run(
        ["bsdtar", "cf", "-", "--format", format_, "file"], cwd=tmp_path, check=True, capture_output=True
    ).stdout

    assert [(entry.path, content) for entry, content in members(data)] == [(b"file", b"content")]
