"""Where an archive is written: a file that appears when it is complete, or standard output."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def open_destination(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Give what takes the bytes of an archive; None is standard output.

    A regular file is replaced only when all is written, and an unfinished one does not stay.

    Raises:
        BuildError: the file cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    is_special = path.exists() and not path.is_file()
    unfinished = path if is_special else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb", buffering=1 << 20) as file:
            yield file.write
        if not is_special:
            unfinished.replace(path)
    except OSError as error:
        raise BuildError(
            f"archive cannot be written, {error.strerror}: `{path}`", hint="check the folder and its free space"
        ) from error
    finally:
        if not is_special:
            unfinished.unlink(missing_ok=True)
