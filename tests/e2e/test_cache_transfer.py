"""Caches that go from one store to another: `--cache-to` and `--cache-from`."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.actions_cache_server import OF_TOPIC, SIGNATURE, TOKEN, ActionsCacheServer
from tests.fakes.docker_registry import run_docker_registry
from tests.fakes.s3_server import BUCKET, REGION, S3Server, run_s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.command import Done, Pybuild

pytestmark = pytest.mark.userns

DOCKERFILE = """\
FROM busybox AS made
RUN cat /proc/sys/kernel/random/uuid > /made
FROM busybox
COPY file /srv/
RUN cat /proc/sys/kernel/random/uuid > /srv/time
COPY --from=made /made /srv/made
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Return `host:port` of a registry that takes anything from anyone."""
    with run_docker_registry(tmp_path) as address:
        yield address


@pytest.fixture
def context(with_busybox: Pybuild) -> str:
    """Return a context of two stages whose steps never give the same twice."""
    return with_busybox.context({"Dockerfile": DOCKERFILE, "file": "text\n"})


def build(pybuild: Pybuild, root: str, context: str, *options: str, status: int = 0) -> Done:
    """Build in a root that has the base image."""
    if not (pybuild.folder / root).exists():
        shutil.copytree(pybuild.images, pybuild.folder / root / "images")
        for path in [pybuild.folder / root, *(pybuild.folder / root).rglob("*")]:
            pybuild._give(path)
    return pybuild("build", "--progress=plain", "--root", root, "-t", "app", *options, context, status=status)


def digest(pybuild: Pybuild, root: str) -> str:
    """Return the digest of the image that was built."""
    return json.loads(pybuild("inspect", "--root", root, "app").out)[0]["Descriptor"]["digest"]


def pushed(name: str) -> tuple[str, ...]:
    """Return the options that push the image, beside naming it."""
    return "-o", "type=image", "-o", f"type=registry,name={name}"


def diff_ids(pybuild: Pybuild, root: str) -> list[str]:
    """Return the layers of the image that was built."""
    return json.loads(pybuild("inspect", "--root", root, "app").out)[0]["RootFS"]["Layers"]


def cached(done: Done) -> list[str]:
    """Return the steps that were found in a cache; FROM, which always is, is left out."""
    names = dict(re.findall(r"^(#\d+) (\[.*)$", done.err, re.MULTILINE))
    found = [names[number] for number in re.findall(r"^(#\d+) CACHED$", done.err, re.MULTILINE)]
    return sorted(name for name in found if " FROM " not in name)


ALL = [
    "[made 2/2] RUN cat /proc/sys/kernel/random/uuid > /made",
    "[stage-1 2/4] COPY file /srv/",
    "[stage-1 3/4] RUN cat /proc/sys/kernel/random/uuid > /srv/time",
    "[stage-1 4/4] COPY --from=made /made /srv/made",
]


def test_local_cache_makes_the_same_image_elsewhere(with_busybox: Pybuild, context: str) -> None:
    """All steps are found in an exported cache, the image has the same digest, and unneeded layers are not fetched."""
    pybuild = with_busybox
    build(pybuild, "here", context, "--cache-to", "type=local,dest=d,mode=max")

    done = build(pybuild, "there", context, "--cache-from", "type=local,src=d")

    assert cached(done) == ALL
    assert digest(pybuild, "there") == digest(pybuild, "here")
    assert "warning" not in done.err.lower()
    layers = {path.name for path in (pybuild.folder / "d" / "blobs" / "sha256").iterdir()}
    fetched = {path.name for path in (pybuild.folder / "there" / "images" / "blobs" / "sha256").iterdir()}
    assert len(layers) == 6  # four layers, config and manifest
    assert len(layers & fetched) == 4  # not the layer of the first stage, not the manifest


@pytest.mark.registry
def test_registry_cache_makes_the_same_image_elsewhere(with_busybox: Pybuild, context: str, registry: str) -> None:
    """As with a folder, named in both ways."""
    pybuild = with_busybox
    build(pybuild, "here", context, "--cache-to", f"type=registry,ref={registry}/team/cache:1,mode=max")

    done = build(pybuild, "there", context, "--cache-from", f"{registry}/team/cache:1")

    assert cached(done) == ALL
    assert digest(pybuild, "there") == digest(pybuild, "here")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return a server of S3's protocol that checks signatures."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def test_s3_cache_makes_the_same_image_elsewhere(with_busybox: Pybuild, context: str, s3: S3Server) -> None:
    """As with a folder; the key comes from the variables, and stands in no output."""
    variables = {"AWS_ACCESS_KEY_ID": s3.key_id, "AWS_SECRET_ACCESS_KEY": s3.secret}
    pybuild = replace(with_busybox, variables=variables)
    place = f"type=s3,bucket={BUCKET},region={REGION},endpoint_url={s3.endpoint},use_path_style=true"
    first = build(pybuild, "here", context, "--cache-to", f"{place},mode=max")

    done = build(pybuild, "there", context, "--cache-from", place)
    denied = build(pybuild, "third", context, "--cache-from", f"{place},access_key_id=a,secret_access_key=hunter2")

    assert cached(done) == ALL
    assert digest(pybuild, "there") == digest(pybuild, "here")
    assert cached(denied) == []
    assert "access is denied" in denied.err
    assert not any(secret in shown for secret in (s3.secret, "hunter2") for shown in (first.err, done.err, denied.err))


@pytest.fixture
def actions() -> Iterator[ActionsCacheServer]:
    """Return a server of the protocol of GitHub's cache service."""
    with ActionsCacheServer() as server:
        yield server


