"""Config and history of the image, to the letter of the specification of BuildKit's results."""

from pathlib import Path

import pytest

from builder.dockerfile.stages import parse_dockerfile
from builder.image.assemble import Layer, assemble_image
from builder.plan.convert import convert
from builder.request import BuildRequest
from builder.source import SourceFile
from registry.content.compression import Compression
from registry.content.local import LocalBlobStore
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.image_config import History, ImageConfig
from registry.oci.media_types import OCI_LAYER_GZIP
from registry.oci.platform import Platform
from tests.fakes.image import compose_image

LINUX = Platform("linux", "amd64")
LATER = "2026-01-01T00:00:00Z"
STONE_AGE = "1970-01-01T00:00:00Z"


def blob(name):
    """Name a layer."""
    return Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(name.encode()), size=1)


def base(layers, **config):
    """Make a base image of so many layers."""
    diff_ids = tuple(digest_of(f"tar {number}".encode()) for number in range(layers))
    made = ImageConfig(platform=LINUX, diff_ids=diff_ids, **config)
    return compose_image(made, (blob(f"blob {number}") for number in range(layers)))


@pytest.fixture
def assemble(tmp_path):
    """Give a function that plans a Dockerfile and assembles it as if every step had made a layer."""

    def work(text, image=None, *, epoch=None, **wishes):
        request = BuildRequest(
            context=Path("/context"),
            root=Path("/root"),
            platform=LINUX,
            build_platform=LINUX,
            compression=Compression(),
            **wishes,
        )
        plan = convert(parse_dockerfile(SourceFile("Dockerfile", text)), request, lambda *_: image)
        kept = [Layer(diff_id=diff_id) for diff_id in image.config.diff_ids] if image else []
        made = {
            draft.vertex.digest: Layer(diff_id=digest_of(draft.created_by.encode()), created=LATER)
            for draft in plan.history
            if draft.vertex is not None
        }
        layers = [*kept, *made.values()]
        blobs = LocalBlobStore(tmp_path, temporary=tmp_path)
        descriptors = [blob(layer.diff_id) for layer in layers]
        return assemble_image(plan, layers, made, descriptors, blobs, epoch=epoch)

    return work


@pytest.mark.parametrize(
    ("instruction", "text", "is_empty"),
    [
        ("ARG a=1 b", "ARG a=1 b", True),
        ("ENV k=v k2=v2", "ENV k=v k2=v2", True),
        ("LABEL k=v", "LABEL k=v", True),
        ("EXPOSE 80 443/udp 53-54", "EXPOSE [443/udp 53/tcp 54/tcp 80/tcp]", True),
        ("VOLUME /a /b", "VOLUME [/a /b]", True),
        ("USER x", "USER x", True),
        ("WORKDIR /", "WORKDIR /", True),
        ("WORKDIR abs", "WORKDIR /abs", False),
        ("WORKDIR /a/../b//c/", "WORKDIR /a/../b//c/", False),
        ("RUN cmd", "RUN /bin/sh -c cmd # buildkit", False),
        ('RUN ["a", "b c"]', "RUN a b c # buildkit", False),
        ("COPY --link --exclude=x a /b", "COPY a /b # buildkit", False),
        ("COPY --parents --chown=1 --chmod=1 a b /c/", "COPY --parents --chown=1 --chmod=1 a b /c/ # buildkit", False),
        ("COPY <<A /b\nx\nA", "COPY <<A /b # buildkit", False),
        ("ADD --chown=1:1 a /b", "ADD --chown=1:1 a /b # buildkit", False),
        ("CMD x", 'CMD ["/bin/sh" "-c" "x"]', True),
        ('ENTRYPOINT ["x"]', 'ENTRYPOINT ["x"]', True),
        ('SHELL ["/bin/bash", "-c"]', "SHELL [/bin/bash -c]", True),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM", True),
        ("MAINTAINER x", "MAINTAINER x", True),
    ],
)
def test_instruction_leaves_one_history_entry(assemble, instruction, text, is_empty):
    """Text, comment and emptiness of the entry; an entry with a layer has exactly one."""
    image = assemble(f"FROM scratch\n{instruction}\n")
    entry = History(
        created=None if is_empty else LATER,
        created_by=text,
        comment="buildkit.dockerfile.v0",
        empty_layer=is_empty,
    )

    assert image.config.history == (entry,)
    assert len(image.manifest.layers) == (0 if is_empty else 1)


