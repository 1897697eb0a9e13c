"""One root for all cases, with the image `busybox:1` in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import busybox_archive, packages, place, program, user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.command import Account, Pybuild

__all__ = ["busybox_archive", "packages", "program", "user"]


@pytest.fixture(scope="module")
def shared(program: tuple[str, ...], user: Account, busybox_archive: Path) -> Iterator[Pybuild]:
    """Return the command as the unprivileged user; what one case builds is in the cache for the next."""
    with place(program, user) as command:
        command("import", str(busybox_archive), "busybox:1")
        yield command


@pytest.fixture
def alone(program: tuple[str, ...], user: Account, busybox_archive: Path) -> Iterator[Pybuild]:
    """Return the command as the unprivileged user, with a root of its own: nothing but `busybox:1` is in it."""
    with place(program, user) as command:
        command("import", str(busybox_archive), "busybox:1")
        yield command
