"""Files of the context that change while a build reads them: a build fails, or is right; no record ever lies.

A build that knows an operation digests its files before it copies them, one that does not while it does.
"""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from builder.context.walk import Opener
from builder.errors import ContextError
from registry.content.layer_stream import open_layer
from tests.builder.test_pipeline import Workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.context.root import SourceRoot
    from builder.context.walk import Found

TEXT = "FROM scratch\nCOPY a /a\n"
SMALL, LARGE = 10, 3 << 20
"""Bytes that are read at once, and in pieces."""


def grow(path: Path) -> None:
    """Append to a file."""
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    """Take the end off a file."""
    os.truncate(path, path.stat().st_size - 1)


def rewrite(path: Path) -> None:
    """Write other bytes of the same length."""
    path.write_bytes(b"\1" * path.stat().st_size)


def rewrite_secretly(path: Path) -> None:
    """Write other bytes of the same length and put the time back."""
    status = path.stat()
    rewrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    """Put another file of the same length and time in its place."""
    status = path.stat()
    new = path.with_name("new")
    new.write_bytes(b"\1" * status.st_size)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)


def vanish(path: Path) -> None:
    """Remove a file."""
    path.unlink()


IN_PLACE = [grow, shrink, rewrite, rewrite_secretly]
"""Changes of what is open already."""


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """Give an empty workshop."""
    made = Workshop(tmp_path)
    yield made
    made.store.close()


def make_known(workshop: Workshop, text: str, name: str) -> None:
    """Have a build of other files with the same Dockerfile behind."""
    path = workshop.context / name
    path.write_bytes(b"other")
    workshop.build(text)
    path.unlink()