def test_gha_cache_makes_the_same_image_elsewhere(
    with_busybox: Pybuild, context: str, actions: ActionsCacheServer
) -> None:
    """A job on a branch finds the cache of the branch that it grew from; no output has the token."""
    pybuild = replace(with_busybox, variables={"ACTIONS_RESULTS_URL": actions.url, "ACTIONS_RUNTIME_TOKEN": TOKEN})
    first = build(pybuild, "here", context, "--cache-to", "type=gha,mode=max")
    on_topic = replace(pybuild, variables={**pybuild.variables, "ACTIONS_RUNTIME_TOKEN": OF_TOPIC})

    done = build(on_topic, "there", context, "--cache-from", "type=gha", "--cache-to", "type=gha,mode=max")
    again = build(on_topic, "third", context, "--cache-from", "type=gha")

    assert cached(done) == cached(again) == ALL
    assert digest(pybuild, "there") == digest(pybuild, "here")
    assert "cache `gha:pybuild of refs/heads/topic` cannot be imported" in done.err
    assert "cannot be imported" not in again.err
    assert not any(secret in one.err for secret in (TOKEN, OF_TOPIC, SIGNATURE) for one in (first, done, again))


@pytest.mark.parametrize("trouble", ["no job", "throttled", "stalled"])
def test_gha_cache_that_cannot_be_had_is_a_warning(
    with_busybox: Pybuild, context: str, actions: ActionsCacheServer, trouble: str
) -> None:
    """Outside of a job, and where the service holds requests up, a build goes on without the cache."""
    job = {} if trouble == "no job" else {"ACTIONS_RESULTS_URL": actions.url, "ACTIONS_RUNTIME_TOKEN": TOKEN}
    pybuild = replace(with_busybox, variables=job)
    actions.refusals = [(429, "3600")] * 10 if trouble == "throttled" else []
    actions.stalled = trouble == "stalled"
    ignored = "" if trouble == "no job" else ",ignore-error=true"
    options = ("--cache-from", "type=gha,timeout=1s", "--cache-to", f"type=gha,timeout=1s{ignored}")

    done = build(pybuild, "here", context, *options)

    assert cached(done) == []
    assert "cannot be imported and is not used" in done.err
    assert "was not exported" in done.err


@pytest.mark.registry
def test_cache_within_an_image_answers_its_steps(with_busybox: Pybuild, context: str, registry: str) -> None:
    """The pushed image itself is the cache of the next build, which makes the same layers of it."""
    pybuild = with_busybox
    name = f"{registry}/team/app:1"
    build(pybuild, "here", context, *pushed(name), "--cache-to", "type=inline")

    done = build(pybuild, "there", context, "--cache-from", name, "--cache-to", "type=inline")

    assert cached(done) == ALL[1:3]
    assert "cannot be imported" not in done.err
    assert diff_ids(pybuild, "there")[:-1] == diff_ids(pybuild, "here")[:-1]


