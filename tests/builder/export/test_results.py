"""What a build makes of its result: forms of images, indexes, times; everything that needs no namespace."""

import itertools
import json
import math
import os
import tarfile

import pytest

from builder.collect.removal import collect_orphans
from builder.errors import EmulationMissingError, UsageError, WrongLayerError
from builder.events import VertexCompleted, VertexStarted
from builder.image.index import ImageIndex, add_platform
from builder.pipeline import Build
from builder.request import Annotation, BuildRequest, Output, OutputType, ProvenanceRequest
from builder.store import Store
from registry.content.compression import Compression
from registry.content.image import load_image, validate_image
from registry.content.layer_stream import open_layer
from registry.errors import UnreachableError
from registry.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
)
from registry.oci.platform import Platform
from registry.oci.reference import parse_reference
from tests.fakes.layered_image import make_image, make_layer

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
TAG = parse_reference("app:1")
EPOCH = 1_700_000_000
COPY = "FROM scratch\nWORKDIR /w\nCOPY file .\nCOPY <<EOF /new/inline\ntext\nEOF\n"


class Workshop:
    """A store and a context in a folder of their own."""

    def __init__(self, folder, *, file_time=EPOCH + 5_000):
        folder.mkdir()
        self.store = Store(folder / "store")
        self.context = folder / "context"
        self.context.mkdir()
        (self.context / "file").write_text("content")
        (self.context / "file").chmod(0o644)
        os.utime(self.context / "file", (file_time, file_time))
        self.events = []
        self._clock = (f"2026-01-01T00:00:{second:02}Z" for second in itertools.count())

    def build(self, dockerfile, **wishes):
        """Build and return the image or index."""
        self.events.clear()
        platforms = wishes.pop("platforms", (AMD64,))
        request = BuildRequest(
            context=self.context,
            root=self.store.root,
            platform=platforms[0],
            platforms=platforms if len(platforms) > 1 else (),
            build_platform=AMD64,
            dockerfile_text=dockerfile,
            compression=wishes.pop("compression", Compression()),
            tags=(TAG,),
            **wishes,
        )
        build = Build(request, self.store, self.events.append, connect=self._connect, now=lambda: next(self._clock))
        try:
            assert build.prepare() is False
            result = build.finish(None)
        finally:
            build.close()
        image, self.record = result.image, result.record
        for each in image.images if isinstance(image, ImageIndex) else (image,):
            validate_image(self.store.blobs, each, content=True)
        return image

    def form(self, dockerfile, type_=OutputType.IMAGE, *, destination=None, wishes=None, **attributes):
        """Build with one output that has these attributes."""
        named = {name.replace("_", "-"): text for name, text in attributes.items()}
        output = Output(type=type_, destination=destination, attributes=named)
        return self.build(dockerfile, outputs=(output,), **(wishes or {}))

    def entries(self, image):
        """Give the name and time of all entries of all layers."""
        found = []
        for layer in image.manifest.layers:
            with (
                self.store.blobs.open_verified(layer.digest) as blob,
                open_layer(blob, media_type=layer.media_type) as stream,
                tarfile.open(fileobj=stream, mode="r|") as tar,
            ):
                found += [(member.name, int(member.mtime)) for member in tar]
        return found

    def names(self):
        """Give the names of the steps of the last build."""
        return [event.name for event in self.events if isinstance(event, VertexStarted)]

    def cached(self):
        """Give the names of the steps the last build found in the cache."""
        names = {event.vertex: event.name for event in self.events if isinstance(event, VertexStarted)}
        return [names[e.vertex] for e in self.events if isinstance(e, VertexCompleted) and e.cached]

    def document(self, descriptor):
        """Read a JSON document of the store."""
        return json.loads(self.store.blobs.read_bytes(descriptor.digest, limit=1 << 20))

    def _connect(self, _progress):
        raise UnreachableError("nowhere", "there is no network in this test")


@pytest.fixture
def workshop(tmp_path):
    """Give an empty workshop."""
    made = Workshop(tmp_path / "one")
    yield made
    made.store.close()


@pytest.fixture
def other(tmp_path):
    """Give another one, with a checkout of another time."""
    made = Workshop(tmp_path / "two", file_time=EPOCH + 9_999)
    yield made
    made.store.close()


# --link


