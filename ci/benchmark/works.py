"""What is measured: each work is a context, the base images it needs and a floor that no builder gets below."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark import contexts
from benchmark.measure import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmark.tools import Tool

SMALL_BASE = "localhost/small:1"
DEBIAN_BASE = "localhost/debian:1"

STAGE_COMMAND = "dd if=/dev/zero bs=1M count=300 2>/dev/null | sha256sum > /dev/null"
"""About a second of one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything; *cold* and *warm* are how often each is repeated."""

    files: int
    files_size: int
    big_size: int
    steps: int
    stages: int
    cold: int
    warm: int


FULL = Sizes(
    files=50_000, files_size=269 * contexts.MIB, big_size=1024 * contexts.MIB, steps=30, stages=6, cold=3, warm=5
)
QUICK = Sizes(files=5_000, files_size=27 * contexts.MIB, big_size=64 * contexts.MIB, steps=10, stages=3, cold=1, warm=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where things are: contexts are kept, *small_tree* is the small base unpacked, archives are base root file systems.

    *file* is what ci/dist made.
    """

    contexts: Path
    small_tree: Path
    small_archive: Path
    debian_archive: Path | None
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One row. *command* gives what a tool runs, from a folder that `make` made; *start* is given for a mere start."""

    name: str
    title: str
    bases: Mapping[str, Path]
    make: Callable[[], Path]
    floor: Callable[[Path], Command] | None
    start: Callable[[Tool], Command] | None = None

    def command(self, tool: Tool, context: Path) -> Command:
        """Return what *tool* runs for this work."""
        return self.start(tool) if self.start else tool.build(context)


def all_works(sizes: Sizes, place: Place) -> list[Work]:
    """Return every work, the quick ones first; the one with packages only if there is a Debian base."""
    small = {SMALL_BASE: place.small_archive}
    folder = place.contexts
    works = [
        Work(
            name="start",
            title="start and end",
            bases={},
            make=lambda: folder,
            floor=_start_python,
            start=lambda tool: tool.start(),
        ),
        Work(
            name="start-file",
            title="start and end, one file",
            bases={},
            make=lambda: folder,
            floor=_start_python,
            start=lambda tool: tool.start(place.file),
        ),
        Work(
            name="parse",
            title="a Dockerfile of 1 MB",
            bases=small,
            make=lambda: contexts.write_long_dockerfile(folder, size=1_000_000, base=SMALL_BASE),
            floor=lambda context: Command(args=("wc", str(context / "Dockerfile"))),
        ),
        Work(
            name="step",
            title="one RUN true",
            bases=small,
            make=lambda: contexts.write_one_step(folder, base=SMALL_BASE),
            floor=lambda _: _sandboxed(place, "true"),
        ),
        Work(
            name="steps",
            title=f"{sizes.steps} RUN lines",
            bases=small,
            make=lambda: contexts.write_steps(folder, steps=sizes.steps, base=SMALL_BASE),
            floor=lambda _: _repeated(place, "true", times=sizes.steps, at_once=1),
        ),
        Work(
            name="stages",
            title=f"{sizes.stages} independent stages",
            bases=small,
            make=lambda: contexts.write_stages(folder, stages=sizes.stages, command=STAGE_COMMAND, base=SMALL_BASE),
            floor=lambda _: _repeated(place, STAGE_COMMAND, times=sizes.stages, at_once=os.cpu_count() or 1),
        ),
        Work(
            name="many-files",
            title=f"COPY {sizes.files} files, {sizes.files_size // contexts.MIB} MiB",
            bases=small,
            make=lambda: contexts.write_many_files(folder, files=sizes.files, size=sizes.files_size, base=SMALL_BASE),
            floor=lambda context: _shell(f"tar c -C {shlex.quote(str(context))} files | sha256sum"),
        ),
        Work(
            name="big-file",
            title=f"COPY a file of {sizes.big_size // contexts.MIB} MiB",
            bases=small,
            make=lambda: contexts.write_big_file(folder, size=sizes.big_size, base=SMALL_BASE),
            floor=lambda context: _shell(f"tar c -C {shlex.quote(str(context))} big | sha256sum"),
        ),
    ]
    if place.debian_archive is not None:
        works.append(
            Work(
                name="packages",
                title="apt-get install python3-minimal",
                bases={DEBIAN_BASE: place.debian_archive},
                make=lambda: contexts.write_packages(folder, package="python3-minimal", base=DEBIAN_BASE),
                floor=None,
            )
        )
    return works


def _start_python(_: Path) -> Command:
    return Command(args=("python3", "-I", "-c", "pass"))


def _sandbox_args(place: Place, script: str) -> tuple[str, ...]:
    tree = ("--bind", str(place.small_tree), "/", "--dev", "/dev", "--proc", "/proc")
    return ("bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", *tree, "/bin/sh", "-c", script)


def _sandboxed(place: Place, script: str) -> Command:
    return Command(args=_sandbox_args(place, script))


def _repeated(place: Place, script: str, *, times: int, at_once: int) -> Command:
    one = shlex.join(_sandbox_args(place, script))
    return _shell(f"seq {times} | xargs --max-procs {at_once} --replace=_ {one}")


def _shell(script: str) -> Command:
    return Command(args=("sh", "-c", script))
