"""`pybuild logout`: forget the credentials of a registry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from builder.cli.verbs.login import parse_host
from registry.auth.keychain import remove_credentials

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Remove the host from every file that credentials are read from, so that none of them counts any more."""
    host = parse_host(arguments.host)
    removed = [file for file in environment.auth_files() if remove_credentials(file, host)]
    for file in removed:
        sys.stdout.write(f"Removed login credentials for {host} from {file}\n")
    if not removed:
        sys.stdout.write(f"Not logged in to {host}\n")
    return 0