def test_linked_copy_stays_cached_when_what_lies_below_changes(workshop):
    """The layer of COPY --link does not depend on the steps before it."""
    workshop.build("FROM scratch\nCOPY <<A /a\none\nA\nCOPY --link file /d/f\n")
    workshop.build("FROM scratch\nCOPY <<A /a\ntwo\nA\nCOPY --link file /d/f\n")

    assert workshop.cached() == ["[3/3] COPY --link file /d/f"]


def test_linked_copy_writes_its_own_parents(workshop):
    """Directories above the destination are in the layer, of root and 0755, whatever the image has."""
    text = "FROM scratch\nCOPY --chown=7:7 --chmod=700 <<A /d/a\none\nA\nCOPY --link file /d/f\n"
    image = workshop.build(text)
    layer = image.manifest.layers[-1]
    with (
        workshop.store.blobs.open_verified(layer.digest) as blob,
        open_layer(blob, media_type=layer.media_type) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        members = {member.name: member for member in tar}

    assert (members["d"].mode, members["d"].uid) == (0o755, 0)
    assert set(members) == {"d", "d/f"}


def test_chmod_switches_link_off(workshop):
    """With --chmod a COPY depends on what lies below, as in BuildKit."""
    workshop.build("FROM scratch\nCOPY <<A /a\none\nA\nCOPY --link --chmod=600 file /f\n")
    workshop.build("FROM scratch\nCOPY <<A /a\ntwo\nA\nCOPY --link --chmod=600 file /f\n")

    assert workshop.cached() == []


# SOURCE_DATE_EPOCH


@pytest.mark.parametrize(
    ("text", "args"),
    [(COPY, {"SOURCE_DATE_EPOCH": str(EPOCH)}), (f"ARG SOURCE_DATE_EPOCH={EPOCH}\n{COPY}", {})],
    ids=["build-arg", "global-arg"],
)
def test_epoch_is_the_time_of_config_history_and_what_is_made(workshop, text, args):
    """Directories and inline files have the time of the epoch, files keep theirs."""
    image = workshop.build(text, build_args=args)

    assert image.config.created == "2023-11-14T22:13:20Z"
    assert {entry.created for entry in image.config.history} == {image.config.created}
    assert workshop.entries(image) == [
        ("w", EPOCH),
        ("w", EPOCH),
        ("w/file", EPOCH + 5_000),
        ("new", EPOCH),
        ("new/inline", EPOCH),
    ]


def test_empty_epoch_switches_the_default_off(workshop):
    """An empty build argument takes the clock although the Dockerfile has a default."""
    image = workshop.build(f"ARG SOURCE_DATE_EPOCH={EPOCH}\n{COPY}", build_args={"SOURCE_DATE_EPOCH": ""})

    assert image.config.created.startswith("2026-")


def test_epoch_of_a_folder_as_context_is_unset(workshop):
    """A folder has no time of its own, so `context` leaves the clock in charge."""
    assert workshop.build(COPY, build_args={"SOURCE_DATE_EPOCH": "context"}).config.created.startswith("2026-")


def test_rewritten_images_are_the_same_on_two_checkouts(workshop, other):
    """With rewrite-timestamp two stores and two checkouts give the same bytes."""
    args = {"build_args": {"SOURCE_DATE_EPOCH": str(EPOCH)}}
    first = workshop.form(COPY, wishes=args, rewrite_timestamp="true")
    second = other.form(COPY, wishes=args, rewrite_timestamp="true")

    assert first == second
    assert max(time for _, time in workshop.entries(first)) == EPOCH


def test_rewriting_again_takes_the_known_layers(workshop):
    """A second rewrite makes no layer, and gives the same image."""
    args = {"build_args": {"SOURCE_DATE_EPOCH": str(EPOCH)}}
    first = workshop.form(COPY, wishes=args, rewrite_timestamp="true")
    before = {blob.digest for blob in workshop.store.blobs.walk()}
    second = workshop.form(COPY, wishes=args, rewrite_timestamp="true")

    assert first == second
    assert {blob.digest for blob in workshop.store.blobs.walk()} == before


def test_rewriting_leaves_a_layer_that_the_base_has_twice(workshop):
    """Layers of the base are counted in their places, not by what they are."""
    layer = make_layer(workshop.store.blobs, {"a": "1"})
    base = make_image(workshop.store.blobs, [layer, make_layer(workshop.store.blobs, {"b": "2"}), layer])
    workshop.store.layout.put(base.descriptor, parse_reference("base:1"))
    wishes = {"build_args": {"SOURCE_DATE_EPOCH": "0"}}
    os.utime(workshop.context / "file", (5, 5))
    image = workshop.form("FROM base:1\nCOPY file /last\n", wishes=wishes, rewrite_timestamp="true")

    assert image.config.diff_ids[:3] == base.config.diff_ids
    assert workshop.entries(image)[-1] == ("last", 0)


def test_rewriting_leaves_the_layers_of_the_base(workshop):
    """Only what lies above the base gets other times."""
    base = workshop.build(COPY)
    workshop.store.layout.put(base.descriptor, parse_reference("base:1"))
    args = {"build_args": {"SOURCE_DATE_EPOCH": str(EPOCH)}}
    image = workshop.form("FROM base:1\nCOPY file /last\n", wishes=args, rewrite_timestamp="true")

    assert image.manifest.layers[:-1] == base.manifest.layers
    assert workshop.entries(image)[-1] == ("last", EPOCH)


# Several platforms


def test_platforms_become_an_index_in_their_order(workshop):
    """Each platform has a manifest, the name stands for the index."""
    index = workshop.build("FROM scratch\nARG TARGETARCH\nENV A=$TARGETARCH\nCOPY file /\n", platforms=(ARM64, AMD64))

    assert index.descriptor.media_type == OCI_INDEX
    assert [entry["platform"] for entry in workshop.document(index.descriptor)["manifests"]] == [
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "amd64", "os": "linux"},
    ]
    assert [image.config.env[-1] for image in index.images] == ["A=arm64", "A=amd64"]
    assert [image.config.platform for image in index.images] == [ARM64, AMD64]
    assert workshop.store.layout.find(TAG).digest == index.descriptor.digest


