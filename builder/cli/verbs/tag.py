"""`pybuild tag`: another name for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.find_image import open_images
from builder.errors import UsageError
from registry.oci.reference import parse_reference

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Name the source so; a name that was in use moves."""
    target = parse_reference(arguments.target)
    if target.digest is not None:
        raise UsageError(f"a new name cannot have a digest: `{arguments.target}`", hint="use a tag")
    images = open_images(arguments, environment)
    images.layout.put(images.find(arguments.source)[0].descriptor, target)
    return 0
