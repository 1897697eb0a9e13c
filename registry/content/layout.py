"""The names of images: `index.json` of an OCI image layout.

An entry is a descriptor with up to two annotations that hold its name: `org.opencontainers.image.ref.name` in familiar
form, which skopeo and umoci look up, and `io.containerd.image.name` in canonical form, which containerd and Docker
read. An entry without a name keeps an image that lost its tag until it is pruned. Entries and fields that other tools
wrote stay as they are. See `registry.content.paths` for the tree.

Source: image-spec, image-layout.md and annotations.md.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from registry.content.paths import NO_SPACE, index_file, layout_file, lock_file
from registry.errors import (
    ImageMissingError,
    LayoutError,
    ManifestInvalidError,
    ReferenceInvalidError,
    StoreFullError,
)
from registry.oci.canonical_json import decode_json, encode_json
from registry.oci.descriptor import Descriptor
from registry.oci.media_types import OCI_INDEX
from registry.oci.reference import Reference, parse_reference
from registry.value import frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, Final

    from registry.oci.digest import Digest

NAME_ANNOTATION: Final = "org.opencontainers.image.ref.name"
"""Holds the familiar form of a reference. Source: image-spec, annotations.md."""

CANONICAL_NAME_ANNOTATION: Final = "io.containerd.image.name"
"""Holds the canonical form of a reference. Source: containerd, images/annotations.go."""

LAYOUT_VERSION: Final = "1.0.0"


@frozen(kw_only=False)
class LayoutEntry:
    """One line of the list. *descriptor* is without the annotations of the name; *reference* is None without a tag."""

    reference: Reference | None
    descriptor: Descriptor


class ImageLayout:
    """The list of images in a layout, read and changed by any number of processes.

    Reading takes no lock and sees one whole version. Changing locks, reads, and replaces the file at once.

    Args:
        images: the layout's directory; made when something is first put.
    """

    def __init__(self, images: Path) -> None:
        self._images = images

    def entries(self) -> tuple[LayoutEntry, ...]:
        """Return the images in the order they were put. Entries that are no descriptors are passed by.

        Raises:
            LayoutError: the list is damaged, or of a version that is not known.
        """
        return tuple(entry for value in self._read()["manifests"] if (entry := _parse_entry(value)) is not None)

    def find(self, reference: Reference) -> Descriptor | None:
        """Return the image of that name, or with that digest if the reference has one; None if there is none.

        Raises:
            LayoutError: as `entries`.
        """
        entries = self.entries()
        for entry in entries:
            if entry.reference == reference:
                return entry.descriptor
        if reference.digest is not None:
            for entry in entries:
                if entry.descriptor.digest == reference.digest:
                    return entry.descriptor
        return None

    def put(self, descriptor: Descriptor, reference: Reference | None) -> None:
        """List an image, under a name unless *reference* is None.

        A name that another image had moves; that image stays as an entry without a name. Idempotent.

        Raises:
            LayoutError: as `entries`, or the list cannot be written.
            StoreFullError: no space or quota is left.
        """
        with self._change() as values:
            kept: list[Any] = []
            moved: list[Descriptor] = []
            for value in values:
                entry = _parse_entry(value)
                if entry is None or (entry.reference is not None and entry.reference != reference):
                    kept.append(value)
                elif entry.reference is not None:
                    moved.append(entry.descriptor)
                elif entry.descriptor.digest != descriptor.digest:
                    kept.append(value)
            values[:] = kept
            present = _digests(values)
            if reference is not None or descriptor.digest not in present:
                values.append(name_descriptor(descriptor, reference).to_json())
                present.add(descriptor.digest)
            values.extend(old.to_json() for old in moved if old.digest not in present)

    def remove(self, reference: Reference) -> Descriptor:
        """Take a name away and return what it named; the blobs stay.

        Raises:
            ImageMissingError: there is no such name.
            LayoutError: as `entries`, or the list cannot be written.
        """
        with self._change() as values:
            for position, value in enumerate(values):
                entry = _parse_entry(value)
                if entry is not None and entry.reference == reference:
                    del values[position]
                    return entry.descriptor
            raise ImageMissingError(reference.familiar())

    def remove_digest(self, digest: Digest) -> None:
        """Take all entries of an image away, with and without names; nothing happens if there are none.

        Raises:
            LayoutError: as `entries`, or the list cannot be written.
        """
        with self._change() as values:
            values[:] = [
                value for value in values if (entry := _parse_entry(value)) is None or entry.descriptor.digest != digest
            ]

    def remove_unnamed(self, digest: Digest) -> bool:
        """Take the entry without a name of an image away; return whether there was one. Its names stay.

        Raises:
            LayoutError: as `entries`, or the list cannot be written.
        """
        with self._change() as values:
            count = len(values)
            values[:] = [
                value
                for value in values
                if (entry := _parse_entry(value)) is None
                or entry.reference is not None
                or entry.descriptor.digest != digest
            ]
            return len(values) < count

    def _read(self) -> dict[str, Any]:
        path = index_file(self._images)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        except OSError as error:
            raise LayoutError(f"list of images cannot be read, {error.strerror}: `{path}`") from error
        _check_version(self._images)
        document = _decode(data, path)
        if document.get("manifests") is None:
            document["manifests"] = []
        if not isinstance(document["manifests"], list):
            raise _damaged("manifests is no array", path)
        return document

    @contextmanager
    def _change(self) -> Iterator[list[Any]]:
        """Lock the list, give its entries to be changed in place, and write it if they were."""
        try:
            with self._lock():
                document = self._read()
                before = list(document["manifests"])
                yield document["manifests"]
                if document["manifests"] != before:
                    self._write(document)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise StoreFullError(str(self._images), str(error.strerror)) from error
            raise LayoutError(f"list of images cannot be written, {error.strerror}: `{self._images}`") from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._images.mkdir(parents=True, exist_ok=True)
        # flock belongs to the open file, so threads of one process exclude each other as well.
        fd = os.open(lock_file(self._images), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, document: dict[str, Any]) -> None:
        layout = layout_file(self._images)
        if not layout.exists():
            _replace_file(layout, encode_json({"imageLayoutVersion": LAYOUT_VERSION}))
        _replace_file(index_file(self._images), encode_json(document))


def name_descriptor(descriptor: Descriptor, reference: Reference | None) -> Descriptor:
    """Give a descriptor the annotations that name it in an index: those of *reference*, or none."""
    annotations = {
        name: text
        for name, text in descriptor.annotations.items()
        if name not in {NAME_ANNOTATION, CANONICAL_NAME_ANNOTATION}
    }
    if reference is not None:
        annotations[CANONICAL_NAME_ANNOTATION] = str(reference)
        annotations[NAME_ANNOTATION] = reference.familiar()
    return replace(descriptor, annotations=annotations)


def _replace_file(path: Path, data: bytes) -> None:
    # Only the holder of the lock writes, so one temporary name is enough, and what a crash left is overwritten.
    temporary = path.with_name(f".{path.name}.new")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _check_version(images: Path) -> None:
    path = layout_file(images)
    try:
        document = _decode(path.read_bytes(), path)
    except FileNotFoundError:
        # umoci and skopeo always write it; without it the list still says all there is to know.
        return
    except OSError as error:
        raise LayoutError(f"image layout cannot be read, {error.strerror}: `{path}`") from error
    version = document.get("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise LayoutError(f"image layout has a version other than {LAYOUT_VERSION}, {version!r}: `{path}`")


def _decode(data: bytes, path: Path) -> dict[str, Any]:
    try:
        document = decode_json(data, subject=path.name)
    except ManifestInvalidError as error:
        raise _damaged(error.reason, path) from error
    if not isinstance(document, dict):
        raise _damaged("expected an object", path)
    return document


def _damaged(reason: str, path: Path) -> LayoutError:
    return LayoutError(
        f"list of images is damaged, {reason}: `{path}`",
        hint=f"restore it, or begin a new list with `mv {path} {path}.damaged`: layers stay until `pybuild prune`, and "
        "images get their names back when they are built, pulled or loaded again",
    )


def _parse_entry(value: object) -> LayoutEntry | None:
    try:
        descriptor = Descriptor.from_json(value, subject="index.json")
    except ManifestInvalidError:
        return None
    annotations = dict(descriptor.annotations)
    name, canonical = annotations.pop(NAME_ANNOTATION, ""), annotations.pop(CANONICAL_NAME_ANNOTATION, "")
    return LayoutEntry(_find_name(name, canonical), replace(descriptor, annotations=annotations))


def _find_name(name: str, canonical: str) -> Reference | None:
    """Return what an entry is called.

    BuildKit and docker write the whole name into *canonical* and only the tag into *name*. umoci changes *name* when
    it tags, and leaves a *canonical* that no longer holds.
    """
    whole = _parse_name(canonical)
    if whole is not None and name in {"", whole.tag}:
        return whole
    return _parse_name(name) or whole


def _parse_name(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except ReferenceInvalidError:
        # Other tools may put any text there; such an image is listed without a name.
        return None


def _digests(values: list[Any]) -> set[str]:
    return {entry.descriptor.digest for value in values if (entry := _parse_entry(value)) is not None}
