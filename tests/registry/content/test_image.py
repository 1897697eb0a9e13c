"""Images in a store: choice of a platform, checks, and what skopeo and umoci make of them."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from registry.content.compression import Compression
from registry.content.image import Image, choose_manifest, find_document, load_image, missing_blobs, validate_image
from registry.content.layer_sink import LayerSink
from registry.content.layout import ImageLayout
from registry.content.local import LocalBlobStore
from registry.errors import (
    BlobMissingError,
    BlobTooLargeError,
    DigestMismatchError,
    ManifestInvalidError,
    PlatformMissingError,
    SizeMismatchError,
)
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.image_config import History, ImageConfig
from registry.oci.manifest import MAX_DOCUMENT_SIZE, Index, Manifest
from registry.oci.media_types import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, CompressionKind
from registry.oci.platform import Platform, host_platform
from registry.oci.reference import parse_reference
from registry.value import replace
from tests.fakes.image import compose_image

if TYPE_CHECKING:
    from pathlib import Path

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    """A store in a new folder."""
    return LocalBlobStore(tmp_path / "images", temporary=tmp_path / "tmp")


def make_tar() -> bytes:
    """Return a tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("hello")
        entry.size, entry.mode = 5, 0o755
        archive.addfile(entry, io.BytesIO(b"Alice"))
    return buffer.getvalue()


def put_document(store: LocalBlobStore, data: bytes, media_type: str) -> Descriptor:
    """Store a document and describe it."""
    info = store.put(data)
    return Descriptor(media_type=media_type, digest=info.digest, size=info.size)


def put_image(store: LocalBlobStore, platform: Platform = AMD64, kind: CompressionKind = "gzip") -> Image:
    """Store a whole image of one layer."""
    with LayerSink(store.writer(), Compression(kind)) as sink:
        sink.write(make_tar())
        layer = sink.finish()
    config = ImageConfig(
        platform=platform, cmd=("/hello",), labels={"who": "Alice"}, diff_ids=(layer.diff_id,),
        history=(History(created="2026-01-02T03:04:05Z", created_by="COPY hello /"), History(empty_layer=True)),
    )  # fmt: skip
    image = compose_image(config, [layer.descriptor], store)
    return replace(image, descriptor=replace(image.descriptor, platform=platform))


def put_index(store: LocalBlobStore, *manifests: Descriptor) -> Descriptor:
    """Store an index."""
    return put_document(store, Index(manifests=manifests).to_bytes(), OCI_INDEX)


def test_image_is_loaded_from_its_manifest(store: LocalBlobStore) -> None:
    """What was stored comes back, and is valid to the last byte."""
    image = put_image(store)

    loaded = load_image(store, image.descriptor)

    assert loaded == image
    validate_image(store, loaded, content=True)


def test_image_is_chosen_from_an_index_by_platform(store: LocalBlobStore) -> None:
    """The descriptor is that of the manifest, not of the index; attestations are no images."""
    images = {platform: put_image(store, platform) for platform in (AMD64, ARM64)}
    attestation = replace(
        put_document(store, b"{}", OCI_MANIFEST),
        platform=Platform("unknown", "unknown"),
        annotations={"vnd.docker.reference.type": "attestation-manifest"},
    )
    index = put_index(store, attestation, *(image.descriptor for image in images.values()))

    assert load_image(store, index, ARM64) == images[ARM64]
    assert load_image(store, index, Platform("linux", "arm64", "v8")) == images[ARM64]
    assert load_image(store, index).config.platform == host_platform()


def test_image_is_found_in_an_index_without_platforms(store: LocalBlobStore) -> None:
    """Where the index does not say, the configs do; entries that are not here are passed by."""
    absent = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(b"absent"), size=1)
    entries = [replace(put_image(store, platform).descriptor, platform=None) for platform in (AMD64, ARM64)]

    assert load_image(store, put_index(store, absent, *entries), ARM64).config.platform == ARM64


def test_image_is_found_in_an_index_within_an_index(store: LocalBlobStore) -> None:
    """One more level is allowed by image-spec."""
    image = put_image(store)

    assert load_image(store, put_index(store, put_index(store, image.descriptor)), AMD64) == image


def test_image_in_too_many_indexes_is_refused(store: LocalBlobStore) -> None:
    """A tower of indexes is no image."""
    descriptor = put_image(store).descriptor
    for _ in range(10):
        descriptor = put_index(store, descriptor)

    with pytest.raises(ManifestInvalidError, match="indexes within indexes"):
        load_image(store, descriptor, AMD64)


