"""Writing the root file system of an image: as a tar, or into a directory.

Both read a mounted view of the file system, so they work only inside the namespace.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import BuildError
from builder.export.destination import telling_where
from runtime.layers.apply import apply_layer
from runtime.layers.archive import ArchiveWriter
from runtime.layers.diff import write_changes
from runtime.layers.entry import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FileWriter(ArchiveWriter):
    """Writes views of file systems into one tar, each in its folder or all over each other.

    Args:
        write: takes the bytes of the tar.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__(write)
        self._epoch: int | None = None
        self._folder = b""
        self._seen: set[bytes] = set()

    def add_view(self, view: Path, *, epoch: int | None = None, folder: str = "") -> None:
        """Write a file system.

        Args:
            view: where it is mounted.
            epoch: the time every file gets, in seconds; None keeps theirs.
            folder: where in the tar it goes; empty for its root.

        Raises:
            BuildError: without a folder, a file lies where one of an earlier view does.
        """
        self._epoch = epoch
        self._folder = b""
        if folder:
            self.add(Entry(folder.encode(), EntryKind.DIRECTORY, 0o755, 0, 0, epoch or 0))
            self._folder = folder.encode() + b"/"
        write_changes(view, (), self)

    def add_file(self, name: str, content: bytes) -> None:
        """Write a file that only its owner reads, beside the view that was written last."""
        mtime = int(time.time()) if self._epoch is None else self._epoch
        self.add(Entry(name.encode(), EntryKind.FILE, 0o600, 0, 0, mtime, len(content)), content)

    def add(self, entry: Entry, content: int | bytes | BinaryIO | None = None) -> None:
        """Write one entry in its place, with its time."""
        if self._epoch is not None:
            entry = entry._replace(mtime=self._epoch)
        if self._folder:
            linkname = entry.linkname
            if entry.kind is EntryKind.HARDLINK:
                linkname = self._folder + linkname
            entry = entry._replace(path=self._folder + entry.path, linkname=linkname)
        elif entry.kind is not EntryKind.DIRECTORY:
            self._check(entry.path)
        super().add(entry, content)

    def _check(self, path: bytes) -> None:
        if path in self._seen:
            shown = path.decode("utf-8", "surrogateescape")
            raise BuildError(
                f"cannot overwrite a file of another platform: `{shown}`",
                hint="leave platform-split=false out, so that each platform gets a folder",
            )
        self._seen.add(path)


def write_tar(view: Path, write: Callable[[bytes], object]) -> None:
    """Write a file system as one tar with numeric owners.

    Args:
        view: where it is mounted.
        write: takes the tar's bytes.
    """
    writer = FileWriter(write)
    writer.add_view(view)
    writer.finish()


class _UserFiles(FileWriter):
    """Writes what a user may own: no other owners, no device nodes, no attributes that grant rights."""

    def add(self, entry: Entry, content: int | bytes | BinaryIO | None = None) -> None:
        """Write one entry, as the calling user's (0 inside the namespace), or leave it out."""
        if entry.kind not in (EntryKind.CHARACTER, EntryKind.BLOCK):
            super().add(entry._replace(uid=0, gid=0, xattrs=()), content)


def write_directory(destination: Path, write_views: Callable[[FileWriter], None]) -> None:
    """Copy file systems into a directory, made if missing; what lies there stays unless it is overwritten.

    Every file belongs to the calling user, and device nodes are left out.

    Args:
        destination: the directory.
        write_views: writes them, on another thread.

    Raises:
        BuildError: the directory cannot be written; what was by then stays.
    """
    with telling_where("folder", destination):
        destination.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def produce() -> None:
        try:
            with os.fdopen(write_end, "wb", buffering=1 << 20) as pipe:
                writer = _UserFiles(pipe.write)
                write_views(writer)
                writer.finish()
        except BrokenPipeError:
            pass  # the reader failed and says why
        except BaseException as error:  # noqa: BLE001  carried over to the thread that waits
            failure.append(error)

    producer = threading.Thread(target=produce, name="export")
    producer.start()
    try:
        with os.fdopen(read_end, "rb", buffering=1 << 20) as pipe, telling_where("folder", destination):
            apply_layer(pipe, destination)
    except Exception:
        producer.join()
        if not failure:
            raise
    producer.join()
    if failure:
        raise failure[0]
