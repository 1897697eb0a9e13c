"""Named contexts: `--build-context NAME=VALUE`, which puts something else where a Dockerfile names a stage or image.

A value is a local folder, `docker-image://REFERENCE`, `oci-layout://PATH[:TAG|@DIGEST]`, the address of a git repository
or of a tar. Names are compared as image references, so `alpine` is `docker.io/library/alpine:latest`;
`NAME::PLATFORM` holds for one platform only. Nothing is opened or fetched before the Dockerfile asks for it.

Source: spec, section 1.18; BuildKit, frontend/dockerui/namedcontext.go.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from builder.context.ignore import parse_ignore
from builder.context.local import IGNORE_NAME, MAXIMUM_SIZE, Selections
from builder.context.root import SourceRoot
from builder.errors import ContextError
from registry.errors import RegistryError
from registry.oci.reference import parse_reference
from runtime.paths import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.context.remote import Network
    from registry.content.image import Image
    from registry.content.layout import ImageLayout
    from registry.content.local import LocalBlobStore
    from registry.oci.descriptor import Descriptor
    from registry.oci.platform import Platform

DOCKER_IMAGE: Final = "docker-image://"
OCI_LAYOUT: Final = "oci-layout://"
RESERVED: Final = frozenset({"scratch", "context"})
"""Names that mean something of their own and cannot be replaced."""


class NamedContext(NamedTuple):
    """What stands for a name: *key* is what it was given as, *value* says what it is, without its scheme."""

    key: str
    kind: Literal["directory", "image", "layout"]
    value: str


class NamedContexts:
    """The named contexts of one build.

    Args:
        values: by name; a folder as its path, everything else as text.
        blobs: takes the images of layouts.
        network: makes what fetches, when first needed.
    """

    def __init__(self, values: Mapping[str, Path | str], blobs: LocalBlobStore, network: Callable[[], Network]) -> None:
        self._values = {_normalize(name): (name, value) for name, value in values.items()}
        self._blobs = blobs
        self._network = network
        self._opened: dict[str, Selections] = {}
        self._times: dict[str, int | None] = {}
        self._fds: list[int] = []

    def find(self, name: str, platform: Platform) -> NamedContext | None:
        """Find what stands for *name* on a platform; one for that platform alone comes first."""
        if not self._values or name.lower() in RESERVED:
            return None
        found = self._values.get(_normalize(f"{name}::{platform}")) or self._values.get(_normalize(name))
        if found is None:
            return None
        key, value = found
        if isinstance(value, str):
            if value.startswith(DOCKER_IMAGE):
                return NamedContext(key, "image", value.removeprefix(DOCKER_IMAGE))
            if value.startswith(OCI_LAYOUT):
                return NamedContext(key, "layout", value.removeprefix(OCI_LAYOUT))
        return NamedContext(key, "directory", str(value))

    def get(self, key: str) -> Selections:
        """Open the folder, repository or tar that was given as *key*, once.

        Raises:
            ContextError: there is no such folder.
            SourceError: it cannot be fetched.
        """
        if key not in self._opened:
            _, value = self._values[_normalize(key)]
            if isinstance(value, Path):
                root = self._open_folder(key, value)
            else:
                from builder.context.remote import open_remote_directory  # noqa: PLC0415  only these need a network

                root, self._times[key] = open_remote_directory(value, self._network())
            self._opened[key] = Selections(root)
        return self._opened[key]

    def names(self) -> tuple[str, ...]:
        """List the names as they were given."""
        return tuple(name for name, _ in self._values.values())

    def time(self, key: str) -> int | None:
        """Find out when what was given as *key* was made, in seconds; None for what has no time of its own.

        Raises:
            SourceError: it cannot be fetched.
        """
        _, value = self._values[_normalize(key)]
        if isinstance(value, Path) or value.startswith((DOCKER_IMAGE, OCI_LAYOUT)):
            return None
        self.get(key)
        return self._times[key]

    def load_layout(self, context: NamedContext, platform: Platform) -> Image:
        """Take an image out of an OCI layout into the store.

        Raises:
            ContextError: the layout has no such image.
            RegistryError: it is damaged, or has nothing for the platform.
        """
        from registry.content.copy import copy_blob  # noqa: PLC0415  only layouts need it
        from registry.content.image import load_image  # noqa: PLC0415  as above
        from registry.content.layout import ImageLayout  # noqa: PLC0415  as above
        from registry.content.local import LocalBlobStore  # noqa: PLC0415  as above

        path, selector = _split_layout(context.value)
        there = LocalBlobStore(path, temporary=path)
        descriptor = _find_by_digest(there, selector) or _choose(ImageLayout(path), selector, path)
        image = load_image(there, descriptor, platform)
        for blob in (*image.manifest.layers, image.manifest.config, image.descriptor):
            copy_blob(there, self._blobs, blob.digest, size=blob.size)
        return image

    def close(self) -> None:
        """Close the folders. Idempotent."""
        while self._fds:
            os.close(self._fds.pop())

    def _open_folder(self, name: str, path: Path) -> SourceRoot:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(
                f"unable to prepare context {name}, {os.strerror(error.errno or 0).lower()}: `{path}`",
                hint="name an existing folder with --build-context",
            ) from error
        self._fds.append(fd)
        try:
            ignore = os.fdopen(open_in_root(fd, IGNORE_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except OSError as error:
            if error.errno == errno.ENOENT:
                return SourceRoot(fd=fd, shown=f"context {name} `{path}`", young={})
            raise ContextError(
                f"ignore file of context {name} cannot be read, {os.strerror(error.errno or 0).lower()}: `{path}`"
            ) from error
        with ignore as file:
            rules = parse_ignore(file.read(MAXIMUM_SIZE).decode("utf-8", "surrogateescape"), IGNORE_NAME)
        return SourceRoot(fd=fd, shown=f"context {name} `{path}`", ignore=rules, young={})


def _normalize(name: str) -> str:
    """Give the form names are compared in: that of a reference if it is one, with the platform it is for."""
    base, colons, platform = name.partition("::")
    try:
        base = str(parse_reference(base.lower() if "/" not in base else base))
    except RegistryError:
        base = base.lower()
    return f"{base}{colons}{platform}"


def _split_layout(value: str) -> tuple[Path, str]:
    """Split `PATH[:TAG|@DIGEST]`; a colon that a slash follows belongs to the path."""
    path, at, digest = value.rpartition("@")
    if at and "/" not in digest:
        return Path(path), digest
    path, colon, tag = value.rpartition(":")
    if not colon or "/" in tag:
        return Path(value), ""
    return Path(path), tag


def _find_by_digest(blobs: LocalBlobStore, selector: str) -> Descriptor | None:
    """Find the image of a digest, which the list of the layout need not name; None for a tag, or without such a blob."""
    from registry.content.image import find_document  # noqa: PLC0415  only layouts need it
    from registry.oci.digest import parse_digest  # noqa: PLC0415  as above

    return find_document(blobs, parse_digest(selector)) if ":" in selector else None


def _choose(layout: ImageLayout, selector: str, path: Path) -> Descriptor:
    entries = layout.entries()
    for entry in entries:
        names = {entry.descriptor.digest} | ({entry.reference.tag} if entry.reference else set())
        if (selector or "latest") in names:
            return entry.descriptor
    if not selector and len(entries) == 1:
        return entries[0].descriptor
    known = ", ".join(str(entry.reference.tag) for entry in entries if entry.reference) or "none has a tag"
    raise ContextError(
        f"no image {selector or 'latest'} in the OCI layout: `{path}`",
        hint=f"write oci-layout://PATH:TAG or @DIGEST; tags are: {known}",
    )
