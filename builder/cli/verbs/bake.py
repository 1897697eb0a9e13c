"""pybuild bake: the targets of a compose file or bake file, one after the other in the order of their links.

Targets that need no result of another one are prepared together, and what is left of them is done in one namespace:
a wave. A target that links to others is in a later wave than they are, since its plan is made of their results.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from builder.bake.definition import LINK
from builder.bake.targets import DEFAULT
from builder.cli.bake_request import (
    check_grants,
    choose_targets,
    load_definitions,
    parse_target,
    print_selection,
)
from builder.cli.collecting import Collecting
from builder.cli.inside import run_inside
from builder.cli.lines import escape_line
from builder.cli.render import open_renderer
from builder.cli.verbs.build import describe_result, open_build, prepare, warn_through
from builder.errors import UsageError
from builder.events import VertexStarted
from builder.store import Store
from registry.value import replace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from io import RawIOBase

    from builder.bake.definition import Definitions
    from builder.cli.bake_request import TargetBuild
    from builder.cli.environment import Environment
    from builder.cli.render import Renderer
    from builder.events import Event, EventSink
    from builder.pipeline import Build
    from builder.request import BuildRequest
    from runtime.zygote import Zygote

_DIGEST = "containerimage.digest"
_LISTS = ("targets", "variables")


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Build; progress goes to standard error, what `--print` and `--list` show to standard output."""
    if arguments.print and arguments.list:
        raise UsageError("--print and --list are two different things", hint="drop one of them")
    definitions = load_definitions(arguments, environment)
    for note in definitions.notes:
        sys.stderr.write(f"pybuild: bake: {escape_line(note)}\n")
    sys.stderr.flush()
    if arguments.list:
        return _list(arguments.list, definitions)
    selection = choose_targets(definitions, arguments, environment)
    if arguments.print:
        sys.stdout.write(f"{json.dumps(print_selection(selection), indent=2, ensure_ascii=False)}\n")
        return 0
    check_grants(selection, arguments, environment)
    builds: dict[str, TargetBuild] = {}
    for name, target in selection.targets.items():
        with _naming(name):
            builds[name] = parse_target(target, arguments, environment)
    _check_outputs(builds.values())
    if any(build.options.call != "build" for build in builds.values()):
        return _call([builds[name] for name in builds if name not in selection.linked], environment)
    return _build_all(builds, list(selection.waves()), arguments, environment)


class _Wave(NamedTuple):
    """Targets that are read, planned and looked up, what shows their progress, and what is collected after the last."""

    builds: Mapping[str, Build]
    renderer: Renderer
    collecting: Collecting
    needs_namespace: bool


def _build_all(
    builds: Mapping[str, TargetBuild],
    waves: Sequence[Sequence[str]],
    arguments: argparse.Namespace,
    environment: Environment,
) -> int:
    baking = _Baking(builds, waves, arguments, environment)
    with Store(environment.root(arguments.root)):  # open between waves too, so that nobody prunes what a link is to
        code = baking.run()
    if not code and arguments.metadata_file:
        with open(environment.path(arguments.metadata_file), "w", encoding="utf-8") as file:
            json.dump(baking.done, file, indent=2)
            file.write("\n")
    return code


class _Baking:
    """The builds of all targets, wave by wave; *done* has what is told of each result."""

    def __init__(
        self,
        builds: Mapping[str, TargetBuild],
        waves: Sequence[Sequence[str]],
        arguments: argparse.Namespace,
        environment: Environment,
    ) -> None:
        self.done: dict[str, dict[str, Any]] = {}
        self._builds = builds
        self._waves = list(waves)
        self._arguments = arguments
        self._environment = environment

    def run(self) -> int:
        """Build all waves, and return the exit code."""
        code = 0
        while self._waves and not code:
            renderer = self._open_renderer()
            with Store(self._environment.root(self._arguments.root), warn=warn_through(renderer)) as store:
                code = self._run_wave(store, renderer)
        return code

    def _run_wave(self, store: Store, renderer: Renderer) -> int:
        wave = self._prepare(store, renderer)
        if not wave.needs_namespace:
            return self._finish(store, wave, None)
        front = os.getpid()
        with _channel() as channel:

            def body(zygote: Zygote) -> int:
                code = self._finish(store, wave, zygote)
                if os.getpid() != front:
                    channel.write(json.dumps(self.done).encode())
                # Without namespaces this is the process the user started, which can have one zygote only: it gave up
                # the rights that another one would need.
                while os.getpid() == front and self._waves and not code:
                    code = self._finish(store, self._prepare(store, self._open_renderer()), zygote)
                return code

            code = run_inside(store, body, self._environment.isolation(self._arguments.isolation))
            channel.seek(0)
            if told := channel.read():
                self.done = json.loads(told)
        return code

    def _open_renderer(self) -> Renderer:
        return open_renderer(self._environment.progress(self._arguments.progress), self._environment, sys.stderr)

    def _prepare(self, store: Store, renderer: Renderer) -> _Wave:
        """Read, plan and look up the targets of the next wave."""
        opened: dict[str, Build] = {}
        needs_namespace = False
        try:
            collecting = Collecting(self._arguments, self._environment, renderer.sink)
            for name in self._waves.pop(0):
                target = self._builds[name]
                sink = _name_events(renderer.sink, name) if len(self._builds) > 1 else renderer.sink
                with _naming(name):
                    request = _link(target, self.done)
                    make = partial(open_build, request, target.options, self._environment, store, renderer, sink=sink)
                    opened[name], has_steps = prepare(make)
                needs_namespace |= has_steps
            renderer.pause()
        except BaseException as error:
            renderer.close(error)
            raise
        return _Wave(opened, renderer, collecting, needs_namespace)

    def _finish(self, store: Store, wave: _Wave, zygote: Zygote | None) -> int:
        """Carry out what is left of a wave; the last one, and one that fails, is followed by collecting."""
        collect = partial(wave.collecting.collect, store, is_inside=zygote is not None)
        wave.renderer.start()
        try:
            for name, build in wave.builds.items():
                with _naming(name):
                    self.done[name] = describe_result(build.finish(zygote))
        except BaseException as error:
            collect(error)
            wave.renderer.close(error)
            raise
        if not self._waves:
            collect()
        wave.renderer.close()
        for build in wave.builds.values():
            build.close()
        return 0