def test_platforms_share_equal_steps_and_name_them(workshop):
    """A stage for the build platform is made once; the others say which platform they are for."""
    text = (
        "FROM --platform=$BUILDPLATFORM scratch AS tools\nCOPY file /tool\n"
        "FROM tools\nARG TARGETARCH\nCOPY file /$TARGETARCH\n"
    )
    workshop.build(text, platforms=(AMD64, ARM64))

    assert sorted(name for name in workshop.names() if "COPY" in name) == [
        "[linux/amd64 stage-1 2/2] COPY file /$TARGETARCH",
        "[linux/amd64 stage-1 2/2] COPY file /$TARGETARCH",
        "[linux/amd64 tools 2/2] COPY file /tool",
    ]


def test_build_argument_forces_an_index(workshop):
    """BUILDKIT_MULTI_PLATFORM=1 makes an index of one platform."""
    index = workshop.build(COPY, build_args={"BUILDKIT_MULTI_PLATFORM": "1"})

    assert [image.config.platform for image in index.images] == [AMD64]


def test_index_with_epoch_says_when_it_was_made(workshop):
    """The index carries the creation annotation when there is an epoch."""
    args = {"SOURCE_DATE_EPOCH": str(EPOCH)}
    index = workshop.build(COPY, platforms=(AMD64, ARM64), build_args=args)

    assert workshop.document(index.descriptor)["annotations"] == {
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z"
    }


def test_docker_output_refuses_several_platforms(workshop, tmp_path):
    """A tar for docker load holds one platform, which is said before anything is made."""
    with pytest.raises(UsageError, match="docker exporter does not currently support exporting manifest lists"):
        workshop.form(COPY, OutputType.DOCKER, destination=tmp_path / "app.tar", wishes={"platforms": (AMD64, ARM64)})

    assert workshop.events == []


def test_oci_output_of_an_index_has_all_platforms(workshop, tmp_path):
    """The layout lists the index by name and holds every blob."""
    path = tmp_path / "app.tar"
    index = workshop.form(COPY, OutputType.OCI, destination=path, wishes={"platforms": (AMD64, ARM64)})
    with tarfile.open(path) as tar:
        names = set(tar.getnames())
        listed = json.load(tar.extractfile("index.json"))["manifests"]

    assert [entry["digest"] for entry in listed] == [index.descriptor.digest]
    for image in index.images:
        assert f"blobs/sha256/{image.manifest.config.digest.removeprefix('sha256:')}" in names


