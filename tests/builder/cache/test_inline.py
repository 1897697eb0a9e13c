"""Caches within images."""

from __future__ import annotations

import pytest

from builder.cache.document import CachedLayer
from builder.cache.inline import FIELD, drop_inline_cache, inline_cache, read_inline_cache
from registry.errors import ManifestInvalidError
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.image_config import History, ImageConfig
from registry.oci.platform import Platform
from registry.value import replace

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
KEYS = ("0" * 64, "1" * 64)
TIME = "2026-01-01T00:00:00.5Z"
LAYERS = [Descriptor(media_type=GZIP, digest=digest_of(text), size=1) for text in (b"a", b"b")]
CONFIG = ImageConfig(
    platform=Platform("linux", "amd64"),
    diff_ids=(digest_of(b"A"), digest_of(b"B")),
    history=(History(created="yesterday"), History(created=TIME, empty_layer=True), History(created=TIME)),
    extra=inline_cache([(KEYS[0], 0), (KEYS[1], 1)]),
)


def test_cache_within_an_image_is_read_as_it_was_written() -> None:
    """Keys lead to layers; their times are those of the history, if they are times."""
    again = ImageConfig.from_bytes(CONFIG.to_bytes(), subject="config")

    assert read_inline_cache(again, LAYERS, subject="cache") == (
        CachedLayer(key=KEYS[0], created="", diff_id=digest_of(b"A"), blob=LAYERS[0]),
        CachedLayer(key=KEYS[1], created=TIME, diff_id=digest_of(b"B"), blob=LAYERS[1]),
    )


def test_time_is_unknown_where_the_history_does_not_fit() -> None:
    """A history with another number of layers says nothing about any of them."""
    config = replace(CONFIG, history=(History(created=TIME),))

    assert {record.created for record in read_inline_cache(config, LAYERS, subject="cache")} == {""}


def test_only_the_cache_is_dropped() -> None:
    """Other unknown fields stay."""
    assert drop_inline_cache({**CONFIG.extra, "x": 1, "moby.buildkit.cache.v0": ""}) == {"x": 1}


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (None, "no cache of pybuild"),
        ([], "expected an object"),
        ({"version": 2}, "version"),
        ({"version": 1, "records": [{"key": "x", "layer": 0}]}, "key"),
        ({"version": 1, "records": [{"key": KEYS[0], "layer": 2}]}, "no such layer"),
        ({"version": 1, "records": [{"key": KEYS[0], "layer": -1}]}, "no such layer"),
        ({"version": 1, "records": [{"key": KEYS[0]}]}, "no such layer"),
    ],
)
def test_field_that_breaks_the_form_is_refused(value: object, match: str) -> None:
    """One wrong value makes the whole cache unusable."""
    config = replace(CONFIG, extra={} if value is None else {FIELD: value})

    with pytest.raises(ManifestInvalidError, match=match):
        read_inline_cache(config, LAYERS, subject="cache")


@pytest.mark.parametrize("layers", [LAYERS[:1], [LAYERS[0], replace(LAYERS[1], media_type=FOREIGN)]])
def test_layers_that_do_not_fit_are_refused(layers: list[Descriptor]) -> None:
    """Layers are missing, or are such as no registry keeps."""
    with pytest.raises(ManifestInvalidError, match=r"diff_ids|no such layer"):
        read_inline_cache(CONFIG, layers, subject="cache")
