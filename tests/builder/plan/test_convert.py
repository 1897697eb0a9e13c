"""From Dockerfiles to plans: vertices, config and history text."""

from pathlib import Path

import pytest

from builder.dockerfile.mounts import Device
from builder.dockerfile.stages import parse_dockerfile
from builder.errors import DockerfileError, UsageError
from builder.plan.convert import convert
from builder.plan.graph import BaseImage, CopyFiles, EmptyFileSystem, MakeDirectory, Plan, RunCommand
from builder.request import BuildRequest, DeviceGrant, DeviceRules
from builder.source import SourceFile
from registry.content.compression import Compression
from registry.content.image import Image
from registry.oci.descriptor import Descriptor
from registry.oci.digest import digest_of
from registry.oci.image_config import ImageConfig
from registry.oci.media_types import OCI_LAYER_GZIP
from registry.oci.platform import Platform
from tests.fakes.image import compose_image

LINUX = Platform("linux", "amd64")


def image(**config):
    """Make an image of one layer with a config."""
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"layer"), size=5)
    return compose_image(ImageConfig(platform=LINUX, diff_ids=(digest_of(b"tar"),), **config), [layer])


def plan(text: str, images: dict[str, Image] | None = None, **wishes) -> Plan:
    """Plan a Dockerfile; unknown images are an error."""
    request = BuildRequest(
        context=Path("/context"),
        root=Path("/root"),
        platform=LINUX,
        build_platform=LINUX,
        compression=Compression(),
        **wishes,
    )
    return convert(
        parse_dockerfile(SourceFile("Dockerfile", text)),
        request,
        lambda reference, _platform, _span: (images or {})[reference.familiar()],
    )


def history(text: str, **wishes) -> list[str]:
    """Give the history text of a Dockerfile's own instructions."""
    return [draft.created_by for draft in plan(text, **wishes).history]


def test_scratch_config_has_root_directory_and_default_path():
    """A stage from scratch works in `/` with the default PATH and has no layers."""
    result = plan("FROM scratch\nLABEL a=b")

    assert result.vertex is None
    assert result.config.working_directory == "/"
    assert result.config.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    assert result.config.labels == {"a": "b"}


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        ("ENV a=b c='d e'", "ENV a=b c=d e"),
        ("LABEL x=y", "LABEL x=y"),
        ("EXPOSE 5000 2375/TCP 1234/udp", "EXPOSE [1234/udp 2375/tcp 5000/tcp]"),
        ("EXPOSE 80-82", "EXPOSE [80/tcp 81/tcp 82/tcp]"),
        ("EXPOSE 1000 999 998-999 999", "EXPOSE [1000/tcp 998/tcp 999/tcp 999/tcp 999/tcp]"),
        ("VOLUME /a /b", "VOLUME [/a /b]"),
        ("USER me:us", "USER me:us"),
        ("WORKDIR /", "WORKDIR /"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM"),
        ('SHELL ["/bin/bash", "-c"]', "SHELL [/bin/bash -c]"),
        ("CMD x", 'CMD ["/bin/sh" "-c" "x"]'),
        ('ENTRYPOINT ["a\\"b", "c"]', 'ENTRYPOINT ["a\\"b" "c"]'),
        ("ARG a=1 b", "ARG a=1 b"),
        ("MAINTAINER me", "MAINTAINER me"),
        (
            "HEALTHCHECK --interval=5m --timeout=1500ms --retries=3 CMD curl x",
            'HEALTHCHECK &{["CMD-SHELL" "curl x"] "5m0s" "1.5s" "0s" "0s" \'\\x03\'}',
        ),
        ("RUN make", "RUN /bin/sh -c make # buildkit"),
        ('RUN ["make", "all"]', "RUN make all # buildkit"),
        ("COPY --chown=1:2 --chmod=755 a b /c/", "COPY --chown=1:2 --chmod=755 a b /c/ # buildkit"),
        ("ADD a /c", "ADD a /c # buildkit"),
    ],
)
def test_history_text_is_that_of_buildkit(instruction, text):
    """Each instruction leaves the history text that BuildKit writes."""
    assert history(f"FROM scratch\n{instruction}") == [text]


def test_run_history_names_each_argument_once_with_its_last_value():
    """ARGs in scope stand before the command of a RUN, in the order of their declaration."""
    text = "FROM scratch\nARG a=1\nARG b=2\nARG a=3\nRUN x"

    assert history(text)[-1] == "RUN |2 a=3 b=2 /bin/sh -c x # buildkit"


def test_env_of_one_instruction_sees_the_state_before_it():
    """All words of one ENV are expanded with the old values."""
    result = plan("FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc")

    assert result.config.env[1:] == ("abc=bye", "def=hello", "ghi=bye")


def test_global_argument_reaches_a_stage_only_when_declared_again():
    """An ARG before the first FROM is empty in a stage that does not name it."""
    result = plan("ARG V=1\nFROM scratch\nENV before=$V\nARG V\nENV after=$V")

    assert result.config.env[1:] == ("before=", "after=1")


