"""The documents of exported caches."""

from __future__ import annotations

import json

import pytest

from builder.cache.document import CACHE_CONFIG, CachedLayer, CachedMount, ExportedCache, check_config
from registry.errors import ManifestInvalidError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.media_types import OCI_CONFIG

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
LAYER = Descriptor(media_type=GZIP, digest=digest_of(b"layer"), size=5)
RECORD = CachedLayer(key="0" * 64, created="2026-01-01T00:00:00.5Z", diff_id=digest_of(b"tar"), blob=LAYER)
MOUNT = CachedMount(key="1" * 64, diff_id=digest_of(b"tar"), blob=LAYER)
VALUE = {"key": RECORD.key, "created": RECORD.created, "diff_id": RECORD.diff_id, "layer": LAYER.digest}


def read(value: object, layer: Descriptor = LAYER) -> tuple[CachedLayer, ...]:
    """Read a config of one record."""
    data = json.dumps({"version": 1, "records": [value]}).encode()
    return ExportedCache.from_bytes(data, [layer], subject="cache").records


@pytest.mark.parametrize("mounts", [(), (MOUNT,)], ids=["without mounts", "with mounts"])
def test_cache_survives_writing_and_reading(mounts: tuple[CachedMount, ...]) -> None:
    """What was written is read."""
    cache = ExportedCache(records=(RECORD,), mounts=mounts)

    assert ExportedCache.from_bytes(cache.to_bytes(), cache.layers(), subject="cache") == cache


@pytest.mark.parametrize(
    ("name", "value"), [("key", "../../etc"), ("diff_id", None), ("layer", digest_of(b"another")), ("layer", 1)]
)
def test_mount_that_breaks_the_form_is_refused(name: str, value: object) -> None:
    """One wrong field makes the whole document unusable."""
    mount = {"key": MOUNT.key, "diff_id": MOUNT.diff_id, "layer": LAYER.digest, name: value}
    data = json.dumps({"version": 1, "mounts": [mount]}).encode()

    with pytest.raises(ManifestInvalidError, match=name):
        ExportedCache.from_bytes(data, [LAYER], subject="cache")


def test_layer_is_reduced_to_what_names_it() -> None:
    """Addresses of a layer in the manifest are not followed."""
    layer = Descriptor(media_type=GZIP, digest=LAYER.digest, size=5, urls=("https://elsewhere.example/",))

    assert read(VALUE, layer)[0].blob == LAYER


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key", "../../etc"),
        ("key", "A" * 64),
        ("key", None),
        ("created", "yesterday"),
        ("created", "2026-01-01T00:00:00Z\n"),
        ("diff_id", "sha256:short"),
        ("layer", digest_of(b"another")),
        ("layer", 1),
    ],
)
def test_record_that_breaks_the_form_is_refused(name: str, value: object) -> None:
    """One wrong field makes the whole document unusable."""
    with pytest.raises(ManifestInvalidError, match=name):
        read({**VALUE, name: value})


@pytest.mark.parametrize("media_type", [FOREIGN, OCI_CONFIG])
def test_layer_that_is_none_cannot_be_named(media_type: str) -> None:
    """A record leads to ordinary layers only."""
    with pytest.raises(ManifestInvalidError, match="no such layer"):
        read(VALUE, Descriptor(media_type=media_type, digest=LAYER.digest, size=5))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"version": 2}', b'{"version": 1, "records": {}}'])
def test_what_is_no_config_of_a_cache_is_refused(data: bytes) -> None:
    """Other JSON, and what is none, is an error and no crash."""
    with pytest.raises(ManifestInvalidError):
        ExportedCache.from_bytes(data, [], subject="cache")


def test_image_is_no_cache() -> None:
    """The media type of the config tells a cache from an image."""
    config = Descriptor(media_type=CACHE_CONFIG, digest=LAYER.digest, size=5)
    check_config(config, subject="cache")

    with pytest.raises(ManifestInvalidError, match="not a cache of pybuild"):
        check_config(Descriptor(media_type=OCI_CONFIG, digest=LAYER.digest, size=5), subject="cache")
