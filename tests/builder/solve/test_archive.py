"""ADD of local archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
import zstandard

from builder.context.select import Selection, select_sources
from builder.errors import ContextError, CopyError
from builder.plan.mode import Mode
from builder.solve.ops.archive import place_add
from builder.solve.ops.place import write_entries
from runtime.layers.archive import ArchiveWriter
from runtime.layers.entry import EntryKind
from tests.fakes.context import source_root
from tests.fakes.tree import DictTree, directory, symlink

NOW = 1_700_000_000


def _member(name, content=b"", kind=tarfile.REGTYPE, linkname="", mode=0o640, **values):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, linkname, mode
    member.uid, member.gid, member.mtime, member.size = 7, 8, 99, len(content)
    for key, value in values.items():
        setattr(member, key, value)
    return member, content


def _tar(*members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


DIR = tarfile.DIRTYPE
PLAIN = _tar(_member("p", kind=DIR, mode=0o700), _member("p/f", b"content"))
COMPRESSORS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def _add(tmp_path, data, destination=b"/o", tree=None, *, name="archive", owner=None, mode=None, unpack=True):
    folder = tmp_path / "context"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    result = io.BytesIO()
    with source_root(folder) as root:
        selection = Selection(root=root, sources=select_sources(root, ["*"]))
        writer = ArchiveWriter(result.write)
        placed = []

        def noted():
            for one in place_add(
                selection, tree or DictTree(), destination, unpack=unpack, owner=owner, mode=mode, now=NOW
            ):
                placed.append(one.entry)
                yield one

        write_entries(noted(), writer, root=root)
        writer.finish()
    with tarfile.open(fileobj=io.BytesIO(result.getvalue())) as tar:
        contents = {one.name: tar.extractfile(one).read() for one in tar.getmembers() if one.isreg()}
    return placed, contents


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS.keys())
def test_archive_is_known_by_its_content(tmp_path, compress):
    """D1: whatever its name, an archive is unpacked with owners, modes and times of its entries."""
    placed, contents = _add(tmp_path, compress(PLAIN), name="picture.jpg")

    assert [entry.path for entry in placed] == [b"o", b"o/p", b"o/p/f"]
    assert placed[0][2:6] == (0o755, 0, 0, NOW)
    assert placed[1][2:6] == (0o700, 7, 8, 99)
    assert placed[2][2:6] == (0o640, 7, 8, 99)
    assert contents == {"o/p/f": b"content"}


@pytest.mark.parametrize(
    "data",
    [b"no archive at all", b"", gzip.compress(b"text" * 500), bytes(10240), b"\x1f\x8b" + bytes(600), PLAIN[:300]],
    ids=["text", "empty", "gzip of text", "zeros", "broken gzip", "half a header"],
)
def test_file_that_is_no_archive_is_copied(tmp_path, data):
    """D2: the name alone makes no archive."""
    _, contents = _add(tmp_path, data, b"/o/", name="x.tar.gz")

    assert contents == {"o/x.tar.gz": data}


def test_unpack_can_be_switched_off(tmp_path):
    """D3: --unpack=false copies the file."""
    _, contents = _add(tmp_path, PLAIN, b"/o/", unpack=False)

    assert contents == {"o/archive": PLAIN}


def test_chown_overrides_owners_and_chmod_does_not_touch_entries(tmp_path):
    """D4: --chown applies to all entries, --chmod to none of the archive."""
    placed, _ = _add(tmp_path, PLAIN, owner=(5, 6), mode=Mode("0600"))

    assert {entry[3:5] for entry in placed} == {(5, 6)}
    assert [entry.mode for entry in placed[1:]] == [0o700, 0o640]


def test_root_entry_leaves_the_destination_alone(tmp_path):
    """K18: `./` of the archive changes neither mode nor owner of the destination."""
    data = _tar(_member("./", kind=DIR, mode=0o700), _member("./f", b"x"))
    placed, _ = _add(tmp_path, data, b"/o", DictTree(directory(b"o", 0o711, 3, 4)))

    assert [entry.path for entry in placed] == [b"o", b"o/f"]
    assert placed[0][2:5] == (0o711, 3, 4)


def test_missing_directories_of_an_archive_are_made(tmp_path):
    """Directories that the archive does not name stand before what is in them."""
    placed, _ = _add(tmp_path, _tar(_member("a/b/f", b"x"), _member("a/g", b"y")))

    assert [entry.path for entry in placed] == [b"o", b"o/a", b"o/a/b", b"o/a/b/f", b"o/a/g"]
    assert placed[1][2:6] == (0o755, 0, 0, NOW)


def test_links_of_the_image_are_followed_inside_it(tmp_path):
    """A directory of the archive that is a link in the image is entered; climbing ends at the root."""
    tree = DictTree(symlink(b"lib", b"../../usr/lib"), directory(b"usr/lib", 0o711))
    placed, contents = _add(tmp_path, _tar(_member("lib/f", b"x")), b"/", tree)

    assert contents == {"usr/lib/f": b"x"}
    assert [entry.path for entry in placed] == [b"usr", b"usr/lib", b"usr/lib/f"]


def test_link_inside_an_archive_cannot_be_used_to_leave_the_root(tmp_path):
    """D10: a file behind a link of the archive lands below the destination, which is the root for such links."""
    data = _tar(
        _member("esc", kind=tarfile.SYMTYPE, linkname="../../../etc"),
        _member("esc/evil", b"x"),
        _member("abs", kind=tarfile.SYMTYPE, linkname="/etc"),
        _member("abs/evil2", b"x"),
    )
    placed, contents = _add(tmp_path, data)

    assert set(contents) == {"o/etc/evil", "o/etc/evil2"}
    assert [entry.linkname for entry in placed if entry.kind is EntryKind.SYMLINK] == [b"../../../etc", b"/etc"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil"])
@pytest.mark.parametrize("before", [(), (_member("first", b"1"),)], ids=["first", "second"])
def test_names_that_climb_are_refused(tmp_path, before, name):
    """D10: no name leaves the destination, and an archive that begins with such a one is no ordinary file."""
    with pytest.raises(ContextError, match=r"archive is damaged.*leaves the root"):
        _add(tmp_path, _tar(*before, _member(name, b"x")))


def test_absolute_names_begin_at_the_destination(tmp_path):
    """D10: a slash at the start means nothing."""
    assert set(_add(tmp_path, _tar(_member("/evil", b"x")))[1]) == {"o/evil"}


def test_fifos_and_devices_are_left_out(tmp_path):
    """What is no file, directory or link is not unpacked, and what lies at its place stays."""
    kinds = [_member(f"{number}", kind=kind) for number, kind in enumerate((tarfile.FIFOTYPE, tarfile.CHRTYPE))]
    placed, _ = _add(tmp_path, _tar(*kinds, _member("f", b"x")))

    assert [entry.path for entry in placed] == [b"o", b"o/f"]


def test_hard_links_are_rebased(tmp_path):
    """K6: the target of a hard link is named from the root of the layer."""
    placed, _ = _add(tmp_path, _tar(_member("d/f", b"x"), _member("l", kind=tarfile.LNKTYPE, linkname="d/f")))

    assert placed[-1][1] is EntryKind.HARDLINK
    assert placed[-1].linkname == b"o/d/f"


def test_hard_link_to_a_file_outside_the_archive_is_refused(tmp_path):
    """A link cannot catch a file of the image."""
    with pytest.raises(CopyError, match="hard link to a file that is not in the archive: `/o/l`"):
        _add(tmp_path, _tar(_member("l", kind=tarfile.LNKTYPE, linkname="etc/shadow")))


def test_deletion_marks_in_an_archive_are_refused(tmp_path):
    """K7: an archive cannot delete files of the image."""
    with pytest.raises(CopyError, match=r"begins with .wh."):
        _add(tmp_path, _tar(_member("d/.wh.passwd")))


def test_damaged_archive_is_an_error_that_names_it(tmp_path):
    """An archive that ends in the middle stops the build."""
    data = _tar(_member("a", b"x" * 2000), _member("b", b"y" * 20000))

    with pytest.raises(ContextError, match=r"archive is damaged.*`/archive`"):
        _add(tmp_path, data[:4000])


def test_archives_and_files_are_added_in_order(tmp_path):
    """One ADD may name both; an existing directory is written once."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context/z-file").write_bytes(b"z")
    placed, contents = _add(tmp_path, PLAIN, b"/o/", DictTree(directory(b"o")))

    assert [entry.path for entry in placed] == [b"o", b"o/p", b"o/p/f", b"o/z-file"]
    assert contents == {"o/p/f": b"content", "o/z-file": b"z"}
