"""Whole builds in this process: everything that needs no namespace."""

import itertools
import json

import pytest

from builder.errors import BaseImageError, ContextError, WrongLayerError
from builder.events import VertexCompleted, VertexStarted
from builder.pipeline import Build
from builder.request import BuildRequest, Output, OutputType
from builder.store import Store
from registry.content.compression import Compression
from registry.content.image import load_image, validate_image
from registry.errors import DigestMismatchError, UnreachableError
from registry.oci.platform import Platform
from registry.oci.reference import parse_reference
from tests.fakes.layered_image import make_image, make_layer

LINUX = Platform("linux", "amd64")
TAG = parse_reference("app:1")


class Workshop:
    """A store and a context; `build` builds what the context holds."""

    def __init__(self, folder):
        self.store = Store(folder / "store")
        self.context = folder / "context"
        self.context.mkdir()
        self.events = []
        self._clock = (f"2026-01-01T00:00:{second:02}Z" for second in itertools.count())

    def build(self, dockerfile, **wishes):
        """Build a Dockerfile and return the image."""
        self.events.clear()
        request = BuildRequest(
            context=self.context,
            root=self.store.root,
            platform=LINUX,
            build_platform=LINUX,
            dockerfile_text=dockerfile,
            compression=wishes.pop("compression", Compression()),
            tags=(TAG,),
            **wishes,
        )
        build = Build(request, self.store, self.events.append, connect=self._connect, now=lambda: next(self._clock))
        try:
            assert build.prepare() is False
            image = build.finish(None).image
        finally:
            build.close()
        validate_image(self.store.blobs, image, content=True)
        return image

    def cached(self):
        """Give the names of the steps the last build found in the cache."""
        names = {event.vertex: event.name for event in self.events if isinstance(event, VertexStarted)}
        return [names[e.vertex] for e in self.events if isinstance(e, VertexCompleted) and e.cached]

    def _connect(self, _progress):
        raise UnreachableError("nowhere", "there is no network in this test")


@pytest.fixture
def workshop(tmp_path):
    """Give an empty workshop."""
    made = Workshop(tmp_path)
    yield made
    made.store.close()


DOCKERFILE = 'FROM scratch\nCOPY a /a\nWORKDIR /w\nCOPY b .\nCMD ["/a"]\n'


@pytest.fixture
def files(workshop):
    """Put two files into the context."""
    (workshop.context / "a").write_text("one")
    (workshop.context / "b").write_text("two")
    return workshop.context


@pytest.mark.usefixtures("files")
def test_build_gives_a_valid_image_with_one_layer_a_step(workshop):
    """Layers, history and config agree, and the tag names the image."""
    image = workshop.build(DOCKERFILE)

    assert [entry.empty_layer for entry in image.config.history] == [False, False, False, True]
    assert len(image.config.diff_ids) == 3
    assert image.config.working_directory == "/w"
    assert load_image(workshop.store.blobs, workshop.store.layout.find(TAG)) == image


@pytest.mark.usefixtures("files")
def test_second_build_is_cached_and_gives_the_same_image(workshop):
    """Nothing changed: every step is found, and the digest is the same though time went on."""
    first = workshop.build(DOCKERFILE)
    second = workshop.build(DOCKERFILE)

    assert second.descriptor == first.descriptor
    assert workshop.cached() == ["[2/4] COPY a /a", "[3/4] WORKDIR /w", "[4/4] COPY b ."]


def test_change_of_time_keeps_a_copy_cached_and_of_content_does_not(workshop, files):
    """What counts of a file is its content and mode, never its time."""
    workshop.build(DOCKERFILE)
    (files / "b").touch()
    workshop.build(DOCKERFILE)
    touched = workshop.cached()
    (files / "b").write_text("new")
    workshop.build(DOCKERFILE)

    assert "[4/4] COPY b ." in touched
    assert workshop.cached() == ["[2/4] COPY a /a", "[3/4] WORKDIR /w"]


def test_step_that_gives_the_same_bytes_leaves_later_steps_cached(workshop, files):
    """A step that is done again because its flags changed ends the rebuild where its layer did not change."""
    (files / "a").chmod(0o644)
    text = "FROM scratch\nCOPY a /a\nCOPY b /b\n"
    workshop.build(text)
    workshop.build(text.replace("a /a", "--chmod=644 a /a"))

    assert workshop.cached() == ["[3/3] COPY b /b"]


@pytest.mark.usefixtures("files")
def test_no_cache_makes_every_step_again(workshop):
    """`--no-cache` asks nothing, `--no-cache-filter` only for its stages."""
    text = "FROM scratch AS one\nCOPY a /a\nFROM one AS two\nCOPY b /b\n"
    workshop.build(text)
    workshop.build(text, no_cache=True)
    nothing = workshop.cached()
    workshop.build(text, no_cache_stages=frozenset({"two"}))

    assert nothing == []
    assert workshop.cached() == ["[one 2/2] COPY a /a"]


@pytest.mark.usefixtures("files")
def test_metadata_does_not_touch_the_cache(workshop):
    """A label or command changes the image and no step."""
    workshop.build(DOCKERFILE)
    image = workshop.build(DOCKERFILE + "LABEL x=y\nEXPOSE 80\n", labels={"given": "1"})

    assert len(workshop.cached()) == 3
    assert image.config.labels == {"x": "y", "given": "1"}