class Intruder:
    """Changes a file when it is opened for the *number*th time: right after, and after its stamps if they are looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, change: Callable[[], None]) -> None:
        self._left = number
        self._change = change
        open_checked, open_only = Opener.open, Opener._open
        is_checked = False

        def open_and_change(opener: Opener, found: Found) -> int:
            nonlocal is_checked
            is_checked = True
            try:
                fd = open_checked(opener, found)
            finally:
                is_checked = False
            self._step()
            return fd

        def read_and_change(opener: Opener, root: SourceRoot, path: bytes) -> int:
            fd = open_only(opener, root, path)
            if not is_checked:
                self._step()
            return fd

        monkeypatch.setattr(Opener, "open", open_and_change)
        monkeypatch.setattr(Opener, "_open", read_and_change)

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._change()


def content_of(workshop: Workshop, image: object) -> bytes:
    """Read the only file of the last layer of an image."""
    layer = image.manifest.layers[-1]
    with (
        workshop.store.blobs.open_verified(layer.digest) as blob,
        tarfile.open(fileobj=open_layer(blob, media_type=layer.media_type), mode="r|") as tar,
    ):
        return next(tar.extractfile(entry).read() for entry in tar if entry.isfile())


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("moment", "change"),
    [
        *(pytest.param(1, change, id=f"digested-{change.__name__}") for change in (*IN_PLACE, replace, vanish)),
        *(pytest.param(2, change, id=f"copied-{change.__name__}") for change in IN_PLACE),
    ],
)
def test_file_that_changes_while_it_is_read_fails_the_build(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], moment: int, size: int
) -> None:
    """The file is named, nothing is recorded, and the next build has what is there then."""
    path = workshop.context / "a"
    make_known(workshop, TEXT, "a")
    before = (workshop.store.state.records(), set(workshop.store.blobs.walk()))
    path.write_bytes(bytes(size))
    with monkeypatch.context() as patch:
        Intruder(patch, moment, lambda: change(path))
        with pytest.raises(ContextError, match=r"file changed during the build in the build context .*: `/a`"):
            workshop.build(TEXT)

    assert (workshop.store.state.records(), set(workshop.store.blobs.walk())) == before
    if path.exists():
        assert content_of(workshop, workshop.build(TEXT)) == path.read_bytes()


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("change", [*IN_PLACE, replace, vanish])
def test_file_that_changes_while_it_is_read_once_fails_the_build(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], size: int
) -> None:
    """The same holds where nothing is digested before it is copied."""
    path = workshop.context / "a"
    path.write_bytes(bytes(size))
    with monkeypatch.context() as patch:
        Intruder(patch, 1, lambda: change(path))
        with pytest.raises(ContextError, match=r"file changed during the build in the build context .*: `/a`"):
            workshop.build(TEXT)

    assert workshop.store.state.records() == ()
    assert list(workshop.store.blobs.walk()) == []
    if path.exists():
        assert content_of(workshop, workshop.build(TEXT)) == path.read_bytes()


@pytest.mark.parametrize("change", [replace, vanish])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_file_that_loses_its_name_while_it_is_read_is_what_was_digested(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], size: int
) -> None:
    """An open file keeps its bytes, so the layer has those of its key; the next build has what is there then."""
    path = workshop.context / "a"
    make_known(workshop, TEXT, "a")
    path.write_bytes(bytes(size))
    with monkeypatch.context() as patch:
        Intruder(patch, 2, lambda: change(path))
        image = workshop.build(TEXT)

    assert content_of(workshop, image) == bytes(size)
    if path.exists():
        assert content_of(workshop, workshop.build(TEXT)) == path.read_bytes()


@pytest.mark.parametrize("is_known", [True, False], ids=["digested before", "digested once"])
@pytest.mark.parametrize("moment", [1, 2], ids=["first", "second"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_young_file_is_compared_by_its_content(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, size: int, moment: int, is_known: bool
) -> None:
    """A change within one tick of the clock, which no stamp shows, is found all the same when it is read again."""
    path = workshop.context / "a"
    if is_known:
        make_known(workshop, TEXT, "a")
    before = workshop.store.state.records()
    path.write_bytes(bytes(size))
    monkeypatch.setattr(Opener, "_is_changed", lambda *_: False)
    Intruder(monkeypatch, moment, lambda: rewrite(path))

    if moment == 2:
        with pytest.raises(ContextError, match="file changed during the build"):
            workshop.build(TEXT)
        assert workshop.store.state.records() == before
    else:
        assert content_of(workshop, workshop.build(TEXT)) == path.read_bytes()


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("change", [rewrite_secretly, shrink])
def test_archive_that_changes_while_it_is_unpacked_fails_the_build(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """ADD compares the archive, not what comes out of it; it is no damaged archive either."""
    path = workshop.context / "a.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(3):
            entry = tarfile.TarInfo(f"file-{number}")
            entry.size = LARGE
            tar.addfile(entry, io.BytesIO(bytes(LARGE)))
    Intruder(monkeypatch, 3, lambda: change(path))  # digested, looked at, unpacked

    with pytest.raises(ContextError, match=r"file changed during the build in the build context .*: `/a.tar`"):
        workshop.build("FROM scratch\nADD a.tar /\n")

    assert workshop.store.state.records() == ()


@pytest.mark.usefixtures("age")
def test_file_that_changes_in_a_named_folder_fails_the_build(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Named folders are watched as the build context is."""
    path = tmp_path / "named" / "a"
    path.parent.mkdir()
    path.write_bytes(b"1")
    Intruder(monkeypatch, 1, lambda: rewrite_secretly(path))

    with pytest.raises(ContextError, match="changed during the build in the context other"):
        workshop.build("FROM scratch\nCOPY --from=other a /a\n", build_contexts={"other": path.parent})


@pytest.mark.usefixtures("age")
def test_other_file_may_change_meanwhile(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is copied is watched."""
    (workshop.context / "a").write_bytes(b"1")
    (workshop.context / "b").write_bytes(b"1")
    Intruder(monkeypatch, 1, lambda: rewrite(workshop.context / "b"))

    assert content_of(workshop, workshop.build(TEXT)) == b"1"