def test_garbage_collection_keeps_every_platform_of_a_named_index(workshop):
    """Blobs that only a manifest of an index refers to are in use."""
    index = workshop.build(COPY, platforms=(AMD64, ARM64))
    workshop.store.state.remove_records(
        [record.key for record, _ in workshop.store.state.records()], used_until=math.inf
    )
    workshop.store.close()  # what made them holds them

    with Store(workshop.store.root) as store:
        assert collect_orphans(store).parts == ()
    for image in index.images:
        validate_image(workshop.store.blobs, image, content=True)


def test_step_for_a_foreign_platform_fails_before_anything_runs(workshop, tmp_path, monkeypatch):
    """Without an emulator the build says what to install."""
    monkeypatch.setattr("builder.solve.emulation.has_handler", lambda *_: False)

    with pytest.raises(EmulationMissingError, match="cannot run commands for linux/s390x: `RUN true`") as caught:
        workshop.build("FROM scratch\nCOPY file /\nRUN true\n", platforms=(Platform("linux", "s390x"),))

    assert "qemu-user-static" in caught.value.hint
    assert caught.value.span is not None


# Forms


@pytest.mark.parametrize("platforms", [(AMD64,), (AMD64, ARM64)], ids=["one", "two"])
def test_docker_media_types_go_through_the_whole_image(workshop, platforms):
    """oci-mediatypes=false writes Docker's types from the index down to the layers."""
    image = workshop.form(COPY, wishes={"platforms": platforms}, oci_mediatypes="false")
    images = image.images if isinstance(image, ImageIndex) else (image,)

    assert image.descriptor.media_type == (DOCKER_MANIFEST_LIST if len(platforms) > 1 else DOCKER_MANIFEST)
    for each in images:
        assert each.manifest.media_type == DOCKER_MANIFEST
        assert each.manifest.config.media_type == DOCKER_CONFIG
        assert {layer.media_type for layer in each.manifest.layers} == {DOCKER_LAYER_GZIP}


def test_force_compression_converts_layers_that_are_there(workshop):
    """Without it a cached layer keeps its form, with it all layers have the one that is asked for."""
    zstd = Compression("zstd")
    workshop.build(COPY)
    kept = workshop.build(COPY, compression=zstd)
    forced = workshop.form(COPY, wishes={"compression": zstd}, force_compression="true")

    assert {layer.media_type for layer in kept.manifest.layers} == {OCI_LAYER_GZIP}
    assert {layer.media_type for layer in forced.manifest.layers} == {OCI_LAYER_ZSTD}
    assert forced.config.diff_ids == kept.config.diff_ids


def test_force_compression_reads_a_base_before_it_is_believed(workshop):
    """A layer of the base that is not what its image says is converted for nobody."""
    good, bad = (make_layer(workshop.store.blobs, {"a": text}) for text in ("good", "bad"))
    base = make_image(workshop.store.blobs, [bad], diff_ids=[good.diff_id])
    workshop.store.layout.put(base.descriptor, parse_reference("base:1"))

    with pytest.raises(WrongLayerError, match="base:1"):
        workshop.form("FROM base:1\nLABEL a=b\n", compression="zstd", force_compression="true")


def test_outputs_may_differ_in_compression(workshop, tmp_path):
    """Each output has the compression it asked for."""
    workshop.build(
        COPY,
        outputs=(
            Output(type=OutputType.IMAGE, attributes={"compression": "gzip"}),
            Output(type=OutputType.OCI, tar=False, destination=tmp_path / "o", attributes={"compression": "zstd"}),
        ),
    )
    entry = json.loads((tmp_path / "o" / "index.json").read_text())["manifests"][0]
    manifest = json.loads((tmp_path / "o" / "blobs" / entry["digest"].replace(":", "/")).read_text())

    assert {layer["mediaType"] for layer in manifest["layers"]} == {OCI_LAYER_ZSTD}


