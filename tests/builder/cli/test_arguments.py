"""Tests of builder.cli.arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cli.arguments import VERBS, HelpRequest, format_overview, parser_for
from builder.cli.build_request import parse_build
from builder.cli.environment import Environment
from builder.errors import BuildError, ContextError, DockerfileError, UsageError
from builder.request import (
    CDI_FOLDERS,
    Annotation,
    CacheRepository,
    CacheSource,
    CacheTarget,
    DeviceGrant,
    DeviceRules,
    Output,
    OutputType,
)
from registry.content.compression import Compression
from registry.errors import RegistryError
from registry.oci.platform import Platform, host_platform
from registry.oci.reference import parse_reference

APP = parse_reference("app:1")
DEVICE_FOLDERS = tuple(Path(folder) for folder in CDI_FOLDERS)


@pytest.fixture
def context(tmp_path):
    """A folder with a Dockerfile, a folder in it, and a Dockerfile there."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Other").write_text("FROM scratch\n")
    return tmp_path


class _Environment(Environment):
    """An environment with standard input."""

    def read_stdin(self):
        return b"\xef\xbb\xbfFROM scratch\n"


def _parse(context, *words, tty=False, **variables):
    environment = _Environment(variables=variables, cwd=context, home=Path("/home/a"), stdout_tty=tty, uid=1000)
    return parse_build(parser_for("build").parse(words), environment)


