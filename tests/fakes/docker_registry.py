"""Debian's docker-registry on a free loopback port, for as long as a test needs it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_TIMEOUT = 20.0


def require(program: str) -> str:
    """Return the path of a program, or skip the test with its name."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is missing")
    return path


@contextmanager
def run_docker_registry(directory: Path, *, users: dict[str, str] | None = None) -> Iterator[str]:
    """Start a registry that keeps its data below *directory* and yield its `host:port`.

    Args:
        directory: exists; gets data, configuration and log.
        users: names and passwords; None asks for none.
    """
    program = require("docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    lines = [
        "version: 0.1",
        "log: {level: info}",
        f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}, delete: {{enabled: true}}}}",
        f"http: {{addr: '{address}', secret: fixed}}",
    ]
    if users is not None:
        htpasswd = require("htpasswd")
        entries = [
            subprocess.run([htpasswd, "-Bbn", *user], check=True, capture_output=True, text=True).stdout
            for user in users.items()
        ]
        (directory / "htpasswd").write_text("".join(entries))
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}")
    (directory / "config.yml").write_text("\n".join(lines) + "\n")
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen([program, "serve", str(directory / "config.yml")], stdout=log, stderr=log) as process,
    ):
        try:
            _wait_until_ready(address, process, directory / "log")
            yield address
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/", timeout=2):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"docker-registry did not start: {log.read_text()}")