def _link(build: TargetBuild, done: Mapping[str, Mapping[str, Any]]) -> BuildRequest:
    """Return the request of a target with the results of those it links to as named contexts."""
    links = {
        name: f"oci-layout://{build.request.root / 'images'}@{done[value.removeprefix(LINK)][_DIGEST]}"
        for name, value in build.target.pairs("contexts").items()
        if value.startswith(LINK)
    }
    return replace(build.request, build_contexts={**build.request.build_contexts, **links})


@contextlib.contextmanager
def _channel() -> Iterator[RawIOBase]:
    """Give a file in memory by which results come back from the namespace."""
    with os.fdopen(os.memfd_create("pybuild-bake", os.MFD_CLOEXEC), "w+b", buffering=0) as file:
        yield file


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Have errors say which target they are about."""
    try:
        yield
    except Exception as error:
        _add_note(error, f"target {name}")
        raise


def _add_note(error: BaseException, note: str) -> None:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _add_note(inner, note)
    else:
        error.add_note(note)


def _name_events(sink: EventSink, target: str) -> EventSink:
    """Return a sink that puts the target before the names of vertices, and keeps those of two targets apart."""

    def named(event: Event) -> None:
        if event.vertex is None:
            sink(event)
        elif isinstance(event, VertexStarted):
            name = f"[{target} {event.name[1:]}" if event.name.startswith("[") else f"[{target}] {event.name}"
            inputs = tuple(_own(vertex, target) for vertex in event.inputs)
            sink(replace(event, vertex=_own(event.vertex, target), name=name, inputs=inputs))
        else:
            sink(replace(event, vertex=_own(event.vertex, target)))

    return named


def _own(vertex: str, target: str) -> str:
    from builder.cache.key import derive_key  # noqa: PLC0415  (imported by then)

    return f"sha256:{derive_key([('target', target), ('vertex', vertex)])}"


def _check_outputs(builds: Iterable[TargetBuild]) -> None:
    streams = [
        build.target.name
        for build in builds
        for output in build.request.outputs
        if output.destination is None and output.type.value in {"oci", "docker", "tar"}
    ]
    if len(streams) > 1:
        raise UsageError(
            f"two outputs go to standard output, of target {streams[0]} and {streams[1]}", hint="give them a dest="
        )


def _call(builds: Sequence[TargetBuild], environment: Environment) -> int:
    """Carry out `--call` for each target, under its name; the gravest exit code counts.

    A target that links to others has no base to be checked against before those are built.
    """
    from builder.cli.show_checks import call  # noqa: PLC0415  instead of a build

    codes = [0]
    for position, build in enumerate(builds):
        method = build.options.call.partition(",")[0]
        if method == "build":
            continue
        if method in {"check", "lint"} and build.target.links():
            links = ", ".join(build.target.links())
            sys.stderr.write(f"pybuild: bake: target {build.target.name} is not checked, it is made of {links}\n")
            continue
        sys.stdout.write(f"{chr(10) if position else ''}{build.target.name}\n\n")
        sys.stdout.flush()
        with _naming(build.target.name):
            codes.append(call(build.options.call, build.request, build.options, environment))
    return max(codes)


def _list(text: str, definitions: Definitions) -> int:
    """Print the targets and groups, or the variables, that the files define."""
    fields = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else {"type": text}
    form = fields.get("format", "table")
    if fields.get("type") not in _LISTS or form not in {"table", "json"} or not fields.keys() <= {"type", "format"}:
        raise UsageError(f"unknown list: `{text}`", hint="use targets or variables, or type=targets,format=json")
    titles: tuple[str, ...]
    keys: tuple[str, ...]
    if fields["type"] == "targets":
        titles, rows = ("TARGET", "DESCRIPTION"), _list_targets(definitions)
        keys = ("name", "description")
    else:
        titles, rows = ("VARIABLE", "VALUE", "DESCRIPTION"), _list_variables(definitions)
        keys = ("name", "value", "description")
    if form == "json":
        objects = [dict(zip(keys, row, strict=True)) for row in rows]
        sys.stdout.write(f"{json.dumps(objects, indent=2, ensure_ascii=False)}\n")
    else:
        from builder.cli.table import format_table  # noqa: PLC0415  (only to list)

        sys.stdout.write(format_table(titles, rows))
    return 0


def _list_targets(definitions: Definitions) -> list[tuple[str, ...]]:
    rows = {name: ", ".join(members) for name, members in definitions.groups.items()}
    rows.update({name: target.text("description") or "" for name, target in definitions.targets.items()})
    rows.update({name: text for name, text in definitions.descriptions.items() if text})
    return sorted(rows.items(), key=lambda row: (row[0] != DEFAULT, row[0]))


def _list_variables(definitions: Definitions) -> list[tuple[str, ...]]:
    return [(name, each.value or "", each.description) for name, each in sorted(definitions.variables.items())]
