"""Tests of builder.cli.kaniko_options and builder.cli.kaniko_request."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cli.arguments import HelpRequest, parser_for
from builder.cli.build_request import parse_build
from builder.cli.environment import Environment
from builder.cli.kaniko_options import FLAGS
from builder.cli.kaniko_request import DigestFiles, parse_kaniko
from builder.cli.registries import load_settings
from builder.errors import ContextError, UsageError
from builder.request import CacheRepository, CacheSource, CacheTarget, Output, OutputType
from registry.content.compression import Compression
from registry.oci.platform import Platform
from registry.oci.reference import parse_reference

APP = parse_reference("reg.example.com/team/app:1")
NEXT = parse_reference("reg.example.com/team/app:next")
CACHE = parse_reference("reg.example.com/team/app/cache")


@pytest.fixture
def context(tmp_path):
    """A folder with a Dockerfile, a folder in it, a Dockerfile there, and the tar of a context."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Other").write_text("FROM scratch\n")
    (tmp_path / "context.tar").write_bytes(b"")
    return tmp_path


def _environment(context, **variables):
    return Environment(variables=variables, cwd=context, home=Path("/home/a"), uid=1000)


def _translate(context, *words, **variables):
    environment = _environment(context, **variables)
    return parse_kaniko(parser_for("kaniko").parse(words), environment)


def _request(context, *words, **variables):
    """Return the request of a command line with a context and a destination, unless it has its own."""
    given = list(words)
    if not any(word.startswith(("--context=", "-c")) for word in words):
        given.append("--context=dir://.")
    if "--no-push" not in words and "-d" not in words:
        given.append(f"--destination={APP}")
    asked = _translate(context, *given, **variables)
    stream = asked.archive.open("rb") if asked.archive else None
    try:
        return parse_build(parser_for("build").parse(asked.words), _environment(context, **variables), archive=stream)
    finally:
        if stream is not None:
            stream.close()


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ([], "tags", (APP,)),
        ([], "outputs", (Output(type=OutputType.REGISTRY, names=(APP,), push=True),)),
        (["-d", str(APP), "-d", str(NEXT)], "tags", (APP, NEXT)),
        (["--no-push"], "outputs", (Output(type=OutputType.IMAGE),)),
        (["--no-push=false"], "outputs", (Output(type=OutputType.REGISTRY, names=(APP,), push=True),)),
        (["--target", "test"], "target", "test"),
        (
            ["--build-arg", "A=b=c", "--build-arg=B", "--build-arg=HERE"],
            "build_args",
            {"A": "b=c", "B": "", "HERE": "1"},
        ),
        (["--label", "a=b"], "labels", {"a": "b"}),
        (["--custom-platform", "linux/arm64"], "platform", Platform("linux", "arm64")),
        (["--customPlatform=linux/arm64"], "platform", Platform("linux", "arm64")),
        (["--compression", "zstd", "--compression-level", "7"], "compression", Compression.parse("zstd", "7")),
        (["--compression-level", "-1"], "compression", Compression.parse("gzip")),
        (["--cache=false"], "no_cache", True),
        (["--cache=false", "--cache"], "no_cache", False),
        ([], "no_cache", False),
        (["--cache"], "cache_from", (CacheSource(CacheRepository(CACHE)),)),
        (["--cache=true"], "cache_to", (CacheTarget(CacheRepository(CACHE), all_steps=True, ignore_error=True),)),
        (["--cache", "--no-push-cache"], "cache_to", ()),
        (["--cache", "--no-push"], "cache_from", ()),
        (
            ["--cache", "--cache-repo", "reg.example.com/c"],
            "cache_from",
            (CacheSource(CacheRepository(parse_reference("reg.example.com/c"))),),
        ),
        (["--cache-repo", "reg.example.com/c"], "cache_from", ()),
        (
            ["--context=tar://stdin", "--context=https://example.com/a.tar.gz"],
            "context",
            "https://example.com/a.tar.gz",
        ),
        (
            ["--context=git://example.com/a/b"],
            "context",
            "https://example.com/a/b.git?submodules=false",
        ),
        (
            ["--context=git://example.com/a/b.git#refs/heads/x#0123456", "--context-sub-path=/in/it/"],
            "context",
            "https://example.com/a/b.git?submodules=false&checksum=0123456#refs/heads/x:in/it",
        ),
        (
            ["--context=https://example.com/a/b.git", "--git=branch=x,single-branch=true,recurse-submodules=true"],
            "context",
            "https://example.com/a/b.git#refs/heads/x",
        ),
        (["--context=git://example.com/a.git", "-fci/Dockerfile"], "dockerfile", Path("ci/Dockerfile")),
        (["-f", "https://example.com/Dockerfile"], "dockerfile_url", "https://example.com/Dockerfile"),
    ],
)
def test_flags_reach_the_request(context, words, field, value):
    """Each flag that is carried out has its field."""
    assert getattr(_request(context, *words, HERE="1"), field) == value


