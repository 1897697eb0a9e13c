"""`pybuild push`: images from the store to the registry their names say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from builder.cli.find_image import open_images
from builder.cli.option_values import parse_platform_option
from builder.cli.registries import connect
from builder.cli.render import open_renderer
from builder.cli.show_transfer import TransferView
from builder.errors import UsageError
from builder.store import Store
from builder.transfer import push_image
from registry.content.image import load_image
from registry.oci.reference import parse_reference

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Push each name and print it with the digest it has there.

    An image for several platforms is pushed whole, unless one is asked for.
    """
    platform = parse_platform_option(arguments.platform, environment)
    images = open_images(arguments, environment)
    wanted = []
    for text in arguments.names:
        reference = parse_reference(text)
        if reference.tag is None:
            raise UsageError(f"a push needs a tag: `{text}`", hint="name it like HOST/NAME:TAG")
        descriptor = images.find(text)[0].descriptor
        wanted.append(
            (reference, load_image(images.blobs, descriptor, platform).descriptor if platform else descriptor)
        )
    mode = "quiet" if arguments.quiet else environment.progress(arguments.progress)
    renderer = open_renderer(mode, environment, sys.stderr, title="Pushing")
    view = TransferView(renderer.sink)
    failure: BaseException | None = None
    pushed = []
    try:
        renderer.start()
        with (
            Store(environment.root(arguments.root)) as store,
            connect(environment, arguments.insecure_registry, view.report) as client,
        ):
            for reference, image in wanted:
                with view.vertex(f"push {reference}"):
                    pushed.append((reference, push_image(store, image, reference, client)))
    except BaseException as error:
        failure = error
        raise
    finally:
        renderer.close(failure)
    sys.stdout.write("".join(f"{reference}@{descriptor.digest}\n" for reference, descriptor in pushed))
    return 0
