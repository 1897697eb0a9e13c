"""The clients of one build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.environment import Environment
from builder.cli.registries import Registries
from registry.oci.reference import parse_reference
from tests.fakes.random_image import make_image, make_store
from tests.fakes.registry_server import FakeRegistry

if TYPE_CHECKING:
    from pathlib import Path

    from registry.transfer import TransferProgress


def test_clients_of_a_build_sign_in_once_and_tell_each_its_own(tmp_path: Path) -> None:
    """Of a base, documents are fetched by one client and layers by the next, which needs no second token."""
    source, target = make_store(tmp_path / "source"), make_store(tmp_path / "target")
    image = make_image(source)
    documents: list[TransferProgress] = []
    layers: list[TransferProgress] = []
    registries = Registries(Environment(variables={}, cwd=tmp_path, home=tmp_path), insecure=())
    with FakeRegistry() as fake:
        fake.auth = "bearer"
        for blob in (image.manifest.config, *image.manifest.layers):
            fake.add_blob("base", source.read_bytes(blob.digest, limit=blob.size))
        fake.add_manifest("base", "1", image.descriptor.media_type, image.manifest.to_bytes())
        name = parse_reference(f"{fake.address}/base:1")

        with registries.connect(documents.append) as client:
            client.pull(name, None, target, layers=False)
        with registries.connect(layers.append) as client:
            client.pull_blobs(name, image.manifest.layers, target)

        assert fake.count("GET", "/token") == 1
    assert {told.digest for told in documents} == {image.manifest.config.digest}
    assert {told.digest for told in layers} == {layer.digest for layer in image.manifest.layers}