@pytest.mark.parametrize(
    "words", [["--context=dir://sub"], ["-c", "sub"], ["--context=dir://.", "--context-sub-path=sub"]]
)
def test_context_may_be_a_folder(context, words):
    """A folder is named with or without its scheme; a part of it may count alone."""
    assert _request(context, *words, f"-d={APP}").context == context / "sub"


@pytest.mark.parametrize("file", ["sub/Other", "Other"])
def test_dockerfile_is_looked_for_here_and_in_the_context(context, file):
    """The path of `--dockerfile` starts here, else in the context."""
    assert _request(context, "--context=dir://sub", "-f", file).dockerfile == context / "sub" / "Other"


def test_tar_is_read_from_its_file(context):
    """`tar://FILE` is the context, and standard input is left alone."""
    request = _request(context, "--context=tar://context.tar")

    assert request.context == "-"
    assert request.stdin.name == str(context / "context.tar")


def test_files_take_the_image_too(context):
    """Archive and layout come besides the push, or instead of it; a comma in a path is kept."""
    both = ["--tar-path", "a,b.tar", "--oci-layout-path=out"]
    files = (
        Output(type=OutputType.DOCKER, destination=context / "a,b.tar", names=(APP,)),
        Output(type=OutputType.OCI, destination=context / "out", names=(APP,), tar=False),
    )

    assert _request(context, *both).outputs == (Output(type=OutputType.REGISTRY, names=(APP,), push=True), *files)
    assert _request(context, *both, "--no-push", f"--destination={APP}").outputs == files


def test_reproducible_sets_all_times(context):
    """`--reproducible` is the epoch 0 with times rewritten in every output; a build argument counts more."""
    request = _request(context, "--reproducible", "--tarPath=a.tar", SOURCE_DATE_EPOCH="5")

    assert request.build_args == {"SOURCE_DATE_EPOCH": "0"}
    assert [output.attributes for output in request.outputs] == [{"rewrite-timestamp": "true"}] * 2
    own = _request(context, "--reproducible", "--build-arg=SOURCE_DATE_EPOCH=7")
    assert own.build_args == {"SOURCE_DATE_EPOCH": "7"}


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        (["--insecure"], {"reg.example.com"}),
        (["--skip-tls-verify"], {"reg.example.com"}),
        (["--insecure", "--cache", "--cache-repo=c.example.com/c"], {"reg.example.com", "c.example.com"}),
        (["--insecure=false"], set()),
        (["--insecure-registry=a:1", "--skip-tls-verify-registry=b"], {"a:1", "b"}),
        (["--insecure", "--no-push"], set()),
    ],
)
def test_only_named_registries_are_insecure(context, words, hosts):
    """What is pushed to with `--insecure`, and what is named, is insecure; nothing else."""
    asked = _translate(context, "-c.", f"-d{APP}", *words)
    options = parser_for("build").parse(asked.words)

    assert set(options.insecure_registry) == hosts


def test_mirrors_are_asked_before_docker_io(context):
    """`--registry-mirror` and `$KANIKO_REGISTRY_MIRROR` come in order, then docker.io."""
    asked = _translate(context, "-c.", "--no-push", "--registry-mirror=m:1/p", KANIKO_REGISTRY_MIRROR="n.example.com")
    settings = load_settings(_environment(context, CONTAINERS_REGISTRIES_CONF="/none"), (), asked.additions)
    endpoints = settings.pull_endpoints(parse_reference("alpine"))

    assert [(end.host.name, end.repository) for end in endpoints] == [
        ("m:1", "p/library/alpine"),
        ("n.example.com", "library/alpine"),
        ("docker.io", "library/alpine"),
    ]
    assert [end.is_mirror for end in endpoints] == [True, True, False]
    assert settings.pull_endpoints(APP)[0].host.name == "reg.example.com"


