"""pybuild build: an image from a Dockerfile."""

from __future__ import annotations

import json
import sys
import time
from functools import partial

from builder.cli.build_request import parse_build
from builder.cli.collecting import Collecting
from builder.cli.registries import NO_ADDITIONS, Registries
from builder.cli.render import Renderer, open_renderer
from builder.collect.sweep import sweep
from builder.errors import StateDamagedError
from builder.events import Warned
from builder.pipeline import Build, BuildResult
from builder.store import Store
from registry.content.image import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from builder.cli.debug_shell import DebugShell
    from builder.cli.environment import Environment
    from builder.cli.registries import RegistryAdditions
    from builder.events import EventSink
    from builder.request import BuildRequest
    from builder.solve.failed_step import FailedStep
    from registry.client import RegistryClient
    from registry.transfer import ProgressSink
    from runtime.zygote import Zygote


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Build; progress goes to standard error, with `-q` the image id to standard output."""
    request = parse_build(arguments, environment)
    if arguments.check or arguments.call != "build":
        from builder.cli.show_checks import call  # noqa: PLC0415  instead of a build

        return call("check" if arguments.check else arguments.call, request, arguments, environment)
    return build_image(request, arguments, environment, write=partial(_write_results, arguments, request))


def build_image(
    request: BuildRequest,
    arguments: argparse.Namespace,
    environment: Environment,
    *,
    write: Callable[[BuildResult], None],
    additions: RegistryAdditions = NO_ADDITIONS,
) -> int:
    """Build with progress on standard error, and return the exit code.

    Args:
        request: what is asked for.
        arguments: of the parser of `build`, for what the request does not hold.
        environment: the surroundings.
        write: told of the result when all outputs are there.
        additions: how registries are reached, besides the configuration.
    """
    mode = "quiet" if arguments.quiet else environment.progress(arguments.progress)
    shell = _parse_shell(arguments, environment, mode)
    renderer = open_renderer(mode, environment, sys.stderr)
    if request.explain_cache and mode != "rawjson":
        from builder.cli.show_cache import CacheReport  # noqa: PLC0415  only with --explain-cache

        renderer = CacheReport(renderer, sys.stderr, is_alone=mode == "quiet")
    collecting = Collecting(arguments, environment, renderer.sink)
    with Store(request.root, warn=warn_through(renderer)) as store:
        make = partial(open_build, request, arguments, environment, store, renderer, additions=additions)
        try:
            build, needs_namespace = prepare(make)
            renderer.pause()
        except BaseException as error:
            collecting.collect(store, error, is_inside=False)
            renderer.close(error)
            raise
        collect = partial(collecting.collect, store, is_inside=needs_namespace)
        if not needs_namespace:
            sweep(store, is_inside=False)
            return _finish(build, None, renderer, write, collect)
        from builder.cli.inside import run_inside  # noqa: PLC0415  a build that is cached runs nothing

        isolation = environment.isolation(arguments.isolation)
        if shell is None:
            return run_inside(store, lambda zygote: _finish(build, zygote, renderer, write, collect), isolation)
        from runtime import terminal  # noqa: PLC0415  only with --on

        with terminal.kept(0) as is_ours:
            show = partial(shell.open, renderer=renderer, foreground=is_ours)
            return run_inside(store, lambda zygote: _finish(build, zygote, renderer, write, collect, show), isolation)


def _parse_shell(arguments: argparse.Namespace, environment: Environment, mode: str) -> DebugShell | None:
    if arguments.on is None and arguments.invoke is None:
        return None
    from builder.cli.debug_shell import parse_debug_shell  # noqa: PLC0415  as above

    return parse_debug_shell(arguments, environment, mode)


def prepare(make: Callable[[], Build]) -> tuple[Build, bool]:
    """Make and prepare a build, and tell whether it needs the namespace.

    If the state database turns out to be damaged, it is begun anew by then, and so is the build, once.
    """
    build: Build | None = None
    try:
        build = make()
        return build, build.prepare()
    except StateDamagedError:
        if build is not None:
            build.close()
    build = make()
    return build, build.prepare()


def open_build(
    request: BuildRequest,
    arguments: argparse.Namespace,
    environment: Environment,
    store: Store,
    renderer: Renderer,
    *,
    sink: EventSink | None = None,
    additions: RegistryAdditions = NO_ADDITIONS,
) -> Build:
    """Make the build of a request: read, plan, fetch what the plan needs.

    Args:
        request: what is asked for.
        arguments: of the parser of `build`, for what the request does not hold.
        environment: the surroundings.
        store: where everything is kept.
        renderer: shows progress.
        sink: takes events in place of the renderer's.
        additions: how registries are reached, besides the configuration.
    """
    return Build(
        request,
        store,
        sink or renderer.sink,
        connect=partial(_connect, renderer, Registries(environment, _insecure_hosts(arguments, request), additions)),
        now=_now,
    )


def _insecure_hosts(arguments: argparse.Namespace, request: BuildRequest) -> list[str]:
    """List the hosts of `--insecure-registry`, and of caches with `registry.insecure=true`."""
    from builder.request import CacheRepository  # noqa: PLC0415  (imported by then)

    places = [source.location for source in request.cache_from] + [target.location for target in request.cache_to]
    named = [place.reference.registry for place in places if isinstance(place, CacheRepository) and place.insecure]
    return [*arguments.insecure_registry, *named]


def _connect(renderer: Renderer, registries: Registries, progress: ProgressSink) -> RegistryClient:
    """Make a registry client, and have transfers shown from here on."""
    renderer.start()
    return registries.connect(progress)


def _finish(
    build: Build,
    zygote: Zygote | None,
    renderer: Renderer,
    write: Callable[[BuildResult], None],
    collect: Callable[[BaseException | None], None],
    on_failure: Callable[[FailedStep], None] | None = None,
) -> int:
    renderer.start()
    try:
        result = build.finish(zygote, on_failure=on_failure)
    except BaseException as error:
        collect(error)
        renderer.close(error)
        raise
    collect(None)
    renderer.close()
    build.close()
    write(result)
    return 0


def _write_results(arguments: argparse.Namespace, request: BuildRequest, result: BuildResult) -> None:
    image = result.image
    identifier = image.manifest.config.digest if isinstance(image, Image) else image.descriptor.digest
    if arguments.iidfile:
        _write_file(arguments.iidfile, identifier)
    if arguments.metadata_file:
        _write_file(arguments.metadata_file, f"{json.dumps(describe_result(result), indent=2)}\n")
    if arguments.quiet and not any(
        output.destination is None and output.tar
        for output in request.outputs
        if output.type.value in {"tar", "oci", "docker"}
    ):
        sys.stdout.write(f"{identifier}\n")


def _write_file(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        error.filename = path  # which only a failing open knows
        raise


def describe_result(result: BuildResult) -> dict[str, object]:
    """Describe the result as buildx does in `--metadata-file`; spec, section 3.10."""
    descriptor = result.image.descriptor
    document: dict[str, object] = {
        "containerimage.descriptor": descriptor.to_json(),
        "containerimage.digest": descriptor.digest,
    }
    if isinstance(result.image, Image):
        document["containerimage.config.digest"] = result.image.manifest.config.digest
    if result.names:
        document["image.name"] = ",".join(str(name) for name in result.names)
    return {**document, **result.record}


def warn_through(renderer: Renderer) -> Callable[[str], None]:
    """Return what shows a warning of the store among the progress."""
    return lambda message: renderer.sink(Warned(vertex=None, message=message, time=time.time()))


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
