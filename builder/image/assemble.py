"""From a solved plan to an image: config, history and manifest.

Source: image-spec, config.md and manifest.md; the times of history entries follow BuildKit's
`exporter/containerimage/writer.go` (spec, section 2.1).
"""

from __future__ import annotations

from types import MappingProxyType

from registry.content.image import Image
from registry.oci.descriptor import Descriptor
from registry.oci.image_config import History
from registry.oci.manifest import Manifest
from registry.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_MANIFEST,
    docker_layer_media_type,
    is_nondistributable,
    layer_compression,
    oci_layer_media_type,
)
from registry.value import frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from builder.plan.graph import HistoryDraft, Plan
    from registry.content.local import LocalBlobStore
    from registry.oci.digest import Digest

HISTORY_COMMENT = "buildkit.dockerfile.v0"
"""The comment readers know BuildKit-style history by."""

PADDING_COMMENT = "buildkit.exporter.image.v0"
"""The comment of entries that stand for base layers without history."""


@frozen
class Layer:
    """One layer of a file system: its diff_id and when it was made (RFC 3339; None for layers of a base image).

    *clamped* is the diff_id it would have with no time later than the epoch, where that was asked for.
    """

    diff_id: Digest
    created: str | None = None
    clamped: Digest | None = None


def assemble_image(
    plan: Plan,
    layers: Sequence[Layer],
    made: Mapping[str, Layer],
    descriptors: Sequence[Descriptor],
    blobs: LocalBlobStore,
    *,
    annotations: Mapping[str, str] = MappingProxyType({}),
    descriptor_annotations: Mapping[str, str] = MappingProxyType({}),
    docker_types: bool = False,
    epoch: str | None,
    cache: Mapping[str, Any] = MappingProxyType({}),
) -> Image:
    """Write config and manifest of a solved plan to the store.

    Args:
        plan: the plan.
        layers: the layers of the result, base first.
        made: the layer each vertex made, by vertex digest.
        descriptors: the stored form of each of *layers*.
        blobs: where config and manifest go.
        annotations: annotations of the manifest.
        descriptor_annotations: annotations of the descriptor that names the manifest.
        docker_types: write Docker's media types for manifest and config; *descriptors* have theirs already.
        epoch: RFC 3339 time that stands for the present in new history entries, or None.
        cache: fields of the config that are a cache; one of the base is left out.
    """
    extra = plan.config.extra
    if extra:
        from builder.cache.inline import drop_inline_cache  # noqa: PLC0415  most bases have none

        extra = drop_inline_cache(extra)
    history = _history(plan, layers, made, epoch)
    config = replace(
        plan.config,
        created=epoch or (history[-1].created if history else None),
        diff_ids=tuple(layer.diff_id for layer in layers),
        history=history,
        extra={**extra, **cache},
    )
    stored = blobs.put(config.to_bytes())
    manifest = Manifest(
        config=Descriptor(
            media_type=DOCKER_CONFIG if docker_types else OCI_CONFIG, digest=stored.digest, size=stored.size
        ),
        layers=tuple(descriptors),
        media_type=DOCKER_MANIFEST if docker_types else OCI_MANIFEST,
        annotations=dict(annotations),
    )
    stored = blobs.put(manifest.to_bytes())
    descriptor = Descriptor(
        media_type=manifest.media_type,
        digest=stored.digest,
        size=stored.size,
        platform=config.platform,
        annotations=dict(descriptor_annotations),
    )
    return Image(descriptor=descriptor, manifest=manifest, config=config)


def layer_descriptor(stored: Descriptor, *, docker_types: bool = False) -> Descriptor:
    """Say in OCI's or Docker's words what is known of a stored layer; what may not be redistributed stays as it is."""
    if is_nondistributable(stored.media_type):
        return stored
    name_type = docker_layer_media_type if docker_types else oci_layer_media_type
    media_type = name_type(layer_compression(stored.media_type) or "uncompressed")
    return Descriptor(media_type=media_type, digest=stored.digest, size=stored.size)


def _history(plan: Plan, layers: Sequence[Layer], made: Mapping[str, Layer], epoch: str | None) -> tuple[History, ...]:
    base = list(_match_base_history(plan, layers, epoch))
    new = [_entry(draft, made, epoch) for draft in plan.history]
    return _fill_times([*base, *new])


def _entry(draft: HistoryDraft, made: Mapping[str, Layer], epoch: str | None) -> History:
    if draft.vertex is None:
        return History(created=epoch, created_by=draft.created_by, comment=HISTORY_COMMENT, empty_layer=True)
    created = epoch or made[draft.vertex.digest].created
    return History(created=created, created_by=draft.created_by, comment=HISTORY_COMMENT)


def _match_base_history(plan: Plan, layers: Sequence[Layer], epoch: str | None) -> tuple[History, ...]:
    """Make the base's history and layers agree in number, as BuildKit does: pad what lacks, empty what is too much."""
    new = sum(1 for draft in plan.history if draft.vertex is not None)
    layer_count = len(layers) - new
    entries: list[History] = []
    for entry in plan.base_history:
        if entry.empty_layer:
            entries.append(entry)
        elif layer_count:
            layer_count -= 1
            entries.append(entry)
        else:
            entries.append(replace(entry, empty_layer=True))
    entries.extend(History(created=epoch, created_by=None, comment=PADDING_COMMENT) for _ in range(layer_count))
    return tuple(entries)


def _fill_times(entries: Sequence[History]) -> tuple[History, ...]:
    """Give entries without a time that of the first new layer, or of the one before them."""
    created: str | None = None
    missing = False
    for entry in entries:
        if entry.created is not None:
            created = entry.created
            if missing:
                break
        else:
            missing = True
    filled: list[History] = []
    missing = False
    for entry in entries:
        if entry.created is not None:
            created = entry.created if missing else created
            filled.append(entry)
        else:
            missing = True
            filled.append(replace(entry, created=created))
    return tuple(filled)
