"""Listings: which files a key was made of."""

import time

import pytest

from builder.cache.listing import Listing, compare_listings, unpack_listing
from builder.context.digest import ListedSource, digest_selection
from builder.context.select import Selection, select_sources
from builder.events import CacheChange
from tests.fakes.context import make_tree, source_root
from tests.fakes.listing import make_listing

ONE, TWO, THREE = (
    f"sha256:{digest}"
    for digest in (
        "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35",
        "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce",
    )
)


@pytest.fixture
def folder(tmp_path):
    """Give a small context."""
    make_tree(tmp_path, {"d/a": b"1", "d/sub/b": b"2", "d/l": "a", "e": b"3"})
    return tmp_path


def listed(folder, *arguments):
    """List what a COPY of *arguments* would be digested from."""
    listing = Listing(folder)
    with source_root(folder) as root:
        selection = Selection(root=root, sources=select_sources(root, arguments))
        digest_selection(selection, None, now_ns=time.time_ns(), listed=lambda: listing)
    return listing.sources()


def _become_a_directory(path):
    path.unlink()
    path.mkdir()


def _retarget(path):
    path.unlink()
    path.symlink_to("sub/b")


CHANGES = {
    "content": ("d/a", lambda path: path.write_bytes(b"3"), [CacheChange("file content", "d/a", ONE, THREE)]),
    "mode": ("d/a", lambda path: path.chmod(0o640), [CacheChange("file mode", "d/a", "0600", "0640")]),
    "gone": ("d/sub/b", lambda path: path.unlink(), [CacheChange("file removed", "d/sub/b")]),
    "new": ("d/sub/c", lambda path: path.touch(), [CacheChange("file added", "d/sub/c")]),
    "type": ("d/a", _become_a_directory, [CacheChange("file type", "d/a", "file", "directory")]),
    "link": ("d/l", _retarget, [CacheChange("link target", "d/l", "a", "sub/b")]),
    "single file": ("e", lambda path: path.write_bytes(b"2"), [CacheChange("file content", "e", THREE, TWO)]),
    "renamed": (
        "d/sub/b",
        lambda path: path.rename(path.with_name("c")),
        [CacheChange("file removed", "d/sub/b"), CacheChange("file added", "d/sub/c")],
    ),
    "time": ("d/a", lambda path: path.touch(), []),
}


@pytest.mark.parametrize(("path", "change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_change_of_a_file_is_found_by_its_path(folder, path, change, said):
    """Paths are those below the root, whatever of it was copied."""
    (folder / "d" / "a").chmod(0o600)
    before = listed(folder, "d", "e")
    change(folder / path)

    assert list(compare_listings(before, listed(folder, "d", "e"))) == said


def test_directory_is_the_same_by_another_way(folder):
    """Where a source lies is no part of a key, so only what differs in it is told, with its path of now."""
    before = listed(folder, "d")
    (folder / "moved").mkdir()
    (folder / "d").rename(folder / "moved" / "d")
    (folder / "moved" / "d" / "a").write_bytes(b"2")

    assert list(compare_listings(before, listed(folder, "moved/d"))) == [
        CacheChange("file content", "moved/d/a", ONE, TWO)
    ]


def test_sources_of_the_same_name_are_not_mixed_up(folder):
    """Two files of one name from two directories are told apart by their order."""
    make_tree(folder, {"other/a": b"1"})
    before = listed(folder, "d/a", "other/a")
    (folder / "other" / "a").write_bytes(b"2")

    assert [change.name for change in compare_listings(before, listed(folder, "d/a", "other/a"))] == ["other/a"]


def test_paths_of_a_stage_are_absolute(folder):
    """The root that is asked for stands before each path."""
    assert [change.name for change in compare_listings((), listed(folder, "e"), root="/")] == ["/e"]


def test_owner_is_compared(folder):
    """Files of stages keep their owners."""
    (source,) = listed(folder, "e")
    other = source._replace(records=source.records[:8] + (7).to_bytes(4, "big") + source.records[12:])

    assert list(compare_listings([source], [other])) == [CacheChange("file owner", "e", "0:0", "7:0")]


@pytest.mark.parametrize("piece", [36, 1 << 16])
@pytest.mark.parametrize("count", [0, 1, 3000], ids=["nothing", "small", "large"])
def test_listing_is_unpacked_as_it_was_packed(tmp_path, count, piece):
    """Whichever compressor was used, and in whichever pieces it came."""
    records = b"".join(number.to_bytes(36, "big") for number in range(count))
    sources = [ListedSource(b"name", b"prefix/", records), ListedSource(b"\xff", b"", b"")] if count else []

    listing = make_listing(tmp_path, sources, piece=piece)
    packed = b"".join(listing.pack())

    assert unpack_listing(packed) == listing.sources() == tuple(sources)
    assert listing.pack().size == len(packed)
    assert bool(packed) is bool(count)