@pytest.mark.registry
def test_cache_within_an_image_makes_the_same_image_again(with_busybox: Pybuild, registry: str) -> None:
    """Where all steps are those of the result, all are found, for each platform of an index."""
    pybuild = with_busybox
    name = f"{registry}/team/app:1"
    folder = pybuild.context({"Dockerfile": "FROM scratch\nCOPY file /a\nCOPY file /b\n", "file": "text"})
    options = ("--platform", "linux/amd64,linux/arm64", "--cache-to", "type=inline")
    build(pybuild, "here", folder, *pushed(name), *options)

    done = build(pybuild, "there", folder, "--cache-from", name, *options)

    assert len(cached(done)) == 2
    assert digest(pybuild, "there") == digest(pybuild, "here")


def test_cache_within_an_image_changes_nothing_but_the_config(with_busybox: Pybuild, context: str) -> None:
    """Layers are the same with it; others show the image, and an image made from it has no cache of its base."""
    pybuild = with_busybox
    build(pybuild, "here", context)
    plain = diff_ids(pybuild, "here")
    build(pybuild, "here", context, "--cache-to", "type=inline")
    derived = pybuild.context({"Dockerfile": "FROM app\nLABEL a=b\n"}, "derived")
    pybuild("build", "--root", "here", "-t", "derived", derived)

    configs = [
        json.loads((pybuild.folder / "here/images/blobs/sha256" / image["Id"][7:]).read_text())
        for image in json.loads(pybuild("inspect", "--root", "here", "app", "derived").out)
    ]

    assert diff_ids(pybuild, "here") == plain
    assert [record["layer"] for record in configs[0]["vnd.pybuild.cache.v1"]["records"]] != []
    assert "vnd.pybuild.cache.v1" not in configs[1]


@pytest.mark.registry
def test_image_without_a_cache_is_a_warning(with_busybox: Pybuild, context: str, registry: str) -> None:
    """Who names an ordinary image as cache is told that it has none."""
    pybuild = with_busybox
    build(pybuild, "here", context, *pushed(f"{registry}/team/app:1"))

    done = build(pybuild, "there", context, "--cache-from", f"{registry}/team/app:1")

    assert cached(done) == []
    assert "the image has no cache of pybuild in it" in done.err


def test_smallest_cache_has_the_steps_of_the_result(with_busybox: Pybuild, context: str) -> None:
    """With mode=min the steps of other stages run again."""
    pybuild = with_busybox
    build(pybuild, "here", context, "--cache-to", "type=local,dest=d")

    done = build(pybuild, "there", context, "--cache-from", "type=local,src=d")

    assert cached(done) == ALL[1:3]


def test_copy_from_a_stage_that_ran_again_is_found_by_content(with_busybox: Pybuild) -> None:
    """With mode=min a stage runs again; where it gives the same files, what copies them is found nevertheless."""
    pybuild = with_busybox
    text = "FROM busybox AS made\nRUN date +%N; echo same > /made\nFROM busybox\nCOPY --from=made /made /srv/made\n"
    folder = pybuild.context({"Dockerfile": text})
    build(pybuild, "here", folder, "--cache-to", "type=local,dest=d")

    done = build(pybuild, "there", folder, "--cache-from", "type=local,src=d")

    assert cached(done) == ["[stage-1 2/2] COPY --from=made /made /srv/made"]
    assert digest(pybuild, "there") == digest(pybuild, "here")


def test_layer_that_turns_out_broken_while_steps_run_is_made_anew(with_busybox: Pybuild) -> None:
    """What is found by content, when steps run already, and cannot be had is a warning too, and the step runs."""
    pybuild = with_busybox
    text = "FROM busybox AS made\nRUN date; echo same > /made\nFROM busybox\nCOPY --from=made /made /srv/made\n"
    folder = pybuild.context({"Dockerfile": text})
    build(pybuild, "here", folder, "--cache-to", "type=local,dest=d")
    break_cache(pybuild.folder / "d", "missing")

    done = build(pybuild, "there", folder, "--cache-from", "type=local,src=d")

    assert cached(done) == []
    assert done.err.count("cannot be imported and is not used") == 1