def test_annotations_go_to_their_level_and_platform(workshop):
    """Manifest, index, and both descriptors, for all platforms or for one."""
    index = workshop.build(
        COPY,
        platforms=(AMD64, ARM64),
        annotations=(
            Annotation("manifest", None, "m", "all"),
            Annotation("manifest", ARM64, "m", "arm"),
            Annotation("index", None, "i", "1"),
            Annotation("manifest-descriptor", AMD64, "md", "2"),
            Annotation("index-descriptor", None, "id", "3"),
        ),
    )
    document = workshop.document(index.descriptor)

    assert document["annotations"] == {"i": "1"}
    assert [entry.get("annotations") for entry in document["manifests"]] == [{"md": "2"}, None]
    assert [dict(image.manifest.annotations) for image in index.images] == [{"m": "all"}, {"m": "arm"}]
    assert workshop.store.layout.find(TAG).annotations == {"id": "3"}


def test_annotations_of_an_output_are_only_its_own(workshop):
    """`annotation.K` of an output is a manifest annotation, beside those of the whole build."""
    image = workshop.form(
        COPY, wishes={"annotations": (Annotation("manifest", None, "a", "1"),)}, **{"annotation.B": "2"}
    )

    assert dict(image.manifest.annotations) == {"a": "1", "B": "2"}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"annotation-index.a": "1"}, "index annotations are not supported for a single platform"),
        ({"annotation-image.a": "1"}, "unknown level of an annotation, image"),
        ({"annotation": "1"}, "not an annotation: `annotation`"),
        ({"annotation.a": "1", "oci-mediatypes": "false"}, "annotations need OCI media types"),
        ({"rewrite-timestamp": "yes"}, "rewrite-timestamp is true or false, not `yes`"),
    ],
)
def test_mistakes_in_forms_are_explained(workshop, attributes, message):
    """Nothing is built for an output that cannot be."""
    with pytest.raises(UsageError) as caught:
        workshop.form(COPY, **attributes)

    assert message in caught.value.message
    assert workshop.events == []


# Attestations


def attested(workshop, *, platforms=(AMD64,), type_=OutputType.IMAGE, provenance=None, **attributes):
    """Build with provenance and one output that has these attributes."""
    wishes = {"provenance": provenance or ProvenanceRequest(), "platforms": platforms}
    return workshop.form(COPY, type_, wishes=wishes, **attributes)


def test_attested_image_is_an_index_of_the_same_manifest(workshop):
    """The image itself is what it is without, the index has it first and what is told of it last."""
    plain = workshop.build(COPY)
    index = attested(workshop)
    document = workshop.document(index.descriptor)

    assert index.images[0].descriptor.digest == plain.descriptor.digest
    assert [(entry["platform"]["os"], entry["digest"]) for entry in document["manifests"]] == [
        ("linux", plain.descriptor.digest),
        ("unknown", index.attachments[0].descriptor.digest),
    ]
    assert workshop.store.layout.find(TAG).digest == index.descriptor.digest
    assert load_image(workshop.store.blobs, index.descriptor).descriptor.digest == plain.descriptor.digest


def test_attestations_follow_the_images_of_all_platforms(workshop):
    """One for each, about that one, under the same invocation."""
    index = attested(workshop, platforms=(AMD64, ARM64))
    entries = workshop.document(index.descriptor)["manifests"]
    statements = [workshop.document(each.manifest.layers[0]) for each in index.attachments]

    assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm64", "unknown", "unknown"]
    assert [entry["annotations"]["vnd.docker.reference.digest"] for entry in entries[2:]] == [
        entry["digest"] for entry in entries[:2]
    ]
    names = [statement["subject"][0]["name"] for statement in statements]
    assert names == ["pkg:docker/app@1?platform=linux%2Famd64", "pkg:docker/app@1?platform=linux%2Farm64"]
    runs = [statement["predicate"]["runDetails"]["metadata"]["invocationId"] for statement in statements]
    assert runs[0] == runs[1]


def test_attested_image_can_have_annotations_of_an_index(workshop):
    """It is one, though it is for a single platform."""
    wishes = {"provenance": ProvenanceRequest()}
    index = workshop.form(COPY, wishes=wishes, **{"annotation-index.who": "me"})

    assert workshop.document(index.descriptor)["annotations"] == {"who": "me"}


def test_older_form_of_attestations_is_made_on_demand(workshop):
    """`oci-artifact=false` writes what looks like an image."""
    (attached,) = attested(workshop, oci_artifact="false").attachments

    assert attached.manifest.extra == {}
    assert attached.manifest.config.media_type == "application/vnd.oci.image.config.v1+json"


