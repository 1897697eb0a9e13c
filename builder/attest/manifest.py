"""Attestation manifests: where an index keeps what is said of one of its images.

Their entry in the index has a platform that nothing runs on, and two annotations that say which manifest they belong
to; that is how readers find them. A manifest itself has one of two forms: an *artifact*, whose `subject` names the
image, or what looks like an image, for registries and tools that know nothing else.

Source: BuildKit, docs/attestations/attestation-storage.md, and exporter/containerimage/writer.go for the artifact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from builder.image.index import SUBJECT_ANNOTATION, Attachment
from registry.content.image import ATTESTATION_ANNOTATION
from registry.oci.descriptor import Descriptor
from registry.oci.image_config import ImageConfig
from registry.oci.manifest import Manifest
from registry.oci.media_types import OCI_CONFIG, OCI_EMPTY
from registry.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.content.image import Image
    from registry.content.local import LocalBlobStore

IN_TOTO: Final = "application/vnd.in-toto+json"
ARTIFACT_TYPE: Final = "application/vnd.docker.attestation.manifest.v1+json"
PREDICATE_ANNOTATION: Final = "in-toto.io/predicate-type"
REFERENCE_TYPE: Final = "attestation-manifest"
NOWHERE: Final = Platform("unknown", "unknown")
"""The platform of what cannot be run."""


def write_attestations(
    statements: Sequence[tuple[str, bytes]], image: Image, blobs: LocalBlobStore, *, artifact: bool
) -> Attachment:
    """Write statements and their manifest to a store.

    Args:
        statements: the predicate type and the bytes of each.
        image: what they are about.
        blobs: where they go.
        artifact: write an artifact, not what looks like an image.
    """
    layers = tuple(
        Descriptor(
            media_type=IN_TOTO,
            digest=(stored := blobs.put(data)).digest,
            size=stored.size,
            annotations={PREDICATE_ANNOTATION: predicate_type},
        )
        for predicate_type, data in statements
    )
    extra: dict[str, Any] = {}
    if artifact:
        stored = blobs.put(b"{}")
        config = Descriptor(media_type=OCI_EMPTY, digest=stored.digest, size=stored.size, extra={"data": "e30="})
        about = image.descriptor
        subject = Descriptor(media_type=about.media_type, digest=about.digest, size=about.size)
        extra = {"artifactType": ARTIFACT_TYPE, "subject": subject.to_json()}
    else:
        stored = blobs.put(ImageConfig(platform=NOWHERE, diff_ids=tuple(layer.digest for layer in layers)).to_bytes())
        config = Descriptor(media_type=OCI_CONFIG, digest=stored.digest, size=stored.size)
    manifest = Manifest(config=config, layers=layers, extra=extra)
    stored = blobs.put(manifest.to_bytes())
    descriptor = Descriptor(
        media_type=manifest.media_type,
        digest=stored.digest,
        size=stored.size,
        annotations={
            SUBJECT_ANNOTATION: image.descriptor.digest,
            ATTESTATION_ANNOTATION: REFERENCE_TYPE,
        },
        platform=NOWHERE,
    )
    return Attachment(descriptor=descriptor, manifest=manifest)