def test_image_that_is_not_there_for_the_platform_says_which_are(store: LocalBlobStore) -> None:
    """The hint lists what there is, each once."""
    index = put_index(store, *(put_image(store, platform).descriptor for platform in (AMD64, ARM64, ARM64)))

    with pytest.raises(PlatformMissingError, match="has no image for the platform: `linux/s390x`") as caught:
        load_image(store, index, Platform("linux", "s390x"))
    assert caught.value.hint == "there is one for linux/amd64, linux/arm64"
    assert caught.value.exit_code == 3


def test_image_choice_without_a_store_goes_by_the_index_alone() -> None:
    """A client that has only the index can choose as well."""
    entry = Descriptor(media_type=OCI_MANIFEST, digest=digest_of(b"1"), size=1, platform=AMD64)

    assert choose_manifest(Index(manifests=(entry,)), AMD64, subject="x") == entry
    with pytest.raises(PlatformMissingError, match="x has no image") as caught:
        choose_manifest(Index(manifests=()), AMD64, subject="x")
    assert caught.value.hint is None


def test_image_whose_manifest_is_announced_as_an_index_is_refused(store: LocalBlobStore) -> None:
    """A descriptor and its document have to agree."""
    image = put_image(store)

    with pytest.raises(ManifestInvalidError, match="says otherwise"):
        load_image(store, replace(image.descriptor, media_type=OCI_INDEX))


def test_image_that_is_a_layer_is_refused(store: LocalBlobStore) -> None:
    """Only manifests and indexes lead to images."""
    with pytest.raises(ManifestInvalidError, match="neither manifest nor index"):
        load_image(store, put_image(store).manifest.layers[0])


def test_image_that_is_an_artifact_is_refused(store: LocalBlobStore) -> None:
    """A manifest with another config is something else."""
    manifest = Manifest(config=put_document(store, b"{}", OCI_EMPTY), layers=())

    with pytest.raises(ManifestInvalidError, match=r"an artifact of type .* is no image"):
        load_image(store, put_document(store, manifest.to_bytes(), OCI_MANIFEST))


def test_image_of_another_size_than_announced_is_refused(store: LocalBlobStore) -> None:
    """The descriptor's size is part of its promise."""
    with pytest.raises(SizeMismatchError, match="expected 7 bytes"):
        load_image(store, replace(put_image(store).descriptor, size=7))


def test_image_with_a_huge_manifest_is_refused(store: LocalBlobStore) -> None:
    """Documents are held in memory, so they have a limit."""
    with pytest.raises(BlobTooLargeError, match="longer than"):
        load_image(store, put_document(store, b" " * (MAX_DOCUMENT_SIZE + 1), OCI_MANIFEST))


def test_image_without_its_config_says_so(store: LocalBlobStore) -> None:
    """A blob that was deleted is named."""
    image = put_image(store)
    store.delete(image.manifest.config.digest)

    with pytest.raises(BlobMissingError, match=str(image.manifest.config.digest)):
        load_image(store, image.descriptor)


def test_image_with_fewer_diff_ids_than_layers_is_invalid(store: LocalBlobStore) -> None:
    """Manifest and config have to agree on the stack."""
    image = put_image(store)
    image = replace(image, config=replace(image.config, diff_ids=()))

    with pytest.raises(ManifestInvalidError, match="the manifest has 1 layers, the config 0 diff_ids"):
        validate_image(store, image)


@pytest.mark.parametrize("count", [0, 2])
def test_image_with_another_number_of_diff_ids_is_not_loaded(store: LocalBlobStore, count: int) -> None:
    """Where it comes in, manifest and config have to agree on the number of layers."""
    image = put_image(store)
    wrong = compose_image(replace(image.config, diff_ids=image.config.diff_ids * count), image.manifest.layers, store)

    with pytest.raises(ManifestInvalidError, match=rf"the manifest has 1 layers, the config {count} diff_ids"):
        load_image(store, wrong.descriptor)


def test_image_with_a_layer_of_no_known_type_is_invalid(store: LocalBlobStore) -> None:
    """An attestation is no layer."""
    image = put_image(store)
    layer = replace(image.manifest.layers[0], media_type="application/vnd.in-toto+json")
    image = replace(image, manifest=replace(image.manifest, layers=(layer,)))

    with pytest.raises(ManifestInvalidError, match="is no layer"):
        validate_image(store, image)


