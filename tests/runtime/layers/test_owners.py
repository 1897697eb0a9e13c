"""Owners in layers where only one user id exists: what is applied is what a diff finds again."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from runtime.layers.apply import apply_layer
from runtime.layers.archive import ArchiveWriter
from runtime.layers.diff import write_changes
from runtime.layers.entry import Entry, EntryKind
from runtime.ownership import RECORD
from runtime.snapshots.overlay import Snapshots
from tests.runtime.inside import run_inside

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.userns

CAPABILITY = (("security.capability", bytes.fromhex("0100000200200000000000000000000000000000")),)
FORGED = ((RECORD, bytes(20)), ("user.other", b"x"))

LAYER = [
    (Entry(b"block", EntryKind.BLOCK, 0o660, 0, 6, 9, device=(8, 300)), b""),
    (Entry(b"character", EntryKind.CHARACTER, 0o4666, 7, 8, 9, device=(10, 65537)), b""),
    (Entry(b"directory", EntryKind.DIRECTORY, 0o2775, 0, 50, 9), b""),
    (Entry(b"directory/file", EntryKind.FILE, 0o6755, 33, 44, 9, 4), b"text"),
    (Entry(b"directory/forged", EntryKind.FILE, 0o644, 33, 44, 9, xattrs=FORGED), b""),
    (Entry(b"directory/hard", EntryKind.HARDLINK, 0o6755, 33, 44, 9, linkname=b"directory/file"), b""),
    (Entry(b"directory/link", EntryKind.SYMLINK, 0o777, 4294967294, 65534, 9, linkname=b"file"), b""),
    (Entry(b"fifo", EntryKind.FIFO, 0o600, 5, 6, 9), b""),
    (Entry(b"ping", EntryKind.FILE, 0o755, 0, 0, 9, xattrs=CAPABILITY), b""),
    (Entry(b"root", EntryKind.FILE, 0o644, 0, 0, 9), b""),
]


def layer(entries: list[tuple[Entry, bytes]]) -> bytes:
    """Write a tar."""
    stream = io.BytesIO()
    writer = ArchiveWriter(stream.write)
    for entry, content in entries:
        writer.add(entry, content)
    writer.finish()
    return stream.getvalue()


def check_round_trip(folder: Path) -> None:
    """Run inside."""
    target = folder / "root"
    target.mkdir()
    apply_layer(io.BytesIO(layer(LAYER)), target)
    found = io.BytesIO()
    writer = ArchiveWriter(found.write)
    write_changes(target, (), writer)
    writer.finish()

    expected = [(e._replace(xattrs=FORGED[1:]) if e.xattrs == FORGED else e, content) for e, content in LAYER]
    assert found.getvalue() == layer(expected)


def test_diff_of_an_applied_layer_is_the_layer(tmp_path: Path) -> None:
    """Owners, devices, set-id bits and capabilities come back to the byte; a forged record does not count."""
    run_inside(check_round_trip, tmp_path, single_id=True)


def check_changes_on_top(folder: Path) -> None:
    """Run inside."""
    snapshots = Snapshots(folder / "snapshots", folder / "tmp")
    base = snapshots.prepare()
    apply_layer(io.BytesIO(layer([(Entry(b"", EntryKind.DIRECTORY, 0o711, 3, 4, 9), b""), *LAYER])), base.upper)
    snapshots.commit(base, "base")
    lowers = snapshots.lowers(["base"])
    assert [path.name for path in lowers] == ["base.recorded"]
    again = snapshots.prepare(lowers)
    target = folder / "mount"
    target.mkdir()
    other = [(e._replace(uid=1) if e.path == b"root" else e, content) for e, content in LAYER]
    with snapshots.mount_active(lowers, again, target):
        apply_layer(io.BytesIO(layer(other)), target)
    found: list[Entry] = []
    write_changes(again.upper, lowers, ArchiveWriter(lambda _: None), on_entry=found.append)

    assert [(e.path, e.uid, e.gid) for e in found if e.path != b"directory/hard"] == [
        (b"directory", 0, 50),
        (b"directory/file", 33, 44),
        (b"root", 1, 0),
    ]
    snapshots.discard(again)
    snapshots.remove("base")
    assert snapshots.names() == ()


def test_changes_are_found_by_owner(tmp_path: Path) -> None:
    """Of a layer applied on itself only what has several names, and what changed its owner, is a change."""
    run_inside(check_changes_on_top, tmp_path, single_id=True)