@pytest.mark.usefixtures("files")
def test_blob_that_is_gone_is_made_again(workshop):
    """A record whose blob was deleted is a miss, not an error."""
    first = workshop.build(DOCKERFILE)
    workshop.store.blobs.delete(first.manifest.layers[0].digest)
    again = workshop.build(DOCKERFILE)

    assert again.config.diff_ids == first.config.diff_ids
    assert "[2/4] COPY a /a" not in workshop.cached()


@pytest.mark.parametrize("kind", ["gzip", "zstd", "uncompressed"])
@pytest.mark.usefixtures("files")
def test_compression_is_that_of_the_request(workshop, kind):
    """New layers are stored as asked for, and say so."""
    image = workshop.build(DOCKERFILE, compression=Compression(kind))
    suffix = {"gzip": "tar+gzip", "zstd": "tar+zstd", "uncompressed": "tar"}[kind]

    assert {layer.media_type.rpartition(".")[2] for layer in image.manifest.layers} == {suffix}


@pytest.mark.usefixtures("files")
def test_epoch_stands_for_the_present_in_config_and_history(workshop):
    """SOURCE_DATE_EPOCH gives the times of the image."""
    image = workshop.build(DOCKERFILE, build_args={"SOURCE_DATE_EPOCH": "86400"})

    assert image.config.created == "1970-01-02T00:00:00Z"
    assert {entry.created for entry in image.config.history} == {"1970-01-02T00:00:00Z"}


def test_failed_build_names_nothing(workshop):
    """A missing source leaves the store without the tag, and the error has the place."""
    with pytest.raises(ContextError, match='"/nope": not found') as caught:
        workshop.build("FROM scratch\nCOPY nope /\n")

    assert caught.value.span.line == 2
    assert workshop.store.layout.entries() == ()


def test_base_image_that_cannot_be_had_is_an_error_at_its_line(workshop):
    """What the registry says stands with the FROM that asked."""
    with pytest.raises(BaseImageError, match="no network in this test") as caught:
        workshop.build("FROM scratch AS a\nFROM example.test/base\n")

    assert caught.value.span.line == 2
    assert caught.value.exit_code == 3


@pytest.mark.usefixtures("files")
def test_base_image_is_taken_from_the_store(workshop):
    """An image that was built can be built on, with its history before the new one."""
    base = workshop.build(DOCKERFILE)
    image = workshop.build("FROM app:1\nCOPY a /again\n")

    assert image.config.diff_ids[:3] == base.config.diff_ids
    assert image.config.history[:4] == base.config.history
    assert image.manifest.layers[:3] == base.manifest.layers


@pytest.fixture
def hostile(workshop):
    """Put an image `hostile:1` into the store whose layer claims the diff_id of that of `honest:1`; return both."""
    blobs, layout = workshop.store.blobs, workshop.store.layout
    good, bad = make_layer(blobs, {"a": "good"}), make_layer(blobs, {"a": "bad"})
    images = make_image(blobs, [good]), make_image(blobs, [bad], diff_ids=[good.diff_id])
    for image, name in zip(images, ("honest:1", "hostile:1"), strict=True):
        layout.put(image.descriptor, parse_reference(name))
    return images


@pytest.mark.usefixtures("files", "hostile")
def test_copy_onto_a_base_with_a_false_diff_id_fails_at_its_line(workshop):
    """The base is read for the COPY, so its lie is found, and no record says what lies on the true base."""
    with pytest.raises(WrongLayerError, match="hostile:1") as caught:
        workshop.build("FROM hostile:1\nCOPY a /b\n")

    assert caught.value.span.line == 2
    assert workshop.store.state.records() == ()


@pytest.mark.usefixtures("files", "hostile")
def test_copy_that_is_cached_does_not_vouch_for_a_false_base(workshop):
    """What was made on the true base is found for the false one, and the next step that is made finds the lie."""
    text = "FROM honest:1\nCOPY a /b\n"
    workshop.build(text)

    with pytest.raises(WrongLayerError, match="hostile:1") as caught:
        workshop.build(text.replace("honest", "hostile") + "COPY b /c\n")

    assert caught.value.span.line == 3


@pytest.mark.usefixtures("files")
def test_base_that_nothing_reads_is_passed_on_as_it_is(workshop, hostile):
    """Metadata on a base reads none of its layers: the image says of them what the base says, and nothing is kept."""
    _, image = hostile
    with pytest.raises(DigestMismatchError, match="tar of layer"):  # by this test, which reads the result
        workshop.build("FROM hostile:1\nLABEL a=b\n")

    built = load_image(workshop.store.blobs, workshop.store.layout.find(TAG))
    assert (built.manifest.layers, built.config.diff_ids) == (image.manifest.layers, image.config.diff_ids)
    assert workshop.store.state.find_blobs(image.config.diff_ids[0]) == ()


@pytest.mark.parametrize("kind", [OutputType.OCI, OutputType.DOCKER])
@pytest.mark.usefixtures("files")
def test_archive_output_is_the_same_each_time(workshop, tmp_path, kind):
    """Two archives of one image have the same bytes, and the image is not tagged in the store."""
    archives = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for archive in archives:
        workshop.build(DOCKERFILE, outputs=(Output(type=kind, destination=archive),))

    assert archives[0].read_bytes() == archives[1].read_bytes()
    assert workshop.store.layout.entries() == ()


@pytest.mark.usefixtures("files")
def test_layout_output_lists_the_image_by_its_name(workshop, tmp_path):
    """`type=oci,tar=false` writes a directory that names the image."""
    folder = tmp_path / "layout"
    workshop.build(DOCKERFILE, outputs=(Output(type=OutputType.OCI, destination=folder, tar=False),))
    entries = json.loads((folder / "index.json").read_text())["manifests"]

    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries] == ["app:1"]
