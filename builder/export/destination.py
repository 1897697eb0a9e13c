"""Where an archive is written: a file that appears when it is complete, or standard output."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.errors import BuildError
from registry.errors import StoreFullError
from runtime.errors import KernelError

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
        with telling_where("archive", path):
            file = unfinished.open("wb", buffering=1 << 20)

        def write(data: bytes) -> object:
            with telling_where("archive", path):
                return file.write(data)

        try:
            yield write
        finally:
            with telling_where("archive", path):
                file.close()
        if not is_special:
            with telling_where("archive", path):
                unfinished.replace(path)
    finally:
        if not is_special:
            unfinished.unlink(missing_ok=True)


@contextmanager
def telling_where(kind: str, path: Path) -> Iterator[None]:
    """Say what cannot be written where a block fails to.

    Raises:
        BuildError: instead of an OSError, or of a StoreFullError of what is written like a store.
    """
    try:
        yield
    except (OSError, StoreFullError) as error:
        cause = error.cause if isinstance(error, StoreFullError) else error.strerror
        if isinstance(error, KernelError) and error.subject:
            cause = f"{cause} at `{error.subject}`"
        raise BuildError(
            f"{kind} cannot be written, {cause}: `{path}`", hint="check the folder and its free space"
        ) from error
