"""Writing the root file system of an image: as a tar, or into a directory.

Both read a mounted view of the file system, so they work only inside the namespace.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from runtime.layers.apply import apply_layer
from runtime.layers.archive import ArchiveWriter
from runtime.layers.diff import write_changes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write_tar(view: Path, write: Callable[[bytes], object]) -> None:
    """Write a file system as one tar with numeric owners.

    Args:
        view: where it is mounted.
        write: takes the tar's bytes.
    """
    writer = ArchiveWriter(write)
    write_changes(view, (), writer)
    writer.finish()


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
                write_tar(view, pipe.write)
        except BrokenPipeError:
            pass  # the reader failed and says why
        except BaseException as error:  # noqa: BLE001  carried over to the thread that waits
            failure.append(error)

    producer = threading.Thread(target=produce, name="export")
    producer.start()
    try:
        with os.fdopen(read_end, "rb", buffering=1 << 20) as pipe:
            apply_layer(pipe, destination, owner=False)
    finally:
        producer.join()
    if failure:
        raise failure[0]
