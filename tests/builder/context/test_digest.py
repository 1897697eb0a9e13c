"""Content digests of selections and the fingerprints behind them."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from functools import partial
from pathlib import Path

import pytest

from builder.cache.listing import Listing
from builder.context import digest as digest_module
from builder.context.digest import check_unchanged, digest_selection, read_records
from builder.context.fingerprint import RACY_NS, MemoryFingerprints
from builder.context.select import InlineFile, Selection, select_sources
from builder.context.walk import Opener
from builder.errors import ContextError
from tests.fakes.context import make_tree, source_root

LATER_NS = 10 * RACY_NS


def _digest(folder, *arguments, fingerprints=None, keep_owner=False, now_ns=0, **options):
    with source_root(folder, keep_owner=keep_owner) as root:
        selection = Selection(root=root, sources=select_sources(root, arguments, **options))
        return digest_selection(selection, fingerprints, now_ns=now_ns or time.time_ns())


@pytest.fixture
def folder(tmp_path):
    """Give a small context."""
    make_tree(tmp_path, {"d/a": b"1", "d/sub/b": b"22", "d/l": "a", "d/empty": None, "e": b"1"})
    return tmp_path


def _touch(path):
    os.utime(path, (1, 1))


def _rename(path):
    path.rename(path.with_name("other"))


CHANGES = {
    "content": lambda path: path.write_bytes(b"3"),
    "mode": lambda path: path.chmod(0o755),
    "name": _rename,
    "longer": lambda path: path.write_bytes(b"11"),
    "type": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_digest_changes_with_what_is_copied(folder, change):
    """Bytes, mode, name and type of a copied file are part of the digest."""
    before = _digest(folder, "d")
    change(folder / "d/a")

    assert _digest(folder, "d") != before


@pytest.mark.parametrize("name", ["d/l", "d/empty"])
def test_digest_changes_with_links_and_empty_directories(folder, name):
    """The text of a link and the presence of an empty directory count."""
    before = _digest(folder, "d")
    path = folder / name
    if path.is_symlink():
        path.unlink()
        path.symlink_to("b")
    else:
        path.rmdir()

    assert _digest(folder, "d") != before


def test_digest_ignores_times_and_other_files(folder):
    """A touched file, and a file that is not copied, change nothing."""
    before = _digest(folder, "d")
    _touch(folder / "d/a")
    (folder / "e").write_bytes(b"new")
    (folder / "unrelated").write_bytes(b"new")

    assert _digest(folder, "d") == before


def test_digest_names_each_source(folder):
    """The last name of each argument is part of its answer."""
    assert [name for name, _ in _digest(folder, "d", "e", "d/sub/b")] == ["d", "e", "b"]


def test_digest_differs_for_equal_files_of_other_names(folder):
    """A source that is renamed is another question."""
    ((_, one),) = _digest(folder, "d/a")
    ((_, other),) = _digest(folder, "e")

    assert one != other


def test_digest_has_unambiguous_framing(tmp_path):
    """Moving bytes between a name and a content does not give the same digest."""
    make_tree(tmp_path, {"one/a": b"bc", "two/ab": b"c"})
    (_, one), (_, two) = _digest(tmp_path, "one", "two")

    assert one != two


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_digest_holds_owners_of_stages_only(folder):
    """Files of a context belong to nobody, those of a stage keep their owner."""
    context, stage = _digest(folder, "d"), _digest(folder, "d", keep_owner=True)
    os.chown(folder / "d/a", 5, 5)

    assert _digest(folder, "d") == context
    assert _digest(folder, "d", keep_owner=True) != stage


def test_known_files_are_not_read_again(folder, monkeypatch):
    """A second digest of an unchanged selection opens no file."""
    known = MemoryFingerprints()
    now_ns = time.time_ns() + LATER_NS
    before = _digest(folder, "d", fingerprints=known, now_ns=now_ns)
    monkeypatch.setattr(digest_module, "_hash_chunk", None)

    assert _digest(folder, "d", fingerprints=known, now_ns=now_ns) == before


def test_unchanged_sight_asks_for_no_file(folder, monkeypatch):
    """While lstat says the same of everything, the fingerprints of the files are not looked up."""
    known = MemoryFingerprints()
    now_ns = time.time_ns() + LATER_NS
    before = _digest(folder, "d", fingerprints=known, now_ns=now_ns)
    monkeypatch.setattr(known, "load", None)

    assert _digest(folder, "d", fingerprints=known, now_ns=now_ns) == before


def begin_listing(made: list[Listing]) -> Listing:
    """Make a listing."""
    made.append(Listing(Path("/nowhere")))
    return made[-1]


def test_source_known_at_sight_is_listed_when_asked_for(folder):
    """What lstat says is enough for the digest, not for the list of what it is made of."""
    known = MemoryFingerprints()
    later = time.time_ns() + LATER_NS
    with source_root(folder) as root:
        selection = Selection(root=root, sources=select_sources(root, ["d"]))
        lists: list[list[Listing]] = [[], [], []]
        for made, at_sight in zip(lists, (True, True, False), strict=True):
            digest_selection(selection, known, now_ns=later, listed=partial(begin_listing, made), at_sight=at_sight)

    assert lists[1] == []
    assert lists[2][0].sources() == lists[0][0].sources() != ()


def test_sights_of_two_places_are_told_apart(folder):
    """A directory and its only file have digests of their own, whatever is remembered."""
    known = MemoryFingerprints()
    now_ns = time.time_ns() + LATER_NS
    names = ("d", "d/a", ".")
    remembered = [_digest(folder, name, fingerprints=known, now_ns=now_ns) for name in names * 2]

    assert remembered == [_digest(folder, name) for name in names] * 2


def test_changed_file_is_read_again_though_size_and_mtime_are_the_same(folder):
    """A rewrite that restores the mtime shows by its ctime."""
    known = MemoryFingerprints()
    path = folder / "d/a"
    _touch(path)
    before = _digest(folder, "d", fingerprints=known, now_ns=time.time_ns() + LATER_NS)
    path.write_bytes(b"9")
    _touch(path)

    assert _digest(folder, "d", fingerprints=known, now_ns=time.time_ns() + LATER_NS) != before


def test_freshly_changed_files_are_not_remembered(folder):
    """A file written within the last two seconds is racy."""
    known = MemoryFingerprints()
    _digest(folder, "d", fingerprints=known, now_ns=time.time_ns())

    assert known.known == {}
    assert known.sights == {}


def test_file_that_took_the_place_of_another_is_read(folder):
    """A rename over a known file shows by the inode, whatever its times are."""
    known = MemoryFingerprints()
    before = _digest(folder, "d", fingerprints=known, now_ns=time.time_ns() + LATER_NS)
    status = (folder / "d/a").stat()
    (folder / "new").write_bytes(b"9")
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "new").rename(folder / "d/a")

    assert _digest(folder, "d", fingerprints=known, now_ns=time.time_ns() + LATER_NS) != before


def test_files_are_not_remembered_while_the_clock_is_behind_them(folder):
    """After the clock was set back, a change may get the very stamps of the one before."""
    known = MemoryFingerprints()
    _digest(folder, "d", fingerprints=known, now_ns=time.time_ns() - 100 * LATER_NS)

    assert known.known == {}


def test_young_files_are_noted_for_who_copies_them(folder):
    """Of files that others may write to, those whose stamps say nothing yet are kept with their digests."""
    for now_ns, count in ((time.time_ns(), 2), (time.time_ns() + LATER_NS, 0)):
        with source_root(folder, live=True) as root:
            selection = Selection(root=root, sources=select_sources(root, ["d"]))
            digest_selection(selection, None, now_ns=now_ns)

            assert len(root.young) == count


LATE_CHANGES = {
    "content": (lambda path: path.write_bytes(b"9"), "/d/a"),
    "content, time restored": (lambda path: (path.write_bytes(b"9"), _touch(path)), "/d/a"),
    "replaced": (lambda path: (path.unlink(), path.write_bytes(b"1")), "/d/a"),
    "gone": (lambda path: path.unlink(), "/d/a"),
    "new": (lambda path: path.with_name("new").touch(), "/d/new"),
    "mode": (lambda path: path.chmod(0o700), "/d/a"),
    "link": (lambda path: (path.with_name("l").unlink(), path.with_name("l").symlink_to("b")), "/d/l"),
}


@pytest.mark.parametrize(("change", "named"), LATE_CHANGES.values(), ids=LATE_CHANGES.keys())
def test_change_after_digesting_is_found_and_named(folder, change, named):
    """What others read of a selection is compared with what was digested, by all that can change."""
    with source_root(folder, live=True) as root:
        before, _ = selections = [Selection(root=root, sources=select_sources(root, ["d"])) for _ in range(2)]
        digest_selection(before, None, now_ns=time.time_ns() + LATER_NS)
        check_unchanged(*selections)
        change(folder / "d/a")

        with pytest.raises(ContextError, match=f"changed during the build in the build context: `{named}`"):
            check_unchanged(before, Selection(root=root, sources=select_sources(root, ["d"])))


def test_change_of_a_young_file_is_found_though_no_stamp_shows_it(folder, monkeypatch):
    """Files that were written right before are read again."""
    monkeypatch.setattr(Opener, "_is_changed", lambda *_: False)
    with source_root(folder, live=True) as root:
        selection = Selection(root=root, sources=select_sources(root, ["d"]))
        digest_selection(selection, None, now_ns=time.time_ns())
        check_unchanged(selection, selection)
        (folder / "d/a").write_bytes(b"9")

        with pytest.raises(ContextError, match="changed during the build"):
            check_unchanged(selection, selection)


def test_many_files_give_the_same_digest_as_few_at_a_time(tmp_path):
    """Two threads and one give the same answers."""
    make_tree(tmp_path, {f"d{number % 7}/f{number}": b"%d" % number for number in range(700)})
    make_tree(tmp_path, {"large": b"x" * (5 << 20)})
    known = MemoryFingerprints()
    for number in range(7):
        _digest(tmp_path, f"d{number}", fingerprints=known, now_ns=time.time_ns() + LATER_NS)

    assert _digest(tmp_path, ".", fingerprints=known) == _digest(tmp_path, ".")


def test_unreadable_or_vanished_file_is_named(folder):
    """A file that goes away between selecting and reading is an error with its name."""
    with source_root(folder) as root:
        selection = Selection(root=root, sources=select_sources(root, ["d"]))
        assert [len(list(source.chunks())) for source in selection.sources] == [1]
        (folder / "d/a").unlink()
        with pytest.raises(ContextError, match="file changed during the build in the build context: `/d/a`"):
            digest_selection(selection, None, now_ns=0)


def test_inline_files_are_part_of_the_answer():
    """A here-document counts by name and bytes."""
    one = Selection(root=None, sources=(InlineFile(name=b"x", content=b"1"),))
    two = Selection(root=None, sources=(InlineFile(name=b"x", content=b"2"),))

    assert digest_selection(one, None, now_ns=0) != digest_selection(two, None, now_ns=0)


def test_what_was_digested_is_listed(folder):
    """Each source with its path, and each file with what counts of it."""
    listing = Listing(folder)
    (folder / "d" / "a").chmod(0o640)
    with source_root(folder) as root:
        selection = Selection(root=root, sources=select_sources(root, ["d", "e"]))
        digests = digest_selection(selection, None, now_ns=0, listed=lambda: listing)

    listed = listing.sources()
    assert [(source.name, source.prefix) for source in listed] == [(b"d", b"d/"), (b"e", b"e")]
    files = {record.name: record for source in listed for record in read_records(source.records)}
    assert list(files) == [b"a", b"empty", b"l", b"sub", b"sub/b", b""]
    assert files[b"a"].mode == stat.S_IFREG | 0o640
    assert files[b"sub/b"].content == hashlib.sha256(b"22").digest()
    assert (files[b"l"].content, files[b"sub/b"].size) == (b"a", 2)
    assert digests == _digest(folder, "d", "e")
