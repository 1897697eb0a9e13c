"""`pybuild save`: images as a tar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.find_image import Images, open_images, parse_name
from builder.cli.option_values import parse_platform_option
from builder.errors import UsageError
from builder.export.destination import open_destination
from builder.export.oci_layout import NamedImage, write_archive
from registry.content.image import load_image
from registry.value import replace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from builder.cli.environment import Environment
    from registry.oci.digest import Digest
    from registry.oci.platform import Platform


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Write the images to a file, which appears when it is complete, or to standard output."""
    if arguments.output is None and environment.stdout_tty:
        hint = "use --output FILE, or send standard output to a file"
        raise UsageError("refusing to write an archive to a terminal", hint=hint)
    images = open_images(arguments, environment)
    chosen = _choose(images, arguments.images, parse_platform_option(arguments.platform, environment))
    path = None if arguments.output is None else environment.path(arguments.output)
    with open_destination(path) as write:
        write_archive(chosen, images.blobs, write, docker=arguments.format == "docker-archive")
    return 0


def _choose(images: Images, texts: Sequence[str], platform: Platform | None) -> list[NamedImage]:
    """Return each image once, with the names it was asked for by; an image asked for by id has none."""
    chosen: dict[Digest, NamedImage] = {}
    for text in texts:
        entry = images.find(text, platform)[0]
        image = load_image(images.blobs, entry.descriptor, platform)
        name = entry.reference if entry.reference == parse_name(text) else None
        known = chosen.get(image.descriptor.digest, NamedImage(image=image, names=()))
        names = known.names if name is None else tuple(dict.fromkeys((*known.names, name)))
        chosen[image.descriptor.digest] = replace(known, names=names)
    return list(chosen.values())
