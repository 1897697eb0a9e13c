"""Debian's docker-registry on loopback, and an image to put there.

The registry runs from the first use of its address until it is closed, on a free port, with its data in one folder.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from benchmark.sub_ids import make_empty, remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

START_SECONDS = 20.0

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file with the name that registries have for its bytes."""

    file: Path
    media_type: str
    digest: str

    def descriptor(self) -> dict[str, str | int]:
        """Return what a manifest says about it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.file.stat().st_size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of one layer."""

    config: Blob
    layer: Blob

    @property
    def blobs(self) -> tuple[Blob, Blob]:
        """All that is sent before the manifest."""
        return (self.config, self.layer)

    def manifest(self) -> bytes:
        """Return the manifest."""
        value = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config.descriptor(),
            "layers": [self.layer.descriptor()],
        }
        return json.dumps(value).encode()


def make_image(archive: Path, folder: Path) -> Image:
    """Return an image whose layer is a tar, compressed as most images in registries are: by zlib's level 6.

    Its blobs are kept in *folder* until the archive is made anew.
    """
    layer, config = folder / "layer.tar.gz", folder / "config.json"
    if not config.exists() or config.stat().st_mtime < archive.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        with layer.open("wb") as file:
            subprocess.run(["gzip", "-6", "--no-name", "--stdout", str(archive)], stdout=file, check=True)
        config.write_text(json.dumps(_config(_digest(archive))))
    return Image(
        config=Blob(file=config, media_type=CONFIG, digest=_digest(config)),
        layer=Blob(file=layer, media_type=LAYER, digest=_digest(layer)),
    )


class LoopbackRegistry:
    """One registry that keeps its data in *folder*, which is emptied at the start and removed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT; the registry runs from now on."""
        if self._process is None:
            self._start()
        return self._address

    def put(self, image: Image, name: str, tag: str) -> str:
        """Store an image, and return the name by which others pull it."""
        repository = f"http://{self.address}/v2/{name}"
        for blob in image.blobs:
            started = _request(f"{repository}/blobs/uploads/", method="POST")
            place = urljoin(repository, started["Location"])
            with blob.file.open("rb") as file:
                size = str(blob.file.stat().st_size)
                headers = {"Content-Type": "application/octet-stream", "Content-Length": size}
                _request(f"{place}&digest={blob.digest}", method="PUT", data=file, headers=headers)
        _request(
            f"{repository}/manifests/{tag}", method="PUT", data=image.manifest(), headers={"Content-Type": MANIFEST}
        )
        return f"{self.address}/{name}:{tag}"

    def empty(self) -> None:
        """Forget all images."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            remove_tree(self._folder)

    def _start(self) -> None:
        make_empty(self._folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        configuration = self._folder / "config.yml"
        configuration.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self._folder / 'data'}}}}}\n"
            f"http: {{addr: '{self._address}', secret: fixed}}\n"
        )
        log = self._folder / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(configuration)], stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"docker-registry did not start\n{log.read_text()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            _request(f"http://{self._address}/v2/", method="GET")
        except OSError:
            return False
        return True


def _request(
    url: str, *, method: str, data: BinaryIO | bytes | None = None, headers: Mapping[str, str] | None = None
) -> dict[str, str]:
    request = urllib.request.Request(url, method=method, data=data, headers=dict(headers or {}))
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(response.headers)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _config(diff_id: str) -> dict[str, object]:
    machine = platform.machine()
    return {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