def test_given_argument_is_taken_without_evaluating_the_default():
    """A --build-arg wins, and a default that would fail is not looked at."""
    result = plan("FROM scratch\nARG B=${A:?x}\nENV b=$B", build_args={"B": "1"})

    assert result.config.env[-1] == "b=1"


def test_environment_of_run_takes_the_later_of_argument_and_variable():
    """ENV after ARG wins, and ARG after ENV wins for the steps but not in the image."""
    result = plan("FROM scratch\nARG X=arg\nENV X=env\nRUN one\nARG X=again\nRUN two")
    runs = [vertex.op for vertex in result.vertices() if isinstance(vertex.op, RunCommand)]

    assert [dict(run.environ)["X"] for run in runs] == ["env", "again"]
    assert result.config.env[-1] == "X=env"


def test_proxy_arguments_reach_run_but_neither_key_nor_history():
    """Proxy variables are given in both cases and leave no trace."""
    plain = plan("FROM scratch\nRUN x")
    proxied = plan("FROM scratch\nRUN x", build_args={"http_proxy": "http://user:secret@host"})
    op = proxied.vertex.op

    assert dict(op.hidden_environ) == dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://user:secret@host")
    assert op.ingredients() == plain.vertex.op.ingredients()
    assert "secret" not in str(proxied.history[-1].created_by)


def test_only_stages_the_target_needs_are_planned():
    """A stage nobody copies from is not looked at, not even its base image."""
    result = plan(
        "FROM nowhere AS unused\nRUN false\nFROM scratch AS used\nCOPY a /\nFROM scratch\nCOPY --from=used / /"
    )

    assert [vertex.text for vertex in result.vertices()] == ["COPY a /", "COPY --from=used / /"]


def test_stage_inherits_config_history_and_arguments_of_its_base_stage():
    """FROM of a stage goes on where that stage ended."""
    result = plan("FROM scratch AS base\nARG V=1\nENV E=2\nWORKDIR /w\nFROM base\nRUN x")
    run = result.vertex.op

    assert dict(run.environ) == {"PATH": run.environ[0][1], "V": "1", "E": "2"}
    assert run.cwd == "/w"
    assert [draft.created_by for draft in result.history] == [
        "ARG V=1",
        "ENV E=2",
        "WORKDIR /w",
        "RUN |1 V=1 /bin/sh -c x # buildkit",
    ]


def test_base_image_config_is_kept_and_its_triggers_fire():
    """Unknown fields survive, PATH is added, ONBUILD runs in the child and is cleared."""
    base = image(env=("A=1",), on_build=("RUN trigger",), config_extra={"Odd": 1}, user="me")
    result = plan("FROM base\nRUN own", {"base:latest": base})

    assert [vertex.text for vertex in result.vertices()] == ["FROM base", "RUN trigger", "RUN own"]
    assert result.config.on_build == ()
    assert result.config.config_extra == {"Odd": 1}
    assert result.config.env[0] == "A=1"
    assert result.config.env[1].startswith("PATH=")
    assert result.vertex.op.user == "me"


def test_entrypoint_clears_an_inherited_command_but_not_its_own():
    """ENTRYPOINT drops the CMD of the base, and keeps one that the stage set before."""
    base = image(cmd=("base",))

    assert plan('FROM base\nENTRYPOINT ["e"]', {"base:latest": base}).config.cmd is None
    assert plan('FROM base\nCMD ["own"]\nENTRYPOINT ["e"]', {"base:latest": base}).config.cmd == ("own",)


def test_working_directories_are_joined_and_made():
    """A relative WORKDIR goes below the one before; an absolute one is stored as written."""
    result = plan("FROM scratch\nWORKDIR /a/../b//c/\nWORKDIR d\nUSER u\nWORKDIR e")
    made = [vertex.op for vertex in result.vertices()]

    assert made == [
        MakeDirectory(path="/b/c", user=""),
        MakeDirectory(path="/b/c/d", user=""),
        MakeDirectory(path="/b/c/d/e", user="u"),
    ]
    assert result.config.working_directory == "/b/c/d/e"


def test_copy_from_a_stage_without_layers_reads_the_empty_file_system():
    """A source stage that is scratch is an input all the same."""
    result = plan("FROM scratch AS nothing\nFROM scratch\nCOPY --from=nothing / /x/")

    assert isinstance(result.vertex.op, CopyFiles)
    assert isinstance(result.vertex.sources[0].op, EmptyFileSystem)


def test_copy_from_an_image_is_planned_once():
    """Two COPY --from of one image share its vertex."""
    result = plan("FROM scratch\nCOPY --from=tool a /\nCOPY --from=tool b /", {"tool:latest": image()})

    assert sum(isinstance(vertex.op, BaseImage) for vertex in result.vertices()) == 1


def test_equal_steps_are_one_vertex():
    """Two stages that say the same share their steps."""
    result = plan(
        "FROM scratch AS a\nRUN x\nFROM scratch AS b\nRUN x\nFROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b"
    )

    assert sum(isinstance(vertex.op, RunCommand) for vertex in result.vertices()) == 1