@pytest.mark.parametrize(("base", "other"), [("one", "two"), ("two", "one")])
def test_same_layer_of_two_steps_keeps_their_times(with_busybox: Pybuild, base: str, other: str) -> None:
    """Steps that read the same and make the same layer at different times are told apart."""
    pybuild = with_busybox
    files = "FROM busybox AS {0}\nRUN cat /proc/sys/kernel/random/uuid > /x; sleep {1}\nCOPY file /y\n"
    text = files.format("one", "0") + files.format("two", "0.2") + f"FROM {base}\nCOPY --from={other} /x /z\n"
    folder = pybuild.context({"Dockerfile": text, "file": ""})
    build(pybuild, "here", folder, "--cache-to", "type=local,dest=d,mode=max")

    build(pybuild, "there", folder, "--cache-from", "type=local,src=d")

    assert digest(pybuild, "there") == digest(pybuild, "here")


def test_step_that_is_left_runs_on_imported_layers(with_busybox: Pybuild, context: str) -> None:
    """A new last step runs on what was imported."""
    pybuild = with_busybox
    build(pybuild, "here", context, "--cache-to", "type=local,dest=d,mode=max")
    (Path(context) / "Dockerfile").write_text(DOCKERFILE + "RUN cat /srv/file\n")

    done = build(pybuild, "there", context, "--cache-from", "type=local,src=d")

    assert len(cached(done)) == 4
    assert "text" in done.err


def test_cache_that_was_imported_can_be_exported(with_busybox: Pybuild, context: str) -> None:
    """Layers that the build itself does not need are fetched for an export with mode=max."""
    pybuild = with_busybox
    build(pybuild, "here", context, "--cache-to", "type=local,dest=d,mode=max")
    build(pybuild, "there", context, "--cache-from", "type=local,src=d", "--cache-to", "type=local,dest=e,mode=max")

    done = build(pybuild, "third", context, "--cache-from", "type=local,src=e")

    assert cached(done) == ALL


@pytest.mark.parametrize("source", ["type=local,src=nowhere", "type=local,src=root/images", "127.0.0.1:1/none:1"])
def test_missing_cache_is_a_warning(with_busybox: Pybuild, context: str, source: str) -> None:
    """A cache that is not there stops nothing."""
    done = build(with_busybox, "here", context, "--cache-from", source)

    assert cached(done) == []
    assert "cannot be imported and is not used" in done.err


@pytest.mark.parametrize("damage", ["truncated", "missing", "other bytes", "other diff_id", "no json"])
def test_broken_cache_is_a_warning(with_busybox: Pybuild, context: str, damage: str) -> None:
    """A cache whose layers or documents are damaged, or lie, is not used, and its steps run."""
    pybuild = with_busybox
    build(pybuild, "here", context, "--cache-to", "type=local,dest=d,mode=max")
    break_cache(pybuild.folder / "d", damage)

    done = build(pybuild, "there", context, "--cache-from", "type=local,src=d")

    assert cached(done) == []
    assert done.err.count("cannot be imported and is not used") == 1
    assert digest(pybuild, "there") != digest(pybuild, "here")


def break_cache(folder: Path, damage: str) -> None:
    """Damage the layers of a cache, or make its documents say something wrong."""
    blobs = folder / "blobs" / "sha256"
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    for layer in manifest["layers"]:
        path = blobs / layer["digest"][7:]
        match damage:
            case "truncated":
                path.write_bytes(path.read_bytes()[:-10])
            case "other bytes":
                path.write_bytes(bytes(len(path.read_bytes())))
            case "missing":
                path.unlink()
            case _:
                pass
    if damage in {"other diff_id", "no json"}:
        old = (blobs / manifest["config"]["digest"][7:]).read_text()
        config = json.loads(old)
        for record in config["records"]:
            record["diff_id"] = config["records"][-1]["diff_id"]
        config["records"][-1]["diff_id"] = f"sha256:{'0' * 64}"
        put(blobs, manifest["config"], old[:-1] if damage == "no json" else json.dumps(config))
        put(blobs, index["manifests"][0], json.dumps(manifest))
        (folder / "index.json").write_text(json.dumps(index))


