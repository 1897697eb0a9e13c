"""`pybuild pull`: images from a registry into the store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from builder.cli.option_values import parse_platform_option
from builder.cli.registries import connect, load_settings
from builder.cli.render import open_renderer
from builder.cli.show_transfer import TransferView
from builder.store import Store
from builder.transfer import pull_image
from registry.errors import NotFoundError

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment
    from registry.client import RegistryClient
    from registry.oci.platform import Platform
    from registry.oci.reference import Reference


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Pull each name and print its reference in full."""
    platform = parse_platform_option(arguments.platform, environment)
    settings = load_settings(environment, arguments.insecure_registry)
    wanted = [settings.resolve_name(text) for text in arguments.names]
    mode = "quiet" if arguments.quiet else environment.progress(arguments.progress)
    renderer = open_renderer(mode, environment, sys.stderr, title="Pulling")
    view = TransferView(renderer.sink)
    failure: BaseException | None = None
    try:
        renderer.start()
        with (
            Store(environment.root(arguments.root)) as store,
            connect(environment, arguments.insecure_registry, view.report) as client,
        ):
            pulled = [_pull(candidates, platform, client, store, view) for candidates in wanted]
    except BaseException as error:
        failure = error
        raise
    finally:
        renderer.close(failure)
    sys.stdout.write("".join(f"{reference}\n" for reference in pulled))
    return 0


def _pull(
    candidates: tuple[Reference, ...],
    platform: Platform | None,
    client: RegistryClient,
    store: Store,
    view: TransferView,
) -> Reference:
    """Pull the first of *candidates* that its registry knows and list it under its name."""
    for position, reference in enumerate(candidates):
        try:
            with view.vertex(f"pull {reference}"):
                pull_image(store, reference, platform, client)
        except NotFoundError:
            if position == len(candidates) - 1:
                raise
            continue
        return reference
    raise AssertionError
