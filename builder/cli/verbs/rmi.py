"""`pybuild rmi`: fewer names, and images without names gone from the list.

Blobs that no other image and no cache record needs are deleted with it, but for those that a running process has looked
at: they wait for the next time, or for `pybuild prune`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from builder.cli.find_image import Images, open_images
from builder.collect.removal import collect_orphans
from builder.errors import UsageError
from builder.store import Store, give_up_reserve
from registry.errors import ImageMissingError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from builder.cli.environment import Environment
    from registry.content.layout import LayoutEntry


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Remove each image; a failure for one does not keep the others.

    Raises:
        ExceptionGroup: some could not be removed.
    """
    give_up_reserve(environment.root(arguments.root))
    images = open_images(arguments, environment)
    errors: list[Exception] = []
    for text in arguments.images:
        try:
            _remove(images, text, force=arguments.force)
        except ImageMissingError as error:
            if not arguments.force:
                errors.append(error)
        except UsageError as error:
            errors.append(error)
    _delete_blobs(environment.root(arguments.root))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("images that could not be removed", errors)
    return 0


def _remove(images: Images, text: str, *, force: bool) -> None:
    entries = images.find(text)
    if len(entries) == 1 and entries[0].reference is not None:
        images.layout.remove(entries[0].reference)
        _tell(entries)
        return
    if len(entries) > 1 and not force:
        names = ", ".join(entry.reference.familiar() for entry in entries if entry.reference is not None)
        raise UsageError(f"image has several names, {names}: `{text}`", hint="remove them by name, or all with --force")
    images.layout.remove_digest(entries[0].descriptor.digest)
    _tell(entries)


def _tell(entries: tuple[LayoutEntry, ...]) -> None:
    for entry in entries:
        name = entry.descriptor.digest if entry.reference is None else entry.reference.familiar()
        sys.stdout.write(f"Untagged: {name}\n")


def _delete_blobs(root: Path) -> None:
    """Delete what no image and no cache record needs any more, and no running build."""
    if not root.is_dir():
        return
    with Store(root, deletes=True) as store:
        for blob in collect_orphans(store).parts:
            sys.stdout.write(f"Deleted: {blob.name}\n")
