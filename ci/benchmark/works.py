"""The works that are measured, with what each is to reach."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from benchmark import contexts, floors, reaches
from benchmark.measure import run
from benchmark.registry import Image, make_image
from benchmark.units import MIB
from benchmark.work import Place, Sizes, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmark.measure import Command
    from benchmark.tools import Tool

SMALL_BASE = "localhost/small:1"
DEBIAN_BASE = "localhost/debian:1"
PULLED = "debian"

STAGE_COMMAND = "dd if=/dev/zero bs=1M count=300 2>/dev/null | sha256sum > /dev/null"
"""About a second of one core."""

INSTALL_COMMAND = "apt-get update && apt-get install --yes --no-install-recommends python3"

LIBRARY = ("argparse", "contextlib", "fcntl", "json", "pathlib", "signal", "sqlite3", "threading")
"""What a command cannot do without that has options, reads documents, and asks a database: modules of Python's own."""

CACHED_BUILD = ("builder.cli.main", "builder.cli.build_options", "builder.cli.render_plain", "builder.cli.verbs.build")
"""What a build in which everything is cached consists of, with what these import."""

ROWS: Mapping[str, str] = {
    "start": "the command, that only starts and ends",
    "start-file": "the same of the one-file form",
    "parse": "a Dockerfile of 1 MB",
    "step": "one RUN that does nothing",
    "steps": "30 RUN lines",
    "each-step": "what each of those lines adds",
    "cached": "30 RUN lines that are all cached",
    "stages": "six independent stages that compute",
    "sleep": "six independent stages that sleep for two seconds",
    "many-files": "COPY of 50,000 files, new and unchanged",
    "changed": "COPY of 50,000 files of which one has changed",
    "big-file": "COPY of a file of 1 GiB",
    "pull": "pull of a Debian image and a step that needs its files",
    "push": "push of the same image",
    "apt": "RUN apt-get update && apt-get install python3",
    "size": "gzip size of a Debian layer",
    "memory": "peak memory of COPY of 10,000 and 100,000 files",
    "memory-million": "peak memory of COPY of 1,000,000 files",
}
"""The name of every row and what it measures."""

ASKED_FOR = frozenset({"memory-million"})
"""Rows that are measured only if they are named: they take many minutes and gigabytes."""


def all_works(sizes: Sizes, place: Place) -> list[Work]:
    """Return the rows of times; those that take no base image of Debian first."""
    works = [*_starts(place), *_steps(sizes, place), *_copies(sizes, place)]
    if place.large_debian_archive is not None:
        works += _transfers(place, place.large_debian_archive)
    if place.debian_archive is not None:
        works.append(_install(place, place.debian_archive))
    return works


def memory_works(sizes: Sizes, place: Place) -> list[Work]:
    """Return the works of which only memory is measured."""

    def make(name: str, files: int) -> Work:
        return Work(
            name=name,
            title=f"COPY of {files:,} files",
            make=lambda: contexts.write_many_files(
                place.contexts, files=files, size=files * 512, base=SMALL_BASE, name="tiny-files"
            ),
            cold=_build_with({SMALL_BASE: place.small_archive}),
            warm=_build,
        )

    few = [make("memory", files) for files in sizes.memory_files]
    return [*few, make("memory-million", sizes.many_memory_files)]


def _starts(place: Place) -> list[Work]:
    def start(name: str, title: str, file: Path | None) -> Work:
        return Work(
            name=name,
            title=title,
            make=lambda: place.contexts,
            cold=lambda tool, _: tool.start(file),
            warm=lambda tool, _: tool.start(file),
            floors=(lambda _: floors.start_python(),),
            phases=("cold",),
        )

    return [start("start", "start and end", None), start("start-file", "start and end, one file", place.file)]


def _steps(sizes: Sizes, place: Place) -> list[Work]:
    """Return what is done on the small base with hardly any files."""
    folder, tree = place.contexts, place.small_tree
    cold = _build_with({SMALL_BASE: place.small_archive})
    one = Work(
        name="step",
        title="one RUN true",
        make=lambda: contexts.write_one_step(folder, base=SMALL_BASE),
        cold=cold,
        warm=_build,
        floors=(lambda _: floors.run_in_sandbox(tree, "true"),),
    )
    in_turn = partial(floors.run_in_sandboxes, tree, "true", at_once=1)
    in_python = partial(floors.run_steps_in_python, tree, "true", place.scratch)
    many = Work(
        name="steps",
        title=f"{sizes.steps} RUN lines",
        make=lambda: contexts.write_steps(folder, steps=sizes.steps, base=SMALL_BASE),
        cold=cold,
        warm=_build,
        floors=(lambda _: in_turn(times=sizes.steps),),
        least=lambda _: in_python(times=sizes.steps),
        reaches=(reaches.cold(0.35),),
    )
    each = Work(
        name="each-step",
        title="each further RUN line",
        make=many.make,
        cold=cold,
        warm=_build,
        floors=many.floors,
        least=many.least,
        phases=("cold",),
        reaches=(reaches.cold_to_floor(1.5),),
        less=replace(one, floors=(lambda _: in_turn(times=1),), least=lambda _: in_python(times=1)),
        parts=sizes.steps - 1,
    )
    cached = Work(
        name="cached",
        title=f"{sizes.steps} cached RUN lines",
        make=many.make,
        cold=cold,
        warm=_build,
        floors=(lambda _: floors.start_python(),),
        least=lambda _: floors.import_modules((*LIBRARY, *CACHED_BUILD)),
        phases=("warm",),
        reaches=(reaches.warm_beyond_floor(0.06),),
    )
    parse = Work(
        name="parse",
        title="a Dockerfile of 1 MB",
        make=lambda: contexts.write_long_dockerfile(folder, size=1_000_000, base=SMALL_BASE),
        cold=cold,
        warm=_build,
        floors=(lambda context: floors.read_file(context / "Dockerfile"),),
    )
    cores = os.cpu_count() or 1
    stages = _stages(sizes, place, "stages", "independent stages", STAGE_COMMAND, at_once=cores)
    sleep = _stages(sizes, place, "sleep", "stages of `sleep 2`", "sleep 2", at_once=sizes.stages)
    return [parse, one, many, each, cached, stages, replace(sleep, phases=("cold",), reaches=(reaches.cold(2.6),))]