def test_step_names_count_the_steps_of_their_stage():
    """Names carry the stage and the number among the steps that make layers."""
    result = plan("FROM scratch AS build\nENV a=b\nRUN x\nCOPY a /\nFROM scratch\nCOPY --from=build / /")

    assert [vertex.name for vertex in result.vertices()] == [
        "[build 2/3] RUN x",
        "[build 3/3] COPY a /",
        "[stage-1 2/2] COPY --from=build / /",
    ]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("FROM scratch\nSTOPSIGNAL nope", "Invalid signal: nope", 2),
        ("FROM scratch\nSTOPSIGNAL 0", "Invalid signal: 0", 2),
        ("FROM scratch\nSTOPSIGNAL " + "9" * 5000, "Invalid signal: 999", 2),
        ("ARG X\nFROM ${X}", "should not be blank", 2),
        (
            "FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nFROM a",
            "needs to be defined before current stage",
            2,
        ),
        ("FROM scratch AS a\nCOPY --from=a x /", "circular dependency detected on stage: a", 2),
        ("FROM scratch\nCOPY --from=0 x /", "circular dependency detected on stage: stage-0", 2),
        ("FROM scratch\nCOPY --from=1 x /", "invalid stage index 1", 2),
        ("FROM scratch\nCOPY --from=" + "9" * 5000 + " x /", "invalid stage index 9", 2),
        ("FROM scratch AS a\nCOPY --from=1 x /\nFROM a", "needs to be defined before current stage", 2),
        ("FROM scratch\nCOPY git@host.example:a/b.git /", "source can't be a git ref for COPY", 2),
        ("FROM scratch\nARG X\nCOPY --from=$X a /", "variable expansion is not supported for --from", 3),
        ("FROM scratch\nCOPY https://x/y /", "source can't be a URL for COPY", 2),
        ("FROM scratch\nEXPOSE 99999", "invalid containerPort: 99999", 2),
        ("FROM scratch\nENV a=${x:?missing}", "missing", 2),
        ("FROM scratch\nRUN --device=/dev/zero true", "invalid device: `/dev/zero`", 2),
        ("FROM Upper", "lower", 1),
    ],
)
def test_convert_refuses_with_the_place(text, message, line):
    """What cannot be carried out as written is refused at its line."""
    with pytest.raises(DockerfileError, match=message.replace("$", r"\$")) as caught:
        plan(text)

    assert caught.value.span.line == line


def test_target_that_is_misspelt_is_refused_with_a_suggestion():
    """An unknown --target names the nearest stage."""
    with pytest.raises(UsageError, match="bulid") as caught:
        plan("FROM scratch AS build", target="bulid")

    assert "build" in f"{caught.value.message} {caught.value.hint}"


def test_devices_are_asked_for_by_their_own_names():
    """An alias of `--allow` is replaced, a device that is asked for twice stands once, required if it is once."""
    text = "FROM scratch\nRUN --device=gpu --device=v/c=1,required --device=v/c=0 --device=v/c=1 true"
    rules = DeviceRules(grants=(DeviceGrant("v/c=0", "gpu"),))

    assert plan(text, devices=rules).vertex.op.devices == (
        Device(name="v/c=0"),
        Device(name="v/c=1", required=True),
    )


@pytest.mark.parametrize("other", ["", "--device=v/c=1", "--device=v/c=0,required", "--device=v/c=0 --device=v/d"])
def test_devices_that_are_asked_for_are_in_the_key(other):
    """Another device, or the same one required, is another step."""
    first = plan("FROM scratch\nRUN --device=v/c=0 true").vertex

    assert first.digest == plan("FROM scratch\nRUN --device=name=v/c=0 true").vertex.digest
    assert first.op.ingredients() != plan(f"FROM scratch\nRUN {other} true").vertex.op.ingredients()


@pytest.mark.parametrize(
    ("flag", "wish", "expected"),
    [
        ("", "default", "default"),
        ("", "none", "none"),
        ("", "host", "host"),
        ("--network=default", "host", "host"),
        ("--network=none", "host", "none"),
        ("--network=host", "default", "host"),
    ],
)
def test_network_of_a_step_is_what_was_asked_for(flag, wish, expected):
    """The network of a RUN is its own wish, else the build's; the machine has no say in it."""
    steps = plan(f"FROM scratch\nRUN {flag} true\n", network=wish, allow=frozenset({"network.host"})).vertices()

    assert [vertex.op.network for vertex in steps if isinstance(vertex.op, RunCommand)] == [expected]


def test_variables_of_args_are_told_from_those_of_env():
    """An ENV that follows an ARG of its name makes it a variable of the image."""
    vertex = plan("FROM scratch\nARG A=1\nARG B=1\nARG C\nENV B=2 D=3\nRUN x").vertex

    assert vertex.op.build_args == {"A"}


@pytest.mark.parametrize(("platforms", "name"), [((), ""), ((LINUX, Platform("linux", "arm64")), "linux/amd64")])
def test_step_knows_its_platform_where_there_are_several(platforms, name):
    """As its name does."""
    assert plan("FROM scratch\nRUN x", platforms=platforms).vertex.platform == name