def test_image_with_a_truncated_layer_is_invalid(store: LocalBlobStore) -> None:
    """The length shows it without reading."""
    image = put_image(store)
    path = store.path(image.manifest.layers[0].digest)
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(SizeMismatchError, match="size mismatch in blob"):
        validate_image(store, image)


def test_image_whose_layer_unpacks_to_something_else_is_invalid(store: LocalBlobStore) -> None:
    """The diff_id is checked when content is."""
    image = put_image(store)
    image = replace(image, config=replace(image.config, diff_ids=(digest_of(b"other"),)))

    validate_image(store, image)
    with pytest.raises(DigestMismatchError, match="digest mismatch in tar of layer"):
        validate_image(store, image, content=True)


def test_image_missing_blobs_are_listed_once(store: LocalBlobStore) -> None:
    """What is to be pulled, in order."""
    here = put_document(store, b"here", OCI_CONFIG)
    first, second = (Descriptor(media_type=OCI_CONFIG, digest=digest_of(data), size=1) for data in (b"1", b"2"))

    assert missing_blobs(store, [first, here, second, first]) == (first, second)


@pytest.fixture
def images(tmp_path: Path, store: LocalBlobStore) -> Path:
    """A layout with a gzip image and a zstd image."""
    layout = ImageLayout(tmp_path / "images")
    layout.put(put_image(store).descriptor, parse_reference("hello:1.0"))
    layout.put(put_image(store, kind="zstd").descriptor, parse_reference("localhost:5000/a/hello:zstd"))
    return tmp_path / "images"


@pytest.mark.skopeo
@pytest.mark.parametrize("name", ["hello:1.0", "localhost:5000/a/hello:zstd"])
def test_image_is_read_by_skopeo(images: Path, name: str) -> None:
    """Skopeo finds the image by its familiar name and reads its config."""
    done = subprocess.run(["skopeo", "inspect", f"oci:{images}:{name}"], capture_output=True, check=True)

    value = json.loads(done.stdout)
    assert (value["Labels"], value["Architecture"], len(value["Layers"])) == ({"who": "Alice"}, "amd64", 1)


@pytest.mark.skopeo
def test_image_copied_by_skopeo_is_loaded(images: Path, tmp_path: Path) -> None:
    """A layout that skopeo wrote is read, with the same digest."""
    copy = tmp_path / "copy"
    command = ["skopeo", "--insecure-policy", "copy", f"oci:{images}:hello:1.0", f"oci:{copy}:hello:1.0"]
    subprocess.run(command, capture_output=True, check=True)
    descriptor = ImageLayout(copy).find(parse_reference("hello:1.0"))
    copied = LocalBlobStore(copy, temporary=tmp_path / "tmp")

    assert descriptor is not None
    validate_image(copied, load_image(copied, descriptor), content=True)
    original = ImageLayout(images).find(parse_reference("hello:1.0"))
    assert original is not None
    assert original.digest == descriptor.digest


@pytest.mark.umoci
def test_image_is_unpacked_by_umoci(images: Path, tmp_path: Path) -> None:
    """Umoci checks digests and diff_ids while it unpacks."""
    bundle = tmp_path / "bundle"
    command = ["umoci", "unpack", "--rootless", "--image", f"{images}:hello:1.0", str(bundle)]
    subprocess.run(command, capture_output=True, check=True)

    assert (bundle / "rootfs" / "hello").read_bytes() == b"Alice"


@pytest.mark.umoci
def test_image_tagged_by_umoci_is_found_and_kept(images: Path, store: LocalBlobStore) -> None:
    """Umoci rewrites the list; its entry is read, and survives our next change."""
    subprocess.run(["umoci", "tag", "--image", f"{images}:hello:1.0", "hello:2.0"], capture_output=True, check=True)
    layout = ImageLayout(images)

    layout.put(put_image(store, ARM64).descriptor, parse_reference("arm"))

    descriptor = layout.find(parse_reference("hello:2.0"))
    assert descriptor is not None
    assert load_image(store, descriptor).config.platform == AMD64


def test_document_is_found_by_its_digest_alone(store: LocalBlobStore) -> None:
    """A manifest says of itself what it is, no list has to name it."""
    image = put_image(store)

    assert find_document(store, image.descriptor.digest) == replace(image.descriptor, platform=None, annotations={})
    assert find_document(store, digest_of(b"nothing")) is None
    with pytest.raises(ManifestInvalidError):
        find_document(store, store.put(b"[]").digest)