def put(blobs: Path, descriptor: dict[str, object], text: str) -> None:
    """Write a document and make the descriptor name it."""
    data = text.encode()
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    descriptor.update(digest=f"sha256:{name}", size=len(data))


def test_cache_that_cannot_be_written_fails_the_build_unless_ignored(with_busybox: Pybuild, context: str) -> None:
    """An error of an export is one of the build, or a warning with ignore-error."""
    pybuild = with_busybox
    target = "type=local,dest=context/file"

    failed = build(pybuild, "here", context, "--cache-to", target, status=1)
    done = build(pybuild, "here", context, "--cache-to", f"{target},ignore-error=true")

    assert "cache cannot be written" in failed.err
    assert "Traceback" not in failed.err
    assert "was not exported, cache cannot be written" in done.err


def test_exported_cache_holds_no_texts_of_steps(with_busybox: Pybuild) -> None:
    """Build arguments, and the steps that use them, are not to be read from the documents of a cache."""
    pybuild = with_busybox
    folder = pybuild.context({"Dockerfile": "FROM busybox\nARG TOKEN\nRUN true\n"})
    build(pybuild, "here", folder, "--build-arg", "TOKEN=hunter2", "--cache-to", "type=local,dest=d,mode=max")

    documents = [path.read_bytes() for path in (pybuild.folder / "d").rglob("*") if path.is_file()]

    assert any(b"records" in data for data in documents)
    assert not any(b"hunter2" in data or b"true" in data for data in documents)


MOUNTED = """\
FROM busybox
RUN --mount=type=cache,id=c,target=/c,uid=7,mode=0750 {command}
"""
FILL = "mkdir /c/sub; echo kept > /c/sub/file; chown 5:6 /c/sub/file; chmod 600 /c/sub/file; ln -s /etc/passwd /c/link"
SHOW = "stat -c '%u:%g %a %n' /c /c/sub/file; cat /c/sub/file; readlink /c/link"
SHOWN = ["7:0 750 /c", "5:6 600 /c/sub/file", "kept", "/etc/passwd"]


def shown(done: Done) -> list[str]:
    """Return what a step wrote."""
    return re.findall(r"^#\d+ \d+\.\d+ (.*)$", done.err, re.MULTILINE)


def mounted(pybuild: Pybuild, command: str) -> str:
    """Return a context with one step that has a cache mount."""
    return pybuild.context({"Dockerfile": MOUNTED.format(command=command)})


def test_content_of_a_cache_mount_is_there_elsewhere(pybuild_of_each: Pybuild, busybox_archive: Path) -> None:
    """A step of a build on an empty store finds what the mount held, with owners and modes, with sub-ids and without."""
    pybuild = pybuild_of_each
    pybuild("import", str(busybox_archive), "busybox")
    build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", "type=local,dest=d,mounts=true")

    done = build(pybuild, "there", mounted(pybuild, SHOW), "--cache-from", "type=local,src=d")

    assert shown(done) == SHOWN


def test_content_of_a_cache_mount_fits_every_map_of_ids(with_busybox: Pybuild) -> None:
    """What was written with sub-ids has its owners where there is one id."""
    pybuild = with_busybox
    build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", "type=local,dest=d,mounts=true")

    done = build(
        pybuild, "there", mounted(pybuild, SHOW), "--cache-from", "type=local,src=d", "--isolation", "single-id"
    )

    assert shown(done) == SHOWN


def test_cache_mount_that_exists_is_left_alone(with_busybox: Pybuild) -> None:
    """An import never replaces what is here."""
    pybuild = with_busybox
    build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", "type=local,dest=d,mounts=true")
    build(pybuild, "there", mounted(pybuild, "echo own > /c/own"))

    done = build(pybuild, "there", mounted(pybuild, "ls /c"), "--cache-from", "type=local,src=d")

    assert shown(done) == ["own"]