def _stages(sizes: Sizes, place: Place, name: str, title: str, command: str, *, at_once: int) -> Work:
    return Work(
        name=name,
        title=f"{sizes.stages} {title}",
        make=lambda: contexts.write_stages(
            place.contexts, stages=sizes.stages, command=command, base=SMALL_BASE, name=name
        ),
        cold=_build_with({SMALL_BASE: place.small_archive}),
        warm=_build,
        floors=(lambda _: floors.run_in_sandboxes(place.small_tree, command, times=sizes.stages, at_once=at_once),),
    )


def _copies(sizes: Sizes, place: Place) -> list[Work]:
    folder, scratch = place.contexts, place.scratch
    cold = _build_with({SMALL_BASE: place.small_archive})

    def make(name: str) -> Path:
        return contexts.write_many_files(folder, files=sizes.files, size=sizes.files_size, base=SMALL_BASE, name=name)

    def change_and_build(tool: Tool, context: Path) -> Command:
        contexts.change_one_file(context)
        return tool.build(context)

    files = f"COPY of {sizes.files:,} files, {sizes.files_size // MIB} MiB"
    return [
        Work(
            name="many-files",
            title=files,
            make=lambda: make("many-files"),
            cold=cold,
            warm=_build,
            floors=(lambda context: floors.pack_files(context, "files", scratch),),
            reaches=(reaches.cold_to_floor(1.6), reaches.buildah_to_cold(8), reaches.warm(0.35)),
        ),
        Work(
            name="changed",
            title="the same, warm: one changed",
            make=lambda: make("changing-files"),
            cold=cold,
            warm=change_and_build,
            floors=(lambda context: floors.pack_files(context, "files", scratch),),
            reaches=(reaches.warm_to_cold(0.8),),
        ),
        Work(
            name="big-file",
            title=f"COPY of a file of {sizes.big_size // MIB:,} MiB",
            make=lambda: contexts.write_big_file(folder, size=sizes.big_size, base=SMALL_BASE),
            cold=cold,
            warm=_build,
            floors=(
                lambda context: floors.hash_file(context / "big"),
                lambda context: floors.compress_file(context / "big", scratch),
            ),
            reaches=(reaches.cold_to_floor(1.3),),
        ),
    ]


def _transfers(place: Place, archive: Path) -> list[Work]:
    """Return what is done with an image between a registry on loopback and the store."""
    size = f"{archive.stat().st_size // 1_000_000} MB"
    numbers = itertools.count()

    @cache
    def get_image() -> Image:
        return make_image(archive, place.scratch.with_name("image"))

    @cache
    def get_source() -> str:
        return place.source.put(get_image(), PULLED, "1")

    def unpack(tool: Tool, context: Path) -> Command:
        tool.prepare({})
        return tool.unpack(get_source(), context)

    def push(tool: Tool, _: Path) -> Command:
        tool.prepare({})
        source = get_source()
        run(tool.pull(source))
        return tool.push(source, f"{place.target.address}/{get_new_name()}:1")

    def push_floor(_: Path, *, before: Command | None = None) -> Command:
        return floors.push_blobs(place.target.address, get_new_name(), get_image().blobs, before=before)

    def get_new_name() -> str:
        place.target.empty()
        return f"{PULLED}-{next(numbers)}"

    return [
        Work(
            name="pull",
            title=f"pull and unpack Debian, {size}",
            make=lambda: contexts.write_one_step(place.contexts, base=get_source(), name="pulled"),
            cold=unpack,
            warm=unpack,
            floors=(lambda _: floors.pull_and_unpack(place.source.address, PULLED, get_image().layer, place.scratch),),
            phases=("cold",),
            reaches=(reaches.cold_to_floor(1.3), reaches.buildah_to_cold(1.5)),
        ),
        Work(
            name="push",
            title="push the same",
            make=lambda: place.contexts,
            cold=push,
            warm=push,
            floors=(push_floor,),
            least=lambda path: push_floor(path, before=floors.import_modules(("requests", *LIBRARY))),
            phases=("cold",),
            reaches=(reaches.cold_to_floor(1.2),),
        ),
    ]


def _install(place: Place, archive: Path) -> Work:
    return Work(
        name="apt",
        title="apt-get install python3",
        make=lambda: contexts.write_debian_step(place.contexts, command=INSTALL_COMMAND, base=DEBIAN_BASE),
        cold=_build_with({DEBIAN_BASE: archive}),
        warm=_build,
        floors=(lambda _: floors.run_in_debian(archive, INSTALL_COMMAND, place.scratch),),
        reaches=(reaches.cold_to_floor(1.08),),
    )


def _build_with(bases: Mapping[str, Path]) -> Callable[[Tool, Path], Command]:
    def cold(tool: Tool, context: Path) -> Command:
        tool.prepare(bases)
        return tool.build(context)

    return cold


def _build(tool: Tool, context: Path) -> Command:
    return tool.build(context)
