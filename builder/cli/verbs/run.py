"""pybuild run: a command in an image, on a file system that is thrown away."""

from __future__ import annotations

import secrets
import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from builder.cli.inside import run_inside
from builder.cli.main import report_error
from builder.cli.option_values import parse_hosts, parse_network, parse_platform_option, parse_shm_size, parse_ulimits
from builder.cli.registries import connect
from builder.errors import UsageError
from builder.plan.image_state import DEFAULT_PATH, parse_environ
from builder.solve.filesystem import FileSystems
from builder.solve.networks import describe_lack, network_for, networks_of
from builder.solve.ops.resolver import resolv_conf
from builder.solve.ops.run import hosts_file
from builder.store import Store
from builder.transfer import pull_image
from registry.content.image import Image, load_image
from registry.oci.platform import Platform, host_platform
from registry.oci.reference import parse_reference
from runtime.errors import StepSetupError
from runtime.mounts import BindMount
from runtime.spec import SandboxSpec, Ulimit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from builder.cli.environment import Environment
    from registry.oci.image_config import ImageConfig
    from runtime.networks import PrivateNetwork
    from runtime.snapshots.snapshotter import Active
    from runtime.zygote import Zygote


def run(arguments: argparse.Namespace, environment: Environment) -> int:
    """Run a command; its streams are ours, its status becomes the exit code."""
    if arguments.tty and arguments.interactive and not environment.stdin_tty:
        raise UsageError("the input device is not a TTY", hint="drop --tty where standard input is no terminal")
    platform = parse_platform_option(arguments.platform, environment) or host_platform()
    with Store(environment.root(arguments.root)) as store:
        image = _find_image(arguments, environment, store, platform)
        with _terminal(arguments, environment) as is_ours:
            specify = partial(_specify, arguments, environment, image.config, foreground=is_ours)
            body = partial(_run, store, image, arguments.image, specify, interactive=arguments.interactive)
            if parse_network(arguments.network) != "default":
                inside = partial(body, None)
            else:
                inside = partial(_with_private_network, body)
            return run_inside(store, inside, environment.isolation(arguments.isolation))


def _terminal(arguments: argparse.Namespace, environment: Environment) -> AbstractContextManager[bool]:
    """Keep the terminal for a command that is given it; tells whether its foreground is ours to give."""
    if not (arguments.interactive and environment.stdin_tty):
        return nullcontext(enter_result=False)
    from runtime import terminal  # noqa: PLC0415  only where there is one

    return terminal.kept(0)


def _with_private_network(body: Callable[[PrivateNetwork | None, Zygote], int], zygote: Zygote) -> int:
    """Run *body* with a network of its own, or with None and a word about it if this machine has none to give."""
    pool = networks_of(zygote)
    try:
        lack = pool.find_lack()
        if lack is not None:
            sys.stderr.write(f"pybuild: warning: {describe_lack(lack, 'the command runs')}\n")
            sys.stderr.flush()
            return body(None, zygote)
        with pool.lent() as network:
            return body(network, zygote)
    finally:
        pool.close()


def _run(
    store: Store,
    image: Image,
    name: str,
    specify: partial[SandboxSpec],
    network: PrivateNetwork | None,
    zygote: Zygote,
    *,
    interactive: bool,
) -> int:
    file_systems = FileSystems(store)
    with store.telling_when_full():
        lowers = store.snapshots.lowers(file_systems.snapshots(file_systems.add_image(image, name)))
        active = store.snapshots.prepare(lowers)
    try:
        step = zygote.run(
            specify(lowers, active, network),
            stdin=0 if interactive else None,
            stdout=1,
            stderr=2,
            network_namespace=None if network is None else network.fd,
        )
        try:
            status = step.wait().status
        except StepSetupError as error:
            report_error(error)
            return error.status
        except BaseException:
            step.end()
            raise
    finally:
        store.snapshots.discard(active)
    return status if status >= 0 else 128 - status


def _find_image(arguments: argparse.Namespace, environment: Environment, store: Store, platform: Platform) -> Image:
    reference = parse_reference(arguments.image)
    descriptor = None if arguments.pull == "always" else store.layout.find(reference)
    if descriptor is not None:
        store.blobs.has(descriptor.digest)  # so that nobody removes an image without a name from under a container
        return load_image(store.blobs, descriptor, platform)
    if arguments.pull == "never":
        raise UsageError(f"no such image: `{arguments.image}`", hint="`pybuild images` lists what is there")
    return pull_image(store, reference, platform, connect(environment, arguments.insecure_registry))


def _specify(
    arguments: argparse.Namespace,
    environment: Environment,
    config: ImageConfig,
    lowers: tuple[Path, ...],
    active: Active,
    network: PrivateNetwork | None,
    *,
    foreground: bool,
) -> SandboxSpec:
    hostname = arguments.hostname or secrets.token_hex(6)
    return SandboxSpec(
        args=_command(arguments, config),
        environ=tuple(_environ(arguments, environment, config, hostname).items()),
        cwd=arguments.workdir or config.working_directory or "/",
        user=arguments.user or config.user,
        lowers=lowers,
        upper=active.upper,
        work=active.work,
        tree=active.tree,
        hostname=hostname,
        hosts=hosts_file(hostname, parse_hosts(arguments.add_host)),
        resolv_conf=resolv_conf(network),
        network=network_for(parse_network(arguments.network), network),
        binds=tuple(_bind(text, environment) for text in arguments.volume),
        shm_size=parse_shm_size(arguments.shm_size),
        ulimits=tuple(Ulimit(name=n, soft=soft, hard=hard) for n, soft, hard in parse_ulimits(arguments.ulimit)),
        interactive=True,
        foreground=foreground,
    )


def _command(arguments: argparse.Namespace, config: ImageConfig) -> tuple[str, ...]:
    """Join entrypoint and command as docker does: a new entrypoint drops the image's command."""
    given = tuple(arguments.command)
    if arguments.entrypoint is not None:
        entrypoint = (arguments.entrypoint,) if arguments.entrypoint else ()
        words = (*entrypoint, *given)
    else:
        words = (*(config.entrypoint or ()), *(given or config.cmd or ()))
    if not words:
        raise UsageError(f"no command is given and the image has none: `{arguments.image}`", hint="name a command")
    return words


def _environ(
    arguments: argparse.Namespace, environment: Environment, config: ImageConfig, hostname: str
) -> dict[str, str]:
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if arguments.tty:
        values["TERM"] = environment.variables.get("TERM", "xterm")
    values.update(parse_environ(config.env))
    for text in arguments.env:
        name, equals, value = text.partition("=")
        if equals:
            values[name] = value
        elif name in environment.variables:
            values[name] = environment.variables[name]
    return values


def _bind(text: str, environment: Environment) -> BindMount:
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not source or not target.startswith("/") or options not in {"", "ro", "rw"}:
        raise UsageError(
            f"invalid volume: `{text}`", hint="write /folder/here:/folder/inside, with :ro at the end or not"
        )
    path = environment.path(source)
    if not path.exists():
        raise UsageError(f"source of a volume does not exist: `{source}`", hint="make the folder first")
    return BindMount(source=path, target=target, read_only=options == "ro")
