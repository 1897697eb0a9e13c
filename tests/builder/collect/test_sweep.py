"""What is swept at the start after a process was killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from builder.collect.sweep import sweep
from builder.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.shelf import Shelf


def bury(shelf: Shelf, *held: str) -> Path:
    """Leave the folder of a process that was killed and held these."""
    folder = shelf.store.root / "tmp" / "1-dead"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / ".held").write_text("".join(f"{name}\n" for name in held))
    (folder / "blob-half").write_text("half a blob")
    return folder


def test_sweep_removes_finished_blobs_that_nobody_came_to_need(shelf: Shelf) -> None:
    """A blob that was made just before the kill goes; one that has a record by then stays."""
    lost, kept = shelf.blob("lost"), shelf.layer("kept")
    shelf.record("kept", kept)
    dead = bury(shelf, lost, shelf.blob_of(kept))
    sweep(shelf.store, is_inside=False)

    assert not dead.exists()
    assert not shelf.store.blobs.path(lost).exists()
    assert shelf.store.blobs.path(shelf.blob_of(kept)).exists()


def test_sweep_spares_what_another_process_found(shelf: Shelf) -> None:
    """The next pull of an image goes on with the layers that the killed one had."""
    blob = shelf.blob("layer of a base")
    bury(shelf, blob)
    with Store(shelf.store.root) as other:
        other.blobs.has(blob)
        sweep(shelf.store, is_inside=False)

        assert other.blobs.path(blob).exists()


def test_sweep_does_not_fail_for_a_damaged_store(shelf: Shelf) -> None:
    """A list of images that cannot be read keeps all blobs, and the command goes on."""
    blob = shelf.blob("lost")
    (shelf.store.root / "images" / "index.json").write_text(json.dumps(["no", "object"]))
    bury(shelf, blob)
    sweep(shelf.store, is_inside=False)

    assert shelf.store.blobs.path(blob).exists()