def test_build_without_options_is_the_current_folder(context):
    """Everything has a value and nothing is left to look up."""
    request = _parse(context)

    assert request.context == context
    assert request.root == Path("/home/a/.local/share/pybuild")
    assert request.platform == request.build_platform == host_platform()
    assert request.outputs == (Output(type=OutputType.IMAGE),)
    assert request.compression == Compression(kind="gzip")
    assert request.jobs >= 1
    assert not request.limits_jobs
    assert _parse(context, "--jobs", "1").limits_jobs
    assert (request.dockerfile, request.dockerfile_text, request.target) == (None, None, None)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["-t", "app:1", "--tag=app:1", "-tb"], "tags", (APP, parse_reference("b"))),
        (["--target", "test"], "target", "test"),
        (["--platform", "arm64"], "platform", Platform("linux", "arm64")),
        (["--platform", "local"], "platform", host_platform()),
        (["--label", "a=b=c", "--label", "d"], "labels", {"a": "b=c", "d": ""}),
        (["--annotation", "index:a=b"], "annotations", (Annotation("index", None, "a", "b"),)),
        (
            ["--platform", "linux/amd64,linux/arm64", "--platform", "linux/arm64"],
            "platforms",
            (Platform("linux", "amd64"), Platform("linux", "arm64")),
        ),
        (["--no-cache"], "no_cache", True),
        (["--no-cache=true"], "no_cache", True),
        (["--no-cache=false"], "no_cache", False),
        (["--cache-to=type=inline"], "inline_cache", True),
        (
            ["--cache-to=type=registry,ref=a,mounts=true,mounts-max-size=2g"],
            "cache_to",
            (CacheTarget(CacheRepository(parse_reference("a")), mounts=True, mounts_limit=2 << 30),),
        ),
        (
            ["--cache-from=type=registry,ref=a,mounts=false"],
            "cache_from",
            (CacheSource(CacheRepository(parse_reference("a")), mounts=False),),
        ),
        (["--build-arg=BUILDKIT_INLINE_CACHE=1"], "inline_cache", True),
        (["--build-arg=BUILDKIT_INLINE_CACHE=0"], "inline_cache", False),
        (["--no-cache-filter", "a,b", "--no-cache-filter", "c"], "no_cache_stages", frozenset("abc")),
        (["--pull"], "pull", True),
        (["--network", "none"], "network", "none"),
        (["--network", "host"], "allow", frozenset({"network.host"})),
        (["--network", "host", "--allow", "device"], "allow", frozenset({"network.host", "device"})),
        (["--allow", "network.host,device"], "allow", frozenset({"network.host", "device"})),
        (["--network", "default"], "allow", frozenset()),
        (["--add-host", "a:1.2.3.4", "--add-host", "b=[::1]"], "add_hosts", (("a", "1.2.3.4"), ("b", "::1"))),
        (["--add-host", "b:[2001:db8::1]"], "add_hosts", (("b", "2001:db8::1"),)),
        (["--shm-size", "128m"], "shm_size", 128 << 20),
        (
            ["--ulimit", "nofile=1024:2048", "--ulimit", "core=-1"],
            "ulimits",
            (("nofile", 1024, 2048), ("core", -1, -1)),
        ),
        (["--compression", "zstd", "--compression-level", "19"], "compression", Compression(kind="zstd", level=19)),
        (["-o", "type=oci,dest=x,compression=zstd"], "compression", Compression(kind="zstd")),
        (["--allow", "device,network.host"], "allow", frozenset({"device", "network.host"})),
        (
            ["--allow", "device", "--cdi-spec-dir", "/", "--cdi-spec-dir=/tmp"],
            "devices",
            DeviceRules(all=True, folders=(Path("/"), Path("/tmp"))),
        ),
        (
            ["--allow", "device=v/c=0,alias=gpu,security.insecure", "--allow=device=v/d"],
            "devices",
            DeviceRules(grants=(DeviceGrant("v/c=0", "gpu"), DeviceGrant("v/d")), folders=DEVICE_FOLDERS),
        ),
        (["--jobs", "7"], "jobs", 7),
        (["--root", "/r"], "root", Path("/r")),
        (
            ["--build-arg", "A=1", "--build-arg", "B", "--build-arg", "C", "--build-arg", "D="],
            "build_args",
            {"A": "1", "B": "b", "D": ""},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_build_option_ends_in_the_request(context, words, field, value):
    """Each option has its place in the request; values without `=` come from the environment."""
    assert getattr(_parse(context, *words, B="b"), field) == value


@pytest.mark.parametrize(
    "words",
    [
        ["sub"],
        ["--context", "sub"],
        ["-t", "x", "sub"],
        ["sub", "-t", "x"],
        ["-t", "x", "sub", "--no-cache"],
        ["--context=sub", "sub"],
    ],
    ids=" ".join,
)
def test_build_context_may_stand_anywhere(context, words):
    """The context is an argument, before or after options, or the value of --context."""
    assert _parse(context, *words).context == context / "sub"


def test_build_dockerfile_is_seen_from_the_current_folder(context):
    """Paths of --file do not start in the context."""
    assert _parse(context, "-f", "sub/Other", "sub").dockerfile == context / "sub" / "Other"
    with pytest.raises(DockerfileError, match="no such file: `Other`") as raised:
        _parse(context, "-f", "Other", "sub")
    assert raised.value.hint == "did you mean sub/Other? paths of --file start at the current folder"


def test_build_dockerfile_may_come_through_standard_input(context):
    """With `-f -` the text is in the request, without byte order mark."""
    request = _parse(context, "-f", "-", ".")

    assert (request.dockerfile, request.dockerfile_text) == (None, "FROM scratch\n")


def test_build_takes_the_epoch_from_the_environment(context):
    """SOURCE_DATE_EPOCH becomes a build argument unless one is given."""
    assert _parse(context, SOURCE_DATE_EPOCH="5").build_args == {"SOURCE_DATE_EPOCH": "5"}
    assert _parse(context, SOURCE_DATE_EPOCH="context").build_args == {"SOURCE_DATE_EPOCH": "context"}
    assert _parse(context, SOURCE_DATE_EPOCH="").build_args == {}
    given = _parse(context, "--build-arg", "SOURCE_DATE_EPOCH=6", SOURCE_DATE_EPOCH="5")
    assert given.build_args == {"SOURCE_DATE_EPOCH": "6"}


def test_build_takes_the_platform_from_the_environment(context):
    """DOCKER_DEFAULT_PLATFORM is what --platform defaults to."""
    assert _parse(context, DOCKER_DEFAULT_PLATFORM="linux/s390x").platform == Platform("linux", "s390x")


IMAGE = OutputType.IMAGE


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        (["-o", "out"], [Output(type=OutputType.LOCAL, destination=Path("out"), names=())]),
        (["-o", "-"], [Output(type=OutputType.TAR)]),
        (["-o", "type=tar"], [Output(type=OutputType.TAR, names=(APP,))]),
        (["-o", "type=tar,dest=-"], [Output(type=OutputType.TAR, names=(APP,))]),
        (["-o", "type=local,dest=a/b"], [Output(type=OutputType.LOCAL, destination=Path("a/b"), names=(APP,))]),
        (["-o", "type=oci,dest=x.tar"], [Output(type=OutputType.OCI, destination=Path("x.tar"), names=(APP,))]),
        (
            ["-o", "type=oci,dest=x,tar=false"],
            [Output(type=OutputType.OCI, destination=Path("x"), tar=False, names=(APP,))],
        ),
        (
            ["-o", 'type=oci,dest=x,"name=a,b"'],
            [Output(type=OutputType.OCI, destination=Path("x"), names=(parse_reference("a"), parse_reference("b")))],
        ),
        (["-o", "type=docker,dest=x"], [Output(type=OutputType.DOCKER, destination=Path("x"), names=(APP,))]),
        (["-o", "type=docker"], [Output(type=IMAGE, names=(APP,))]),
        (["-o", "type=docker,dest=-"], [Output(type=OutputType.DOCKER, names=(APP,))]),
        (["-o", "type=image,push=true"], [Output(type=IMAGE, push=True, names=(APP,))]),
        (["-o", "type=registry"], [Output(type=OutputType.REGISTRY, push=True, names=(APP,))]),
        (["-o", "type=cacheonly"], [Output(type=OutputType.CACHE_ONLY, names=(APP,))]),
        (["--push"], [Output(type=OutputType.REGISTRY, push=True, names=(APP,))]),
        (["--push", "--load"], [Output(type=IMAGE, push=True, names=(APP,))]),
        (["--load"], [Output(type=IMAGE, names=(APP,))]),
        (
            ["-o", "out", "--load"],
            [Output(type=OutputType.LOCAL, destination=Path("out")), Output(type=IMAGE, names=(APP,))],
        ),
        (
            ["-o", "type=oci,dest=x,compression=zstd"],
            [Output(type=OutputType.OCI, destination=Path("x"), names=(APP,), attributes={"compression": "zstd"})],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and isinstance(value[0], str) else None,
)
def test_output_is_read_as_buildx_does(context, words, outputs):
    """Each spelling of an output has its meaning."""
    found = _parse(context, "-t", "app:1", *words).outputs
    expected = [o if o.destination is None else _at(o, context) for o in outputs]

    assert list(found) == expected


def _at(output, context):
    from registry.value import replace  # noqa: PLC0415

    return replace(output, destination=context / output.destination)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--taag", "x"], "unknown option of `pybuild build`: `--taag`", "did you mean --tag?"),
        (["-x"], "unknown option of `pybuild build`: `-x`", "see `pybuild build --help`"),
        (["--dockerfile", "x"], "unknown option of `pybuild build`: `--dockerfile`", "pybuild calls it --file"),
        (
            ["--secret", "src=a"],
            "option --secret: an id= is missing: `src=a`",
            "write it like id=NAME,src=FILE or id=NAME,env=VARIABLE",
        ),
        (
            ["--allow", "everything"],
            "option --allow: unknown entitlement `everything`",
            "use network.host, security.insecure, device",
        ),
        (["--allow", "device=gpu"], "option --allow: invalid device: `gpu`", "write it like device=vendor.com/class"),
        (["--cdi-spec-dir", "none"], "option --cdi-spec-dir: no such folder: `none`", None),
        (
            ["--cache-to=type=local"],
            "option --cache-to: a dest= is missing: `type=local`",
            "write it like type=local,dest=DIR",
        ),
        (
            ["--cache-to=type=inline,mode=max"],
            "option --cache-to: an image holds the cache of its own steps only, not mode=max",
            "use mode=min, or type=registry,mode=max",
        ),
        (
            ["--cache-from=type=inline"],
            "option --cache-from: a cache within an image is imported from where the image is",
            "name the image: type=registry,ref=IMAGE",
        ),
        (
            ["--cache-to=type=local,dest=d,mounts=true,mounts-max-size=large"],
            "invalid size for --cache-to: mounts-max-size: `large`",
            "write it like 64m, 512k or 1g",
        ),
        (
            ["--cache-from=type=local,src=d,mounts=some"],
            "option --cache-from: mounts is true or false, not `some`",
            None,
        ),
        (
            ["--cache-to=type=azblob"],
            "option --cache-to: type is not supported: `azblob`",
            "use local, registry, s3 or gha",
        ),
        (
            ["--cache-from=type=azblob"],
            "option --cache-from: type is not supported: `azblob`",
            "use local, registry, s3 or gha",
        ),
        (["--cache-from=type=regist"], "option --cache-from: unknown type: `regist`", "did you mean registry?"),
        (["--cache-to=type=local,dest=d,mode=all"], "option --cache-to: unknown mode: `all`", "use min or max"),
        (
            ["--cache-to=type=registry,ref=a,compression=zstd"],
            "option --cache-to: layers are exported as the build makes them, not as `zstd`",
            "use --compression zstd for the build",
        ),
        (
            ["--cache-to=type=registry,ref=a,oci-mediatypes=false"],
            "option --cache-to: a cache is an OCI image manifest, oci-mediatypes cannot be false",
            "drop it",
        ),
        (
            ["--cache-to=type=local,dest=d,mod=max"],
            "option --cache-to: key is not supported with type=local: `mod`",
            "did you mean mode?",
        ),
        (["--ssh", "=a"], "option --ssh: an id is missing: `=a`", "write --ssh default or --ssh ID=KEY"),
        (["--tag"], "option --tag: a value is missing", "see `pybuild build --help`"),
        (["--push=x"], "option --push takes no value: `x`", "see `pybuild build --help`"),
        ([".", "sub"], "surplus argument for `pybuild build`: `sub`", ...),
        (["--context", ".", "sub"], "two contexts are given: `.` and `sub`", "drop one of them"),
        (["nowhere"], "unable to prepare context: path not found: `nowhere`", None),
        (["imags"], "unable to prepare context: path not found: `imags`", "did you mean `pybuild images`?"),
        (
            ["Dockerfile"],
            "unable to prepare context: not a folder: `Dockerfile`",
            "for a Dockerfile, use --file Dockerfile",
        ),
        (["-f", "sub"], "failed to read dockerfile, it is a folder: `sub`", "use --file sub/Dockerfile"),
        (["-f", "-", "-"], "the context and the Dockerfile cannot both come from standard input", None),
        (["--build-context", "a"], "option --build-context: not a name and a value: `a`", "write it like NAME=DIR"),
        (
            ["--build-context", "scratch=."],
            "option --build-context: the name cannot be replaced: `scratch`",
            "use another name",
        ),
        (["--platform", "a/b/c/d"], "invalid platform, expected os/architecture[/variant]: `a/b/c/d`", ...),
        (["-t", "App"], "invalid image reference, the repository must be lower case: `App`", "did you mean `app`?"),
        (
            ["-t", "a@sha256:" + "0" * 64],
            "option --tag: a new image cannot be named by digest: `a@sha256:" + "0" * 64 + "`",
            "use a tag",
        ),
        (["--build-arg", "=x"], "option --build-arg: the name is empty: `=x`", "write it like NAME=VALUE"),
        (["--label", "=x"], "option --label: the name is empty: `=x`", "write it like NAME=VALUE"),
        (["--push"], "an image needs a name to be pushed", "name it with --tag HOST/NAME:TAG"),
        (["-o", "type=ocy,dest=x"], "option --output: unknown type: `ocy`", "did you mean oci?"),
        (
            ["-o", "type=oci,dset=x"],
            "option --output: key is not supported with type=oci: `dset`",
            "did you mean dest?",
        ),
        (["-o", "dest=x,y=z"], "option --output: a type= is missing: `dest=x,y=z`", ...),
        (["-o", "type=local"], "option --output: a dest= is missing: `type=local`", None),
        (
            ["-o", "type=local,dest=-"],
            "option --output: a folder cannot go to standard output: `type=local,dest=-`",
            None,
        ),
        (
            ["-o", "type=oci,tar=false,dest=-"],
            "option --output: a folder cannot go to standard output: `type=oci,tar=false,dest=-`",
            None,
        ),
        (["-o", "type=oci,tar=maybe,dest=x"], "option --output: tar is true or false, not `maybe`", None),
        (["-o", "-", "-o", "type=oci"], "two outputs go to standard output", "give one of them a dest="),
        (["-o", 'type=oci,"dest=x'], 'unbalanced quotes: `type=oci,"dest=x`', None),
        (["--network", "bridge"], "option --network: unknown mode: `bridge`", "use default, none or host"),
        (["--add-host", "a"], "option --add-host: not a name and an address: `a`", "write it like HOST:IP"),
        (["--add-host", "a:b"], "option --add-host: not an address: `b`", "write it like HOST:IP"),
        (["--add-host", "a:host-gateway"], "option --add-host: host-gateway is not supported yet", "give an address"),
        (["--ulimit", "nofiles=1"], "option --ulimit: unknown limit: `nofiles`", "did you mean nofile?"),
        (["--ulimit", "nofile=2:1"], "option --ulimit: the soft limit is above the hard one: `nofile=2:1`", None),
        (["--ulimit", "nofile"], "option --ulimit: not a number: `nofile`", ...),
        (["--jobs", "0"], "option --jobs: at least one is needed", None),
        (["--jobs", "many"], "option --jobs: not a number: `many`", None),
        (["--shm-size", "big"], "invalid size for --shm-size: `big`", ...),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_build_mistake_is_explained(context, words, message, hint):
    """A wrong command line gets one line that says what is wrong, and a hint where there is one."""
    with pytest.raises((BuildError, RegistryError)) as raised:
        _parse(context, *words)

    assert raised.value.message == message
    assert raised.value.exit_code == 2
    if hint is not ...:
        assert raised.value.hint == hint


def test_archive_is_not_written_to_a_terminal(context):
    """Nobody wants a tar on the screen."""
    with pytest.raises(UsageError, match="refusing to write an archive to a terminal"):
        _parse(context, "-o", "-", tty=True)


def test_context_error_is_one_of_the_context(context):
    """A missing context is told as BuildKit's clients do."""
    with pytest.raises(ContextError, match="unable to prepare context"):
        _parse(context, "nowhere")


def test_run_passes_options_after_the_image_on():
    """What follows the image belongs to the command."""
    arguments = parser_for("run").parse(["--rm", "-e", "A=1", "app:1", "ls", "-l", "--push=true"])

    assert (arguments.image, arguments.command, arguments.env) == ("app:1", ["ls", "-l", "--push=true"], ["A=1"])


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_usage_and_options(verb):
    """Every verb explains itself, no line wider than a terminal."""
    with pytest.raises(HelpRequest) as raised:
        parser_for(verb).parse(["--help"])
    text = raised.value.text

    assert text.startswith(f"Usage:  pybuild {verb} [OPTIONS]")
    assert f"\n\n{VERBS[verb]}\n\n" in text
    assert "  -h, --help                    Show this help\n" in text
    assert "\nExamples:\n" in text
    assert max(map(len, text.splitlines())) <= 110


def test_overview_lists_every_verb():
    """Nothing is hidden."""
    assert all(f"\n  {verb} " in format_overview() for verb in VERBS)


@pytest.mark.parametrize("verb", ["tag", "rmi", "pull", "inspect", "history", "save", "import", "run", "push"])
def test_missing_arguments_show_the_usage(verb):
    """A verb that lacks its arguments says which."""
    with pytest.raises(UsageError, match=f"`pybuild {verb}` needs ") as raised:
        parser_for(verb).parse([])
    assert raised.value.hint.startswith(f"usage: pybuild {verb} [OPTIONS] ")


@pytest.mark.parametrize(
    "text", ["https://github.com/a/b.git#main", "github.com/a/b", "git@h:a/b.git", "https://h/c.tar"]
)
def test_context_that_is_an_address_stays_text(context, text):
    """Its Dockerfile is named by a path in it, or by an address of its own."""
    assert _parse(context, text, "-f", "sub/Dockerfile").context == text
    assert _parse(context, text, "-f", "https://h/df").dockerfile_url == "https://h/df"


def test_named_contexts_are_folders_or_addresses(context):
    """Folders and layouts become absolute."""
    given = ["a=sub", "b=docker-image://x:1", "c=oci-layout://lay:1", "d=https://h/x.git"]
    found = _parse(context, *[word for text in given for word in ("--build-context", text)]).build_contexts

    assert found["b"] == "docker-image://x:1"
    assert found["d"] == "https://h/x.git"
    assert str(found["c"]).startswith("oci-layout:///")
    assert found["a"].is_absolute()
