"""`pybuild inspect`: images as JSON, in the form of `docker inspect`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from builder.cli.find_image import image_size, open_images
from builder.cli.option_values import parse_platform_option

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment
    from registry.content.image import Image
    from registry.oci.reference import Reference


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Print one array with an object for each image, in the order of the arguments."""
    images = open_images(arguments, environment)
    platform = parse_platform_option(arguments.platform, environment)
    described = [_describe(*images.load(text, platform)) for text in arguments.images]
    sys.stdout.write(
        json.dumps(described, indent=4, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"
    )
    return 0


def _describe(image: Image, names: tuple[Reference, ...]) -> dict[str, Any]:
    """Return the object `docker inspect` prints, as far as it means something without a daemon.

    Source: moby/moby, api/types/image, InspectResponse.
    """
    config = image.config
    repositories = dict.fromkeys(name.familiar_name() for name in names)
    described: dict[str, Any] = {
        "Id": image.manifest.config.digest,
        "RepoTags": [name.familiar() for name in names if name.tag],
        "RepoDigests": [f"{name}@{image.descriptor.digest}" for name in repositories],
        "Comment": (config.history[-1].comment or "") if config.history else "",
        "Created": config.created,
        "Author": config.author or "",
        "Config": json.loads(config.to_bytes()).get("config", {}),
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant,
        "Os": config.platform.os,
        "Size": image_size(image),
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Descriptor": image.descriptor.to_json(),
    }
    if not config.platform.variant:
        del described["Variant"]
    return described
