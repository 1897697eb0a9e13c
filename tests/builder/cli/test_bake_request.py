"""Tests of builder.cli.bake_request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.cli.arguments import parser_for
from builder.cli.bake_request import check_grants, choose_targets, load_definitions, parse_target, print_selection
from builder.cli.environment import Environment
from builder.errors import BakeError, DockerfileError, UsageError
from builder.request import CacheFolder, CacheTarget, OutputType
from registry.oci.reference import parse_reference


@pytest.fixture
def project(tmp_path):
    """A folder with a Dockerfile, and two in a folder."""
    for path in ("Dockerfile", "app/Dockerfile", "app/Other", "s.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("FROM scratch\n")
    return tmp_path


def _select(project, *words, files=None, **variables):
    for name, content in (files or {}).items():
        (project / name).write_text(content if isinstance(content, str) else json.dumps(content))
    arguments = parser_for("bake").parse(words)
    environment = Environment(variables=variables, cwd=project, home=Path("/home/a"), uid=1000)
    return choose_targets(load_definitions(arguments, environment), arguments, environment), arguments, environment


def _request(project, fields, *words, **variables):
    files = {"docker-bake.json": {"target": {"a": fields, "b": {}}}}
    selection, arguments, environment = _select(project, "a", *words, files=files, **variables)
    return parse_target(selection.targets["a"], arguments, environment).request


def test_target_becomes_a_request_by_way_of_the_options(project):
    """Each key means what the option of its name means to `pybuild build`; links are left to who builds them."""
    fields = {
        "context": "app",
        "dockerfile": "Other",
        "args": {"A": "--x=y, z", "B": "1"},
        "labels": {"l": "v"},
        "tags": ["me/a:1"],
        "target": "t",
        "contexts": {"c": "app", "l": "target:b"},
        "platforms": ["linux/amd64", "linux/arm64"],
        "network": "none",
        "no-cache": True,
        "no-cache-filter": ["x"],
        "pull": True,
        "shm-size": "1m",
        "ulimits": ["nofile=1:2"],
        "extra-hosts": {"h": "1.2.3.4"},
        "secret": ["id=s,src=s.txt", {"id": "e", "env": "E"}],
        "annotations": ["index:k=v"],
        "attest": ["type=provenance,mode=min"],
        "cache-to": [{"type": "local", "dest": "c", "mode": "max"}],
        "output": [{"type": "oci", "dest": "o.tar", "annotation.a": "b,c"}, "out"],
        "entitlements": ["security.insecure"],
    }

    request = _request(project, fields, "--jobs=3", E="value")

    assert (request.context, request.dockerfile) == (project / "app", project / "app" / "Other")
    assert request.build_args == {"A": "--x=y, z", "B": "1"}
    assert (request.labels, request.tags, request.target) == ({"l": "v"}, (parse_reference("me/a:1"),), "t")
    assert request.build_contexts == {"c": project / "app"}
    assert [str(platform) for platform in request.platforms] == ["linux/amd64", "linux/arm64"]
    assert (request.network, request.no_cache, request.pull) == ("none", True, True)
    assert request.no_cache_stages == {"x"}
    assert (request.shm_size, request.ulimits, request.add_hosts) == (1 << 20, (("nofile", 1, 2),), (("h", "1.2.3.4"),))
    assert [(secret.id, secret.path, secret.value) for secret in request.secrets] == [
        ("s", project / "s.txt", None),
        ("e", None, b"value"),
    ]
    assert [(annotation.level, annotation.name) for annotation in request.annotations] == [("index", "k")]
    assert request.provenance is not None
    assert request.provenance.mode == "min"
    assert request.cache_to == (CacheTarget(CacheFolder(project / "c"), all_steps=True),)
    assert [(output.type, output.destination) for output in request.outputs] == [
        (OutputType.OCI, project / "o.tar"),
        (OutputType.LOCAL, project / "out"),
    ]
    assert request.outputs[0].attributes == {"annotation.a": "b,c"}
    assert (request.allow, request.jobs) == ({"security.insecure"}, 3)


def test_dockerfile_of_a_target_starts_at_its_context(project):
    """That is how bake reads it; text in the file of targets needs none."""
    assert _request(project, {"context": "app"}).dockerfile is None
    assert (
        _request(project, {"context": "app", "dockerfile": "../Dockerfile"}).dockerfile == project / "app/../Dockerfile"
    )
    assert _request(project, {"dockerfile": "Gone", "dockerfile-inline": "FROM x"}).dockerfile_text == "FROM x"
    with pytest.raises(DockerfileError, match="no such file: `app/Gone`"):
        _request(project, {"context": "app", "dockerfile": "Gone"})


@pytest.mark.parametrize("fields", [{"context": "-"}, {"dockerfile": "-"}])
def test_target_reads_nothing_from_standard_input(project, fields):
    """Standard input may be the file of targets, and there is one of it."""
    with pytest.raises(BakeError, match="standard input"):
        _request(project, fields)


def test_options_of_the_command_are_overrides_of_all_targets(project):
    """--push, --no-cache and the like mean the same as --set."""
    request = _request(project, {"tags": ["me/a"]}, "--push", "--no-cache", "--pull", "--sbom=generator=x/y")

    assert [(output.type, output.push) for output in request.outputs] == [(OutputType.IMAGE, True)]
    assert (request.no_cache, request.pull) == (True, True)
    assert request.sbom is not None


def test_default_files_are_all_read(project):
    """Compose files come first, bake files and overrides after them; variables have .env below the environment."""
    files = {
        "docker-bake.override.json": {"target": {"app": {"args": {"O": "1"}}}},
        "docker-bake.json": {"target": {"app": {"target": "bake"}, "more": {}}},
        "compose.yaml": "services: {app: {build: {context: app, target: compose}, image: 'a:${T}-${U}'}}",
        ".env": "T=dotenv\nU=dotenv\n",
    }

    selection, *_ = _select(project, files=files, T="environment")

    assert list(selection.targets) == ["app"]
    target = selection.targets["app"]
    assert (target.text("context"), target.text("target")) == ("app", "bake")
    assert (target.texts("tags"), target.pairs("args")) == (("a:environment-dotenv",), {"O": "1"})


def test_files_may_be_named(project):
    """`--file`, else BUILDX_BAKE_FILE, replaces what is looked for; text and name tell the language."""
    files = {"targets": {"target": {"x": {}}}, "services": "services: {y: {build: .}}", "hcl": 'target "z" {}'}

    assert list(_select(project, "-f", "targets", "-f", "services", "*", files=files)[0].targets) == ["y", "x"]
    assert list(_select(project, BUILDX_BAKE_FILE="hcl")[0].targets) == ["z"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no file of targets in the current folder"),
        (("-f", "gone.json"), "bake file `gone.json` cannot be used, no such file"),
        (("-f", "app"), "bake file `app` cannot be used, is a directory"),
        (("https://x.org/a.git",), "files of targets from elsewhere are not supported yet: `https://x.org/a.git`"),
        (("--var", "X"), "option --var: not a name and a value: `X`"),
    ],
)
def test_files_that_cannot_be_had_are_named(project, words, message):
    """The message names the file."""
    with pytest.raises((BakeError, UsageError)) as caught:
        _select(project, *words)

    assert caught.value.message == message


def test_printed_targets_are_a_bake_file(project):
    """What is printed says the same again when it is read."""
    fields = {
        "dockerfile-inline": "FROM scratch\nENV A=${B} %{x",
        "args": {"A": "${X}", "B": "$${literal}"},
        "tags": ["a:1"],
        "output": ["type=oci,dest=x"],
        "secret": ["id=a,env=B"],
        "ssh": ["default=a,b"],
        "cache-from": ["me/x"],
        "pull": False,
    }
    hcl = {
        "variable": {"X": {"default": "${1 + 1}"}},
        "target": {"a": {**fields, "dockerfile-inline": "FROM scratch\nENV A=$${B} %%{x"}},
    }

    printed = print_selection(_select(project, "a", files={"docker-bake.json": hcl})[0])
    again = print_selection(_select(project, files={"docker-bake.json": printed})[0])

    assert printed["target"]["a"] == {
        "context": ".",
        "dockerfile": "Dockerfile",
        "dockerfile-inline": "FROM scratch\nENV A=$${B} %%{x",
        "args": {"A": "2", "B": "$${literal}"},
        "tags": ["a:1"],
        "cache-from": [{"ref": "me/x", "type": "registry"}],
        "secret": [{"env": "B", "id": "a"}],
        "ssh": [{"id": "default", "paths": "a,b"}],
        "output": [{"dest": "x", "type": "oci"}],
        "pull": False,
    }
    assert again == printed


def test_grants_are_asked_for_what_the_file_names_alone(project):
    """A path of the file outside the project is refused, one of --set is not; BUILDX_BAKE_ENTITLEMENTS_FS=0 lets all in."""
    files = {"docker-bake.json": {"target": {"a": {"context": ".."}}}}

    with pytest.raises(BakeError, match="targets ask for more than is allowed: read"):
        check_grants(*_select(project, "a", files=files))
    check_grants(*_select(project, "a", "--allow=fs.read=.."))
    check_grants(*_select(project, "a", BUILDX_BAKE_ENTITLEMENTS_FS="0"))
    check_grants(*_select(project, "a", "--set=a.context=../..", "--set=a.output=../x"))