def test_mirrors_can_stand_alone(context):
    """`--skip-default-registry-fallback` leaves docker.io out, for pulls only."""
    words = ["--registry-mirror=m:1", "--registry-mirror=n:1", "--skip-default-registry-fallback"]
    asked = _translate(context, "-c.", "--no-push", *words)
    settings = load_settings(_environment(context, CONTAINERS_REGISTRIES_CONF="/none"), (), asked.additions)
    alpine = parse_reference("alpine")

    assert [end.host.name for end in settings.pull_endpoints(alpine)] == ["m:1", "n:1"]
    assert settings.push_endpoint(alpine).host.name == "docker.io"


def test_credentials_of_kaniko_count_least(context):
    """`/kaniko/.docker/config.json` is read after all others, and not where a file is named."""
    asked = _translate(context, "-c.", "--no-push")
    moved = _translate(context, "-c.", "--no-push", "--kaniko-dir=k")
    named = _translate(context, "-c.", "--no-push", REGISTRY_AUTH_FILE="/auth.json")

    settings = load_settings(_environment(context, CONTAINERS_REGISTRIES_CONF="/none"), (), asked.additions)
    assert settings.auth_files[-2:] == (Path("/home/a/.docker/config.json"), Path("/kaniko/.docker/config.json"))
    assert moved.additions.auth_files == (context / "k" / ".docker" / "config.json",)
    assert named.additions.auth_files == ()


def test_certificates_are_laid_out_by_host(context):
    """Authorities and our own certificates have the names of certs.d."""
    files = [context / name for name in ("ca", "cert", "key")]
    for file in files:
        file.write_text("")
    words = ["--registry-certificate=r:1=ca", "--registry-client-cert=r:1=cert,key"]

    found = _translate(context, "-c.", "--no-push", *words).certificates

    assert found == {"r:1": dict(zip(("ca.crt", "client.cert", "client.key"), files, strict=True))}


def test_digest_files_start_here(context):
    """The three files of digests are paths from the working directory."""
    words = ["--digest-file=a", "--image-name-with-digest-file=b/c", "--image-name-tag-with-digest-file=/d"]

    files = _translate(context, "-c.", f"-d{APP}", *words).digest_files

    assert files == DigestFiles(digest=context / "a", named=context / "b" / "c", tagged=Path("/d"))


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ([], None),
        (["-v", "debug"], "plain"),
        (["--verbosity=error", "--log-format=json"], "quiet"),
        (["--log-format=json"], "rawjson"),
        (["--log-format", "text"], "plain"),
    ],
)
def test_verbosity_is_a_mode_of_progress(context, words, mode):
    """Levels and forms of kaniko's log choose how progress is shown."""
    asked = _translate(context, "-c.", "--no-push", *words)

    assert parser_for("build").parse(asked.words).progress == mode


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.note], ids=lambda flag: flag.name)
def test_flag_without_effect_is_named_once(context, flag):
    """A flag that changes nothing is accepted with one line, and only when it is given."""
    word = f"{flag.name}=x" if flag.metavar else flag.name
    silent = _translate(context, "-c.", f"-d{APP}")
    given = _translate(context, "-c.", f"-d{APP}", word, word)

    assert silent.notes == ()
    assert given.notes == (f"{flag.name} {flag.note}",)
    assert given.words == silent.words


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.refusal], ids=lambda flag: flag.name)
def test_refused_flag_says_what_to_use(context, flag):
    """A flag that cannot be carried out is refused, unless it is switched off."""
    with pytest.raises(UsageError, match=f"option {flag.name} is not supported: ") as raised:
        _translate(context, "-c.", "--no-push", f"{flag.name}=x" if flag.metavar else flag.name)
    assert raised.value.hint
    if not flag.metavar:
        assert _translate(context, "-c.", "--no-push", f"{flag.name}=false").words


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["--no-push"], "--no-push: the image is kept in the store"),
        (["--cache-repo=c"], "--cache-repo has no effect without --cache"),
        (["--cache", "--no-push", "--tar-path=a"], "--cache with --no-push, without --cache-repo: only the cache of"),
        (["--cache"], f"--cache: the cache at {CACHE.registry}/{CACHE.repository} is in pybuild's form"),
        (["--insecure"], "--insecure: reg.example.com may use plain HTTP or any certificate, for pulls too"),
        (["--insecure-registry=a:1"], "--insecure-registry: a:1 may use plain HTTP or any certificate"),
        (["--git=branch=x"], "--git has no effect: the context is no git repository"),
        (["--skip-default-registry-fallback"], "--skip-default-registry-fallback has no effect without --registry"),
    ],
)
def test_what_differs_is_said(context, words, note):
    """What is carried out otherwise than by kaniko has one line."""
    destination = [] if "--no-push" in words else [f"-d{APP}"]

    (said,) = _translate(context, "-c.", *destination, *words).notes

    assert said.startswith(note)


