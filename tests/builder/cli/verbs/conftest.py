"""A store with two images, and a way to run verbs on it."""

from __future__ import annotations

import io
import sys
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from builder.cli.environment import Environment
from builder.cli.main import main
from builder.store import Store
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.image_config import History, ImageConfig
from registry.oci.media_types import OCI_LAYER
from registry.oci.platform import host_platform
from registry.oci.reference import parse_reference
from tests.fakes.image import compose_image

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Shell:
    """Runs verbs on one store; standard output and error are what the verb wrote."""

    root: Path
    capsys: pytest.CaptureFixture

    def __call__(self, *words, **variables):
        """Run a verb and return exit code, standard output and standard error."""
        variables = {"REGISTRY_AUTH_FILE": str(self.root / "auth.json"), **variables}
        environment = Environment(variables=variables, cwd=self.root, home=self.root)
        code = main([words[0], *self._root(words[0]), *words[1:]], environment)
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def ok(self, *words, **variables):
        """Run a verb that succeeds and return standard output."""
        code, out, err = self(*words, **variables)
        assert code == 0, err
        return out

    def _root(self, verb):
        return () if verb in {"login", "logout"} else ("--root", str(self.root / "store"))


def add_image(store, *names, layers=(b"one",), created="2020-01-01T00:00:00Z", platform=None):
    """Put an image of single-file layers into a store."""
    tars = [_tar(content) for content in layers]
    blobs = [store.blobs.put(tar) for tar in tars]
    history = [History(created=created, created_by="ARG x\tbuild-arg with a long line " + "x" * 40, empty_layer=True)]
    history += [History(created=created, created_by=f"COPY {n}", comment="c") for n in range(len(tars))]
    config = ImageConfig(
        platform=platform or host_platform(),
        created=created,
        env=("A=1",),
        cmd=("sh",),
        labels={"l": "v"},
        diff_ids=tuple(digest_of(tar) for tar in tars),
        history=tuple(history),
    )
    described = [Descriptor(media_type=OCI_LAYER, digest=blob.digest, size=blob.size) for blob in blobs]
    image = compose_image(config, described, store.blobs)
    for name in names or (None,):
        store.layout.put(image.descriptor, None if name is None else parse_reference(name))
    return image


def _tar(content):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def shell(tmp_path, capsys):
    """A shell with an empty store."""
    return Shell(tmp_path, capsys)


@pytest.fixture
def app(shell):
    """The image `app:1`, also called `team/app:latest`."""
    with Store(shell.root / "store") as store:
        return add_image(store, "app:1", "team/app", layers=(b"one", b"two"))


@pytest.fixture
def stdin(monkeypatch):
    """Give standard input some bytes."""

    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give
