"""The builders that are measured, each reduced to what the measurement does with it.

A tool keeps all it has in one folder. `prepare` empties it and puts the base images in; a build after that is *cold*:
nothing is cached but the bases. The same build again is *warm*.
"""

from __future__ import annotations

import os
import pwd
import shutil
from typing import TYPE_CHECKING, Protocol

from benchmark.measure import Command, run
from benchmark.sub_ids import set_aside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TAG = "localhost/measured:1"

NEEDS_ROOT = frozenset({"chroot"})
"""Rungs that are for uid 0."""


class Tool(Protocol):
    """One builder."""

    name: str

    def prepare(self, bases: Mapping[str, Path]) -> None:
        """Forget everything but the base images, given as name to archive of a root file system."""

    def build(self, context: Path) -> Command:
        """Return the command that builds the context into an image."""

    def start(self, file: Path | None = None) -> Command:
        """Return the command that does nothing but start: the installed one, or the project's as one *file*."""

    def pull(self, image: str) -> Command:
        """Return the command that pulls an image from a registry on loopback."""

    def unpack(self, image: str, context: Path) -> Command:
        """Return the command that pulls and unpacks an image; the only step of *context* runs on it."""

    def push(self, image: str, name: str) -> Command:
        """Return the command that pushes an image that was pulled, as *name*, to a registry on loopback."""


class PybuildTool:
    """The project, as it is on the path.

    Args:
        folder: below it, all that is kept.
        isolation: the rung that steps are run at, which names the tool; None for the best, and the project's name.
        user: who builds, None for the caller.
    """

    def __init__(self, folder: Path, *, isolation: str | None = None, user: str | None = None) -> None:
        self.name = isolation or "pybuild"
        self.folder = folder / self.name
        self.user = user
        self.env = {
            **os.environ,
            "PYBUILD_ROOT": str(self.folder / "store"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        if isolation is not None:
            self.env["PYBUILD_ISOLATION"] = isolation
        if user is not None:
            self.env["HOME"] = pwd.getpwnam(user).pw_dir

    def prepare(self, bases: Mapping[str, Path]) -> None:
        """Empty the root and import the bases."""
        set_aside(self.folder)
        self.folder.mkdir()
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        for name, archive in bases.items():
            run(self._command("import", str(archive), name))

    def build(self, context: Path) -> Command:
        """Build into the root's image layout, as users do by default."""
        return self._command("build", "--context", str(context), "--tag", TAG)

    def start(self, file: Path | None = None) -> Command:
        """Ask for the version."""
        return Command(args=(str(file or "pybuild"), "--version"), env=self.env, user=self.user)

    def pull(self, image: str) -> Command:
        """Pull into the root's image layout, where layers stay packed."""
        return self._command("pull", image)

    def unpack(self, image: str, context: Path) -> Command:  # noqa: ARG002  the context names it
        """Build, since nothing is unpacked before a step needs it."""
        return self.build(context)

    def push(self, image: str, name: str) -> Command:
        """Push what now also has the other name."""
        run(self._command("tag", image, name))
        return self._command("push", name)

    def _command(self, *args: str) -> Command:
        return Command(args=("pybuild", *args), env=self.env, user=self.user)


class BuildahTool:
    """Debian's buildah, in the mode that runs most widely: chroot isolation, layers cached."""

    name = "buildah"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "buildah"

    def prepare(self, bases: Mapping[str, Path]) -> None:
        """Empty the storage and commit each base from nothing."""
        set_aside(self.folder)
        for number, (name, archive) in enumerate(bases.items()):
            container = f"base-{number}"
            run(self._command("from", "--name", container, "scratch"))
            run(self._command("add", container, str(archive), "/"))
            run(self._command("commit", "--rm", container, name))

    def build(self, context: Path) -> Command:
        """Build into the storage."""
        return self._command(
            "build", "--isolation", "chroot", "--layers", "--pull-never", "--jobs", str(os.cpu_count() or 1), "--tag", TAG, str(context)
        )  # fmt: skip

    def start(self, file: Path | None = None) -> Command:  # noqa: ARG002  buildah has no other form
        """Ask for the version."""
        return self._command("--version")

    def pull(self, image: str) -> Command:
        """Pull into the storage, where layers are unpacked."""
        return self._command("pull", "--tls-verify=false", image)

    def unpack(self, image: str, context: Path) -> Command:  # noqa: ARG002  no step is needed
        """Pull, which unpacks."""
        return self.pull(image)

    def push(self, image: str, name: str) -> Command:
        """Push under the other name; layers are packed again on the way."""
        return self._command("push", "--tls-verify=false", image, f"docker://{name}")

    def _command(self, verb: str, *args: str) -> Command:
        storage = ("--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run"))
        return Command(args=("buildah", *storage, verb, *args), env=dict(os.environ))


def find_tools(folder: Path) -> list[Tool]:
    """Return the project and whatever else is installed."""
    tools: list[Tool] = [PybuildTool(folder)]
    if shutil.which("buildah"):
        tools.append(BuildahTool(folder))
    return tools


def find_rungs(folder: Path, names: Sequence[str], user: str | None) -> list[Tool]:
    """Return the project once for each rung of isolation.

    Args:
        folder: below it each keeps what it has.
        names: of the rungs.
        user: who builds where that takes no root; None for the caller, who is then no root.
    """
    return [PybuildTool(folder, isolation=name, user=None if name in NEEDS_ROOT else user) for name in names]
