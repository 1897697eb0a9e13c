"""Writing the root file system of an image: as a tar, or into a directory.

Both read a mounted view of the file system, so they work only inside the namespace.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, BinaryIO

from runtime.layers.apply import apply_layer
from runtime.layers.archive import ArchiveWriter
from runtime.layers.diff import write_changes
from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class _UserFiles(ArchiveWriter):
    """Writes what a user may own: no other owners, no device nodes, no attributes that grant rights."""

    def add(self, entry: Entry, content: int | bytes | BinaryIO | None = None) -> None:
        """Write one entry, as the calling user's (0 inside the namespace), or leave it out."""
        if entry.kind not in (EntryKind.CHARACTER, EntryKind.BLOCK):
            super().add(entry._replace(uid=0, gid=0, xattrs=()), content)


def write_tar(view: Path, write: Callable[[bytes], object]) -> None:
    """Write a file system as one tar with numeric owners.

    Args:
        view: where it is mounted.
        write: takes the tar's bytes.
    """
    _write_view(view, ArchiveWriter(write))


def write_directory(view: Path, destination: Path) -> None:
    """Copy a file system into a directory, made if missing; what lies there stays unless it is overwritten.

    Every file belongs to the calling user, and device nodes are left out.
    """
    destination.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def produce() -> None:
        try:
            with os.fdopen(write_end, "wb", buffering=1 << 20) as pipe:
                _write_view(view, _UserFiles(pipe.write))
        except BrokenPipeError:
            pass  # the reader failed and says why
        except BaseException as error:  # noqa: BLE001  carried over to the thread that waits
            failure.append(error)

    producer = threading.Thread(target=produce, name="export")
    producer.start()
    try:
        with os.fdopen(read_end, "rb", buffering=1 << 20) as pipe:
            apply_layer(pipe, destination)
    finally:
        producer.join()
    if failure:
        raise failure[0]


def _write_view(view: Path, writer: ArchiveWriter) -> None:
    write_changes(view, (), writer)
    writer.finish()
