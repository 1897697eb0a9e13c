"""A build context that is a directory: its Dockerfile, its ignore file, what a COPY takes from it.

Everything in the context is reached from its descriptor, so a Dockerfile or ignore file that is a symbolic link leads
nowhere out of it. A file named with `--file` outside the context is the user's own choice and read as it is.

Source: spec, sections 1.1 (12), 1.16, 1.17.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from builder.context.root import SourceRoot
from builder.errors import ContextError
from builder.source import SourceFile, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from builder.context.ignore import IgnoreRules
    from builder.context.select import Selection
else:
    Protocol = object

DEFAULT_NAMES = ("Dockerfile", "dockerfile")
IGNORE_NAME = ".dockerignore"
MAXIMUM_SIZE = 16 << 20
"""Longest Dockerfile or ignore file that is read, in bytes."""

_OPEN_FILE = os.O_RDONLY | os.O_CLOEXEC


class Context(Protocol):
    """What a build sees of a context, wherever it came from."""

    def select(
        self, paths: tuple[str, ...], *, excludes: tuple[str, ...], parents: bool, span: Span | None
    ) -> Selection:
        """Find what paths of a COPY name.

        Raises:
            ContextError: one does not exist, or is a wrong pattern.
        """


class Selections:
    """The answers to what COPYs name below one root; the same question is answered once."""

    def __init__(self, root: SourceRoot) -> None:
        self.root = root
        self._known: dict[tuple[object, ...], Selection] = {}

    def select(
        self, paths: tuple[str, ...], *, excludes: tuple[str, ...], parents: bool, span: Span | None
    ) -> Selection:
        """Find what paths of a COPY name.

        Raises:
            ContextError: one does not exist, or is a wrong pattern.
        """
        from builder.context.select import Selection, select_sources  # noqa: PLC0415  only where something is copied

        question = (paths, excludes, parents)
        if question not in self._known:
            sources = select_sources(self.root, paths, excludes=excludes, parents=parents, span=span)
            self._known[question] = Selection(root=self.root, sources=sources)
        return self._known[question]


class LocalContext:
    """An open context directory; close it when done.

    Args:
        path: the directory.
        dockerfile: path of `--file`, or None for the usual names in the context.
        text: the Dockerfile itself when it does not come from a file.

    Raises:
        ContextError: there is no such directory, or no Dockerfile.
    """

    def __init__(self, path: Path, *, dockerfile: Path | None, text: str | None = None) -> None:
        self.path = path
        self._fd = _open_directory(path)
        try:
            self.dockerfile = SourceFile("Dockerfile", text) if text is not None else self._read_dockerfile(dockerfile)
            ignore = self._read_ignore(dockerfile)
            root = SourceRoot(fd=self._fd, shown=f"build context `{path}`", ignore=ignore, young={})
            self._selections = Selections(root)
        except BaseException:
            self.close()
            raise

    time: int | None = None
    """When the context was made, in seconds; a directory has no time of its own."""

    @property
    def root(self) -> SourceRoot:
        """The directory as COPY sees it."""
        return self._selections.root

    def close(self) -> None:
        """Close the directory. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def select(
        self, paths: tuple[str, ...], *, excludes: tuple[str, ...], parents: bool, span: Span | None
    ) -> Selection:
        """Find what paths of a COPY name; the same question is answered once."""
        return self._selections.select(paths, excludes=excludes, parents=parents, span=span)

    def _read_dockerfile(self, chosen: Path | None) -> SourceFile:
        if chosen is not None:
            return SourceFile(chosen.name, _decode(self._read(chosen)))
        for name in DEFAULT_NAMES:
            try:
                return SourceFile(name, _decode(self._read(self.path / name)))
            except ContextError:
                if name == DEFAULT_NAMES[-1]:
                    break
        raise ContextError(
            f"failed to read dockerfile: open Dockerfile: no such file or directory, in `{self.path}`",
            hint="name it with --file, or name the folder it lies in as the context",
        )

    def _read_ignore(self, dockerfile: Path | None) -> IgnoreRules | None:
        """Read the rules of the one ignore file that counts: that beside the Dockerfile, else that of the context.

        Source: spec, section 1.16.
        """
        dockerfile = dockerfile or self.path / DEFAULT_NAMES[0]
        for path in (Path(f"{dockerfile}{IGNORE_NAME}"), self.path / IGNORE_NAME):
            try:
                text = _decode(self._read(path))
            except ContextError:
                if path.exists():
                    raise
                continue
            from builder.context.ignore import parse_ignore  # noqa: PLC0415  many contexts have none

            return parse_ignore(text, path.name)
        return None

    def _read(self, path: Path) -> bytes:
        """Read a small file, inside the context without leaving it."""
        try:
            if path.is_relative_to(self.path):
                fd = self._open_inside(os.fsencode(path.relative_to(self.path)))
            else:
                fd = os.open(path, _OPEN_FILE)
            with os.fdopen(fd, "rb") as file:
                data = file.read(MAXIMUM_SIZE + 1)
        except OSError as error:
            raise ContextError(
                f"failed to read dockerfile: open {path}: {(error.strerror or str(error)).lower()}",
                hint="check the path given with --file",
            ) from error
        if len(data) > MAXIMUM_SIZE:
            raise ContextError(f"file is larger than {MAXIMUM_SIZE >> 20} MiB: `{path}`")
        return data

    def _open_inside(self, path: bytes) -> int:
        if b"/" not in path and path != b"..":
            # What is no symbolic link lies in the context, which is known without loading what asks the kernel for more.
            try:
                return os.open(path, _OPEN_FILE | os.O_NOFOLLOW, dir_fd=self._fd)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
        from runtime.paths import open_in_root  # noqa: PLC0415  as above

        return open_in_root(self._fd, path, _OPEN_FILE)


def _open_directory(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ContextError(
            f'unable to prepare context: path "{path}" not found', hint="name an existing folder with --context"
        ) from error
    except OSError as error:
        raise ContextError(f'unable to prepare context: path "{path}": {error.strerror}') from error


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
