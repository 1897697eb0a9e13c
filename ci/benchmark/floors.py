"""Floors: what no builder gets below. Each function returns the command to time; what that needs is made before.

Pipelines run in bash and end when all their parts have ended. What they write goes to files, as a builder's does.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmark import python_steps, two_core_gzip
from benchmark.measure import Command
from benchmark.sub_ids import as_namespace_root, make_empty

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmark.registry import Blob

_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts")
"""Those of a step beside user and mount, which bwrap always makes.

None for its network: a step has either the machine's or joins one that the build has had since its first step.
"""

_FILE_SYSTEMS = ("--dev", "/dev", "--proc", "/proc")

_DEBIAN_ENV = {
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


def start_python() -> Command:
    """Start the interpreter."""
    return Command(args=("python3", "-c", "pass"))


def import_modules(modules: Sequence[str]) -> Command:
    """Start the interpreter and import modules."""
    return Command(args=("python3", "-c", f"import {', '.join(modules)}"))


def read_file(path: Path) -> Command:
    """Read a file of text."""
    return Command(args=("wc", str(path)))


def run_in_sandbox(tree: Path, script: str) -> Command:
    """Run one command in a tree, in the namespaces that a step has."""
    return Command(args=_sandbox(tree, script))


def run_in_sandboxes(tree: Path, script: str, *, times: int, at_once: int) -> Command:
    """Run a command several times, each time in a sandbox of its own."""
    one = shlex.join(_sandbox(tree, script))
    return _shell(f"seq {times} | xargs --max-procs {at_once} --replace=_ {one}")


def run_steps_in_python(tree: Path, script: str, scratch: Path, *, times: int) -> Command:
    """Run a command several times by the project's runtime alone, each time on what the last one left."""
    program = ("python3", python_steps.__file__, str(tree), str(make_empty(scratch) / "steps"), script, str(times))
    become = (*(as_namespace_root() or ("unshare",)), "--mount", "--pid", "--fork", "--mount-proc")
    return Command(args=(*become, *program))


def pack_files(parent: Path, name: str, scratch: Path) -> Command:
    """Make a tar, its digest and its gzip by igzip at its quickest, each in a process of its own."""
    return _shell(_write_layer(f"tar c -C {shlex.quote(str(parent))} {shlex.quote(name)}", make_empty(scratch)))


def hash_file(path: Path) -> Command:
    """Hash a file."""
    return Command(args=("sha256sum", str(path)))


def compress_file(path: Path, scratch: Path) -> Command:
    """Compress a file on two cores with the project's library."""
    program = two_core_gzip.__file__
    return Command(args=(sys.executable, program, str(path), str(make_empty(scratch) / "gzip")))


def pull_and_unpack(address: str, name: str, layer: Blob, scratch: Path) -> Command:
    """Get a layer and unpack it, with the owners that its files have."""
    url = f"http://{address}/v2/{name}/blobs/{layer.digest}"
    script = f"{_curl(url)} | igzip -d | tar x -p --numeric-owner -C {shlex.quote(str(make_empty(scratch)))}"
    return _shell(script, become=as_namespace_root())


def push_blobs(address: str, name: str, blobs: tuple[Blob, ...], *, before: Command | None = None) -> Command:
    """Send blobs whole, each in one PUT to the place that the registry names, after another command."""
    start = _curl(f"http://{address}/v2/{name}/blobs/uploads/", "-X", "POST", "-D", "-", "-o", "/dev/null")
    lines = [] if before is None else [shlex.join(before.args)]
    for blob in blobs:
        lines.append(f"place=$({start} | tr -d '\\r' | sed -n 's/^[Ll]ocation: //p')")
        send = shlex.join(("curl", "-sSf", "-H", "Content-Type: application/octet-stream", "-T", str(blob.file)))
        lines.append(f'{send} "$place&digest={blob.digest}"')
    return _shell("\n".join(lines))


def run_in_debian(archive: Path, script: str, scratch: Path) -> Command:
    """Run a command in a tree of Debian that is unpacked anew, as its root, then make a layer of what it changed."""
    tree = make_empty(scratch) / "tree"
    tree.mkdir()
    unpack = ("tar", "xf", str(archive), "-p", "--numeric-owner", "-C", str(tree))
    subprocess.run([*as_namespace_root(), *unpack], check=True)
    stamp = scratch / "stamp"
    stamp.touch()
    resolver = ("--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf")
    env = [part for name, value in _DEBIAN_ENV.items() for part in ("--setenv", name, value)]
    step = ("bwrap", *_NAMESPACES, "--bind", str(tree), "/", *_FILE_SYSTEMS, *resolver, *env, "/bin/sh", "-c", script)
    changed = f"find . -xdev -cnewer {shlex.quote(str(stamp))} -print0"
    layer = _write_layer(f"{changed} | tar c --no-recursion --null -T -", scratch)
    return _shell(f"{shlex.join(step)}\ncd {shlex.quote(str(tree))}\n{layer}", become=as_namespace_root())


def _sandbox(tree: Path, script: str) -> tuple[str, ...]:
    return (
        "bwrap",
        "--unshare-user",
        *_NAMESPACES,
        "--bind",
        str(tree),
        "/",
        *_FILE_SYSTEMS,
        "/bin/sh",
        "-c",
        script,
    )


def _write_layer(tar: str, scratch: Path) -> str:
    """Return the lines that put what *tar* writes through sha256sum and igzip at once."""
    out = {name: shlex.quote(str(scratch / name)) for name in ("digest", "layer.tar.gz")}
    return (
        f"exec 3> >(sha256sum > {out['digest']})\n"
        "hash=$!\n"
        f"{tar} | tee /dev/fd/3 | igzip -1 > {out['layer.tar.gz']}\n"
        "exec 3>&-\n"
        "wait $hash"
    )


def _curl(url: str, *options: str) -> str:
    return shlex.join(("curl", "-sSf", *options, url))


def _shell(script: str, *, become: tuple[str, ...] = ()) -> Command:
    return Command(args=(*become, "bash", "-e", "-o", "pipefail", "-c", script), env=dict(os.environ))