def test_git_token_is_not_read(context):
    """A variable with credentials that kaniko reads is named, its value is not."""
    asked = _translate(context, "--context=git://example.com/a.git", "--no-push", "--tar-path=a", GIT_TOKEN="hunter2")

    assert asked.notes[0].startswith("$GIT_TOKEN is not read: ")
    assert "hunter2" not in "".join((*asked.notes, *asked.words))


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["-c."], "a destination is missing", "--no-push"),
        (["-c.", f"-d{APP}@sha256:{'0' * 64}"], "cannot be named by digest", "tag"),
        (["-c.", "--no-push", "--image-name-with-digest-file=a"], "needs a name to write", "--destination"),
        (["--no-push"], "a context is missing, and there is no folder `/workspace`", "dir://"),
        (["--no-push", "-cs3://bucket/a.tar.gz"], "contexts in buckets cannot be read", "tar://"),
        (["--no-push", "-cgs://bucket/a.tar.gz"], "contexts in buckets cannot be read", "tar://"),
        (["--no-push", "-cftp://host/a"], "unknown kind of context", "git://"),
        (["--no-push", "-cdir://"], "a place is missing", "dir://DIR"),
        (["--no-push", "-ctar://stdin", "--context-sub-path=a"], "cannot be used with a tar", "dir://DIR"),
        (["--no-push", "-cgit://h/a.git#x", "--git=branch=y"], "names a reference already: `x`", "branch="),
        (["--no-push", "-cgit://h/a.git#x:y"], "not a git reference: `x:y`", "--context-sub-path"),
        (["--no-push", "-cgit://h/a.git?x=y"], "takes no query", "#REF"),
        (["--no-push", "-cgit://h/a.git", "--git=depth=1"], "unknown part: `depth=1`", "branch="),
        (["-c.", "--no-push", "--registry-mirror=https://m"], "not HOST", "without https://"),
        (["-c.", "--no-push", "--registry-certificate=../x=Dockerfile"], "not HOST=FILE", "HOST=FILE"),
        (["-c.", "--no-push", "--registry-certificate=h=missing"], "no such file", "check the path"),
        (["-c.", "--no-push", "--registry-client-cert=h=Dockerfile"], "not HOST=CERT,KEY", "HOST=CERT,KEY"),
        (["-c.", "--no-push", "-vloud"], "unknown value: `loud`", "debug"),
        (["-c.", "--no-push=maybe"], "--no-push is true or false, not `maybe`", "--help"),
        (["-c.", "--no-push", "--desination=a"], "unknown option of `pybuild kaniko`", "--destination"),
    ],
)
def test_bad_command_line_says_what_to_do(context, words, message, hint):
    """What cannot be is one message with one thing to do."""
    with pytest.raises(UsageError) as raised:
        _translate(context, *words)
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_missing_tar_is_named(context):
    """A tar that is not there is named as it was written."""
    with pytest.raises(ContextError, match=r"no such file: `none\.tar`"):
        _translate(context, "--no-push", "-ctar://none.tar")


def test_help_names_every_flag():
    """No flag is kept from the reader, whatever becomes of it."""
    with pytest.raises(HelpRequest) as raised:
        parser_for("kaniko").parse(["--help"])

    assert [flag.name for flag in FLAGS if flag.name not in raised.value.text] == []
