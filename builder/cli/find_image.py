"""Images of the store by what people type: a name, or the beginning of an id.

The *id* of an image is the digest of its config. An entry that lists an index stands for the image in it that runs on
the wanted platform.
"""

from __future__ import annotations

import re

from builder.errors import UsageError
from registry.content.image import Image, load_image
from registry.content.layout import ImageLayout, LayoutEntry
from registry.content.local import LocalBlobStore
from registry.errors import ImageMissingError, ReferenceInvalidError, RegistryError
from registry.oci.digest import Digest, digest_hex
from registry.oci.reference import Reference, parse_reference
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from builder.cli.environment import Environment
    from registry.oci.platform import Platform

SHORT_ID_LENGTH = 12
"""Hex digits of an id in listings, as Docker prints."""

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{3,64})")


@frozen(kw_only=False)
class Images:
    """The images of one store, for reading. Nothing is made on disk by opening or reading it."""

    layout: ImageLayout
    blobs: LocalBlobStore

    def find(self, text: str, platform: Platform | None = None) -> tuple[LayoutEntry, ...]:
        """Return the entries that *text* means: the one of that name, else all of the image with that id.

        Raises:
            ImageMissingError: there are none.
            UsageError: the beginning of an id fits several images.
            ReferenceInvalidError: neither a name nor an id.
        """
        name = parse_name(text)
        entries = self.layout.entries()
        if name is not None:
            named = [entry for entry in entries if entry.reference == name]
            if not named and name.digest is not None:
                named = [entry for entry in entries if _is_digest_of(entry, name)]
            if named:
                return (named[0],)
        found = _ID.fullmatch(text)
        if found is not None:
            return self._find_id(found[1], text, entries, platform)
        if name is None:
            parse_reference(text)
        raise ImageMissingError(text)

    def load(self, text: str, platform: Platform | None = None) -> tuple[Image, tuple[Reference, ...]]:
        """Return the image that *text* means, and all its names.

        Raises:
            RegistryError: it is not there (ImageMissingError), not for *platform*, or damaged.
            UsageError: as `find`.
        """
        entry = self.find(text, platform)[0]
        return load_image(self.blobs, entry.descriptor, platform), self.names(entry.descriptor.digest)

    def names(self, digest: Digest) -> tuple[Reference, ...]:
        """Return the names that the manifest or index *digest* has."""
        entries = self.layout.entries()
        return tuple(e.reference for e in entries if e.reference is not None and e.descriptor.digest == digest)

    def _find_id(
        self, prefix: str, text: str, entries: Sequence[LayoutEntry], platform: Platform | None
    ) -> tuple[LayoutEntry, ...]:
        fitting: dict[Digest, list[LayoutEntry]] = {}
        for entry in entries:
            ids = {entry.descriptor.digest, self.id_of(entry, platform)}
            if any(digest_hex(digest).startswith(prefix) for digest in ids):
                fitting.setdefault(entry.descriptor.digest, []).append(entry)
        if not fitting:
            raise ImageMissingError(text)
        if len(fitting) > 1:
            raise UsageError(f"several images have an id that begins so: `{text}`", hint="give more of the id")
        return tuple(next(iter(fitting.values())))

    def id_of(self, entry: LayoutEntry, platform: Platform | None = None) -> Digest:
        """Return the id of an entry; the digest of what it lists where the image cannot be read."""
        try:
            return load_image(self.blobs, entry.descriptor, platform).manifest.config.digest
        except RegistryError:
            return entry.descriptor.digest


def open_images(arguments: argparse.Namespace, environment: Environment) -> Images:
    """Open the images of the store that the arguments and the environment name."""
    root: Path = environment.root(arguments.root)
    images = root / "images"
    return Images(ImageLayout(images), LocalBlobStore(images, temporary=root / "tmp", removes_damaged=True))


def image_size(image: Image) -> int:
    """Return the bytes that an image takes in the store: manifest, config, and layers as they are stored."""
    manifest = image.manifest
    return image.descriptor.size + manifest.config.size + sum(layer.size for layer in manifest.layers)


def short_id(digest: Digest) -> str:
    """Return the beginning of an id for people."""
    return digest_hex(digest)[:SHORT_ID_LENGTH]


def shorten(name: str) -> str:
    """Return the beginning of a digest or of another long name for people."""
    return name.removeprefix("sha256:")[:SHORT_ID_LENGTH]


def parse_name(text: str) -> Reference | None:
    """Return *text* as a reference, or None if it cannot be one, as an id cannot."""
    try:
        return parse_reference(text)
    except ReferenceInvalidError:
        return None


def _is_digest_of(entry: LayoutEntry, name: Reference) -> bool:
    if entry.reference is None or entry.descriptor.digest != name.digest:
        return False
    return (entry.reference.registry, entry.reference.repository) == (name.registry, name.repository)