@pytest.mark.parametrize(
    ("to", "source", "options"),
    [("mounts=false", "", ()), ("mounts=true", ",mounts=false", ()), ("mounts=true", "", ("--no-cache",))],
    ids=["not exported", "not wanted", "no cache"],
)
def test_cache_mount_begins_empty_where_content_is_not_asked_for(
    with_busybox: Pybuild, to: str, source: str, options: tuple[str, ...]
) -> None:
    """Contents are exported on demand, and can be left out on import."""
    pybuild = with_busybox
    build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", f"type=local,dest=d,{to}")

    done = build(
        pybuild, "there", mounted(pybuild, "ls /c | wc -l"), "--cache-from", f"type=local,src=d{source}", *options
    )

    assert shown(done) == ["0"]


@pytest.mark.registry
def test_content_of_a_cache_mount_survives_a_build_that_is_cached(with_busybox: Pybuild, registry: str) -> None:
    """A run in between, which needs the mount for nothing and never has it, hands on what it was given."""
    pybuild = with_busybox
    name = f"{registry}/team/cache:1"
    build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", f"type=registry,ref={name},mounts=true")
    between = build(
        pybuild,
        "between",
        mounted(pybuild, FILL),
        *("--cache-from", name, "--cache-to", f"type=registry,ref={name},mounts=true"),
        *("--cache-to", "type=local,dest=d,mounts=true"),
    )

    from_registry = build(pybuild, "one", mounted(pybuild, SHOW), "--cache-from", name)
    from_folder = build(pybuild, "two", mounted(pybuild, SHOW), "--cache-from", "type=local,src=d")

    assert len(cached(between)) == 1
    assert not list((pybuild.folder / "between").glob("mounts/*"))
    assert shown(from_registry) == shown(from_folder) == SHOWN


def test_content_of_a_cache_mount_is_exported_by_a_build_that_is_cached(with_busybox: Pybuild) -> None:
    """A build that runs nothing exports what is in its store, and the same content is the same blob again."""
    pybuild = with_busybox
    build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", "type=local,dest=d,mounts=true")

    done = build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", "type=local,dest=e,mounts=true")

    assert len(cached(done)) == 1
    assert {path.name for path in (pybuild.folder / "e").rglob("*")} == {
        path.name for path in (pybuild.folder / "d").rglob("*")
    }


@pytest.mark.parametrize(
    ("command", "extra", "reason"),
    [
        ("dd if=/dev/zero of=/c/big bs=1024 count=2048", ",mounts-max-size=1m", "it is larger than 1048576 bytes"),
        ("touch /c/.wh.name", "", "a name that begins with .wh."),
    ],
)
def test_cache_mount_that_cannot_be_exported_is_a_warning(
    with_busybox: Pybuild, command: str, extra: str, reason: str
) -> None:
    """The cache is exported without it."""
    pybuild = with_busybox
    done = build(pybuild, "here", mounted(pybuild, command), "--cache-to", f"type=local,dest=d,mounts=true{extra}")

    again = build(pybuild, "there", mounted(pybuild, command), "--cache-from", "type=local,src=d")

    assert f"cache mount `c` is not exported as it is, {reason}" in done.err
    assert len(cached(again)) == 1


@pytest.mark.parametrize("damage", ["missing", "truncated", "other bytes", "other diff_id"])
def test_content_of_a_cache_mount_that_is_broken_is_a_warning(with_busybox: Pybuild, damage: str) -> None:
    """The mount begins empty, and with its own owner and mode, also where half of the content was there already."""
    pybuild = with_busybox
    build(pybuild, "here", mounted(pybuild, FILL), "--cache-to", "type=local,dest=d,mounts=true")
    if damage == "other diff_id":
        break_mount(pybuild.folder / "d")
    else:
        break_cache(pybuild.folder / "d", damage)

    done = build(pybuild, "there", mounted(pybuild, "stat -c '%u %a' /c; ls /c"), "--cache-from", "type=local,src=d")

    assert shown(done) == ["7 750"]
    assert "warning" in done.err.lower()
    assert "cache mount" in done.err


def break_mount(folder: Path) -> None:
    """Make the documents of a cache say a wrong diff_id of a mount."""
    blobs = folder / "blobs" / "sha256"
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    config["mounts"][0]["diff_id"] = f"sha256:{'0' * 64}"
    put(blobs, manifest["config"], json.dumps(config))
    put(blobs, index["manifests"][0], json.dumps(manifest))
    (folder / "index.json").write_text(json.dumps(index))
