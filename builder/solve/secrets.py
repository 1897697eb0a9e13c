"""The secrets of a build: where each comes from, and its value when a step needs it.

Values are read late and kept nowhere: they go from here into the memory of a step.

Source: docker/buildx, util/buildflags/secrets.go; BuildKit, session/secrets/secretsprovider.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.request import SecretSource
    from builder.source import Span

LARGEST_SECRET = 500 * 1024
"""Bytes a secret may have. Source: BuildKit, session/secrets/secrets.go (MaxSecretSize)."""


class Secrets:
    """Gives the values of secrets by their ids; of two with one id the last counts."""

    def __init__(self, sources: Sequence[SecretSource]) -> None:
        self._sources = {source.id: source for source in sources}

    def find(self, name: str, span: Span | None = None) -> bytes | None:
        """Return the value of a secret, None if there is none of that id.

        Raises:
            UsageError: its file cannot be read, or it is too large.
        """
        source = self._sources.get(name)
        if source is None:
            return None
        value = source.value if source.path is None else _read(source.id, source.path, span)
        if value is not None and len(value) > LARGEST_SECRET:
            raise UsageError(
                f"secret {name} too big. max size {LARGEST_SECRET >> 10}KB",
                hint="mount large files with --mount=type=bind",
                span=span,
            )
        return value


def _read(name: str, path: Path, span: Span | None) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST_SECRET + 1)
    except OSError as error:
        raise UsageError(
            f"secret {name} cannot be read, {os.strerror(error.errno or 0).lower()}: `{path}`",
            hint="check src= of --secret",
            span=span,
        ) from error