def test_each_output_names_its_own_subjects(workshop):
    """Two outputs of one form and different names share the image, not what is told of it."""
    outputs = tuple(Output(type=OutputType.IMAGE, names=(parse_reference(name),)) for name in ("one:1", "two:1"))
    workshop.build(COPY, provenance=ProvenanceRequest(), outputs=outputs)
    found = [workshop.store.layout.find(parse_reference(name)) for name in ("one:1", "two:1")]
    first, second = (workshop.document(each)["manifests"] for each in found)

    assert first[0]["digest"] == second[0]["digest"]
    assert first[1]["digest"] != second[1]["digest"]


INLINE = ProvenanceRequest(inline_only=True)


@pytest.mark.parametrize(
    ("type_", "attributes", "is_index"),
    [
        (OutputType.IMAGE, {}, True),
        (OutputType.IMAGE, {"attestation_inline": "false"}, False),
        (OutputType.OCI, {}, True),
        (OutputType.DOCKER, {}, False),
    ],
)
def test_provenance_for_images_alone_goes_where_it_can(workshop, tmp_path, type_, attributes, is_index):
    """`inline-only` is in images, and left out of archives for docker and where it is not wanted."""
    destination = None if type_ is OutputType.IMAGE else tmp_path / "out.tar"
    image = workshop.form(COPY, type_, destination=destination, wishes={"provenance": INLINE}, **attributes)

    assert isinstance(image, ImageIndex) is is_index


@pytest.mark.parametrize(
    ("type_", "attributes", "message"),
    [
        (OutputType.DOCKER, {}, "does not currently support exporting manifest lists"),
        (OutputType.IMAGE, {"oci_mediatypes": "false"}, "attestations need OCI media types"),
    ],
)
def test_form_without_room_for_attestations_is_refused(workshop, type_, attributes, message):
    """Before anything runs."""
    with pytest.raises(UsageError, match=message):
        attested(workshop, type_=type_, **attributes)

    assert workshop.events == []


def test_artifact_of_docker_types_is_refused(workshop):
    """Docker's types know no artifacts."""
    with pytest.raises(UsageError, match="oci-artifact=true needs OCI media types"):
        workshop.form(COPY, oci_mediatypes="false", oci_artifact="true")


def test_archive_holds_attestations(workshop, tmp_path):
    """Every blob of an OCI archive of an attested image is in it."""
    index = workshop.form(
        COPY, OutputType.OCI, destination=tmp_path / "out.tar", wishes={"provenance": ProvenanceRequest()}
    )
    (attached,) = index.attachments
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = {name.rpartition("/")[2] for name in tar.getnames()}

    wanted = [attached.descriptor, attached.manifest.config, *attached.manifest.layers]
    assert {blob.digest.partition(":")[2] for blob in wanted} <= names


def test_attestations_survive_a_collection(workshop):
    """Blobs that only an attestation names are kept while the image has a name, and go with it."""
    (attached,) = attested(workshop).attachments
    blobs = [attached.descriptor.digest, *(layer.digest for layer in attached.manifest.layers)]
    workshop.store.close()  # what made them holds them
    with Store(workshop.store.root) as store:
        collect_orphans(store)
        kept = [store.blobs.path(digest).exists() for digest in blobs]
        store.layout.remove(TAG)
        collect_orphans(store)

        assert all(kept)
        assert not any(store.blobs.has(digest) for digest in blobs)


def test_other_platform_of_a_name_keeps_its_attestations(workshop):
    """An image that joins those of a name leaves what is told of the others."""
    index = attested(workshop)
    added = workshop.build("FROM scratch\nCOPY file /other\n", platforms=(ARM64,))
    entries = workshop.document(add_platform(workshop.store.blobs, index.descriptor, added))["manifests"]

    assert [entry["digest"] for entry in entries] == [
        index.images[0].descriptor.digest,
        added.descriptor.digest,
        index.attachments[0].descriptor.digest,
    ]


def test_metadata_tells_of_each_platform(workshop):
    """Under a key for each, whether or not the image is attested."""
    request = {"recorded": "min", "platforms": (AMD64, ARM64)}
    workshop.build(COPY, **request)

    assert sorted(workshop.record) == ["buildx.build.provenance/linux/amd64", "buildx.build.provenance/linux/arm64"]
    told = workshop.record["buildx.build.provenance/linux/amd64"]
    assert "metadata" not in told["runDetails"]
    workshop.build(COPY)
    assert workshop.record == {}