def test_onbuild_leaves_no_history(assemble):
    """ONBUILD only changes the config."""
    image = assemble("FROM scratch\nONBUILD RUN x\n")

    assert image.config.history == ()
    assert image.config.on_build == ("RUN x",)


def test_cache_within_a_base_is_not_handed_on(assemble):
    """It answers the steps of the base; BuildKit's is dropped as well, everything else survives."""
    extra = {"vnd.pybuild.cache.v1": {"version": 1}, "moby.buildkit.cache.v0": "W10=", "x": 1}

    assert assemble("FROM b\nRUN x\n", base(1, extra=extra)).config.extra == {"x": 1}


def test_arguments_in_scope_stand_before_the_command(assemble):
    """Each name stands once, where it was first declared, with its last value."""
    text = "FROM scratch\nARG a=1\nARG b=2\nARG a=3\nRUN x\n"

    assert assemble(text).config.history[-1].created_by == "RUN |2 a=3 b=2 /bin/sh -c x # buildkit"


@pytest.mark.parametrize(
    ("layers", "history", "padded"),
    [
        (2, (), [(None, False), (None, False)]),
        (1, (("a", False), ("b", False)), [("a", False), ("b", True)]),
        (2, (("a", False), ("b", True)), [("a", False), ("b", True), (None, False)]),
    ],
    ids=["none", "surplus", "missing"],
)
def test_history_of_a_base_is_made_to_fit_its_layers(assemble, layers, history, padded):
    """Missing entries are added with a comment of their own, surplus ones become empty."""
    entries = tuple(History(created=STONE_AGE, created_by=text, empty_layer=empty) for text, empty in history)
    image = assemble("FROM b\nRUN x\n", base(layers, history=entries))
    found = image.config.history

    assert [(entry.created_by, entry.empty_layer) for entry in found[:-1]] == padded
    assert all(entry.comment == "buildkit.exporter.image.v0" for entry in found[:-1] if entry.created_by is None)
    assert len(image.config.diff_ids) == sum(not entry.empty_layer for entry in found)


def test_times_of_a_base_stay_with_an_epoch(assemble):
    """The epoch is the time of new entries and of the config, those of the base are not touched."""
    image = assemble(
        "FROM b\nENV a=b\n",
        base(1, history=(History(created=STONE_AGE, created_by="a"),)),
        epoch="2023-11-14T22:13:20Z",
    )

    assert [entry.created for entry in image.config.history] == [STONE_AGE, "2023-11-14T22:13:20Z"]
    assert image.config.created == "2023-11-14T22:13:20Z"


def test_unknown_fields_of_a_base_survive(assemble):
    """What is not known of the config of a base comes through; its triggers and time do not."""
    image = assemble(
        "FROM b\nLABEL a=b\n",
        base(1, created=STONE_AGE, extra={"x.y": {"z": 1}}, config_extra={"NetworkDisabled": True}),
    )

    assert image.config.extra == {"x.y": {"z": 1}}
    assert image.config.config_extra == {"NetworkDisabled": True}


def test_scratch_with_settings_only_is_a_valid_image(assemble):
    """No layers, the default PATH, no shell, no command, `/` as directory."""
    config = assemble("FROM scratch\nLABEL a=b\n").config

    assert config.diff_ids == ()
    assert config.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    assert (config.working_directory, config.shell, config.cmd, config.entrypoint) == ("/", None, None, None)


def test_cmd_is_marked_as_escaped(assemble):
    """CMD sets ArgsEscaped, as BuildKit does on Linux too; ENTRYPOINT does not."""
    assert assemble("FROM scratch\nCMD x\n").config.args_escaped
    assert not assemble("FROM scratch\nENTRYPOINT x\n").config.args_escaped


@pytest.mark.parametrize(
    ("text", "target", "stage"),
    [
        ("FROM scratch AS a\nARG TARGETSTAGE\nENV s=$TARGETSTAGE\nFROM scratch AS b\n", "a", "a"),
        ("FROM scratch AS a\nFROM scratch AS b\nARG TARGETSTAGE\nENV s=$TARGETSTAGE\n", None, "b"),
        ("FROM scratch\nARG TARGETSTAGE\nENV s=$TARGETSTAGE\n", None, "default"),
    ],
)
def test_target_stage_is_the_name_of_the_target(assemble, text, target, stage):
    """TARGETSTAGE is the target, the name of the last stage, or `default`."""
    assert assemble(text, target=target).config.env[-1] == f"s={stage}"
