"""Pull and push against Debian's docker-registry on loopback, open and with passwords."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.docker_registry import run_docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Return `host:port` of a registry that takes anything from anyone."""
    with run_docker_registry(tmp_path) as address:
        yield address


@pytest.fixture
def guarded_registry(tmp_path: Path) -> Iterator[str]:
    """Return `host:port` of a registry that knows one user."""
    with run_docker_registry(tmp_path, users={"alice": "wonderland"}) as address:
        yield address


def test_pushed_image_can_be_pulled_elsewhere(with_busybox: Pybuild, registry: str) -> None:
    """An image pushed from one root and pulled into another has the same digests."""
    name = f"{registry}/team/app:1"
    with_busybox("tag", "busybox", name)

    with_busybox("push", name)
    with_busybox("pull", "--root", "another", name)

    here, there = (json.loads(with_busybox("inspect", "--root", root, name).out)[0] for root in ("root", "another"))
    assert there["Id"] == here["Id"]
    assert there["Descriptor"]["digest"] == here["Descriptor"]["digest"]


@pytest.mark.userns
def test_base_image_is_pulled_by_a_build(with_busybox: Pybuild, registry: str) -> None:
    """FROM a registry's image pulls it, and `--push` puts the result there."""
    pybuild = with_busybox
    base, result = f"{registry}/base:1", f"{registry}/result:1"
    pybuild("tag", "busybox", base)
    pybuild("push", base)
    dockerfile = f"FROM {base}\nRUN echo made > /srv/made\n"

    pybuild("build", "--root", "another", "--tag", result, "--push", pybuild.context({"Dockerfile": dockerfile}))

    assert pybuild("run", "--root", "third", result, "cat", "/srv/made").out == "made\n"


def test_base_image_is_named_by_tag_and_digest(with_busybox: Pybuild, registry: str) -> None:
    """FROM takes a registry with its port, a digest, and a tag with a digest; a digest that is not there is refused."""
    pybuild = with_busybox
    base = f"{registry}/team/base"
    pybuild("tag", "busybox", f"{base}:1")
    pybuild("push", f"{base}:1")
    digest = json.loads(pybuild("inspect", "busybox").out)[0]["Descriptor"]["digest"]
    dockerfile = f"FROM {base}@{digest} AS a\nFROM {base}:1@{digest}\nCOPY --from=a /bin/busybox /copy\n"

    pybuild("build", "--root", "another", "--tag", "app", pybuild.context({"Dockerfile": dockerfile}))
    missing = pybuild.context({"Dockerfile": f"FROM {base}:1@sha256:{'0' * 64}\n"})
    failed = pybuild("build", "--root", "another", missing, status=3)

    assert json.loads(pybuild("inspect", "--root", "another", "app").out)[0]["RootFS"]["Layers"]
    assert f"{base}:1@sha256:000" in failed.err


SLOW_STEP = """\
FROM busybox
RUN echo made > /srv/made
COPY --from=busybox /bin/busybox /other
RUN --mount=type=bind,target=/context until [ -e /context/go ]; do sleep 0.05; done; {end}
"""


def await_blobs(folder: Path, count: int) -> set[str]:
    """Wait until a registry has so many blobs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = {path.parent.name for path in folder.glob("data/docker/registry/v2/blobs/sha256/*/*/data")}
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} blobs: {found}")


@pytest.mark.userns
def test_layers_are_pushed_while_a_later_step_runs(with_busybox: Pybuild, registry: str, tmp_path: Path) -> None:
    """Base and first layers are in the registry before the step ends, and are those of the image."""
    pybuild = with_busybox
    name = f"{registry}/slow:1"
    context = pybuild.context({"Dockerfile": SLOW_STEP.format(end="true")})
    with pybuild.start("build", "--progress", "plain", "--push", "--tag", name, context) as process:
        early = await_blobs(tmp_path, 3)
        assert process.poll() is None
        pybuild.context({"go": ""})
        _, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    assert f"pushing layers for {name}" in err.decode()
    digest = json.loads(pybuild("inspect", name).out)[0]["Descriptor"]["digest"]
    manifest = json.loads((pybuild.images / "blobs" / digest.replace(":", "/")).read_text())
    assert [layer["digest"].removeprefix("sha256:") in early for layer in manifest["layers"]] == [True] * 3 + [False]
    assert pybuild("run", "--root", "another", name, "cat", "/srv/made").out == "made\n"


@pytest.mark.userns
def test_failed_build_names_nothing_in_the_registry(with_busybox: Pybuild, registry: str, tmp_path: Path) -> None:
    """Layers that were sent by then are not seen by anyone; the failure is that of the step."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": SLOW_STEP.format(end="false")})
    with pybuild.start("build", "--progress", "plain", "--push", "--tag", f"{registry}/slow:1", context) as process:
        await_blobs(tmp_path, 1)
        pybuild.context({"go": ""})
        _, err = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "pushing layers" in err.decode()
    assert "pushing slow" not in err.decode()
    assert list((tmp_path / "data").glob("docker/registry/v2/repositories/slow/_manifests/tags/*")) == []


@pytest.mark.userns
def test_registry_that_is_not_there_is_told_once_at_the_end(with_busybox: Pybuild) -> None:
    """What cannot be sent early is no error of its own, and the steps are done for the next time."""
    pybuild = with_busybox
    context = pybuild.context({"Dockerfile": "FROM busybox\nRUN echo made > /srv/made\n"})
    words = ("build", "--progress", "plain", "--push", "--tag", "127.0.0.1:9/app:1", context)

    err, again = pybuild(*words, status=3).err, pybuild(*words, status=3).err

    assert re.search(r"^#(\d+) pushing layers for [^#]*^#\1 DONE", err, re.MULTILINE)
    assert re.search(r"^#(\d+) pushing 127.0.0.1:9/app:1\n#\1 ERROR: registry cannot be reached", err, re.MULTILINE)
    assert re.search(r"RUN echo made .*\n#\d+ CACHED", again)


@pytest.mark.skopeo
def test_skopeo_reads_what_was_pushed(with_busybox: Pybuild, registry: str) -> None:
    """The registry hands skopeo the manifest we pushed."""
    name = f"{registry}/app:1"
    with_busybox("tag", "busybox", name)
    with_busybox("push", name)

    seen = json.loads(with_busybox.run_other("skopeo", "inspect", "--tls-verify=false", f"docker://{name}").out)

    assert seen["Digest"] == json.loads(with_busybox("inspect", name).out)[0]["Descriptor"]["digest"]


def test_login_opens_a_guarded_registry(with_busybox: Pybuild, guarded_registry: str) -> None:
    """Without credentials a push is refused; after `login` it works; after `logout` it is refused again."""
    name = f"{guarded_registry}/app:1"
    with_busybox("tag", "busybox", name)
    refused = with_busybox("push", name, status=3)

    with_busybox("login", "--username", "alice", "--password-stdin", guarded_registry, stdin=b"wonderland\n")
    with_busybox("push", name)
    with_busybox("logout", guarded_registry)

    assert "denied" in refused.err
    assert guarded_registry in refused.err
    with_busybox("pull", "--root", "another", name, status=3)


def test_wrong_password_is_refused_and_not_shown(pybuild: Pybuild, guarded_registry: str) -> None:
    """`login` with a wrong password fails, stores nothing and prints nothing of it."""
    done = pybuild(
        "login", "--username", "alice", "--password-stdin", guarded_registry, stdin=b"looking-glass\n", status=3
    )

    assert "denied" in done.err
    assert "Traceback" not in done.err
    assert "looking-glass" not in done.out + done.err
    stored = [path for path in pybuild.folder.rglob("*.json") if guarded_registry in path.read_text()]
    assert stored == []


def test_name_that_the_registry_does_not_know_is_explained(pybuild: Pybuild, registry: str) -> None:
    """A pull of an unknown name says what is not where."""
    done = pybuild("pull", f"{registry}/nothing:1", status=3)

    assert f"not found on {registry}" in done.err
    assert "Traceback" not in done.err


@pytest.mark.userns
def test_base_of_a_stage_that_is_cached_is_not_pulled(with_busybox: Pybuild, registry: str) -> None:
    """Its layers stay in the registry, as nothing needs its files; the build of a changed stage fetches them.

    What is still to be fetched is not said to be cached.
    """
    pybuild = with_busybox
    base = f"{registry}/base:1"
    pybuild("tag", "busybox", base)
    pybuild("push", base)
    digest = json.loads(pybuild("inspect", base).out)[0]["Descriptor"]["digest"]
    manifest = pybuild.images / "blobs" / "sha256" / digest.removeprefix("sha256:")
    (layer,) = json.loads(manifest.read_bytes())["layers"]
    stages = f"FROM {base} AS made\nRUN echo {{}} > /srv/made\nFROM scratch\nCOPY --from=made /srv/made /made\n"
    blob = pybuild.folder / "another" / "images" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")

    def build(text: str) -> str:
        context = pybuild.context({"Dockerfile": stages.format(text)}, text)
        return pybuild("build", "--root", "another", "--tag", "app", "--progress", "plain", context).err

    def is_cached(output: str) -> bool:
        (state,) = re.findall(rf"^#(\d+) .* FROM {re.escape(base)}\n#\1 (CACHED|DONE)", output, re.MULTILINE)
        return state[1] == "CACHED"

    first = build("first")
    was_pulled = blob.exists()
    other = build("other")
    pybuild("rmi", "--root", "another", base)
    was_removed = not blob.exists()
    cached = build("first")
    stayed_away = not blob.exists()
    build("second")

    assert was_pulled
    assert [is_cached(output) for output in (first, other, cached)] == [False, True, False]
    assert was_removed
    assert "pulling" not in cached
    assert stayed_away
    assert blob.exists()
    assert json.loads(pybuild("inspect", "--root", "another", base).out)[0]["Descriptor"]["digest"] == digest


@pytest.mark.userns
def test_build_that_pulls_says_nothing_but_its_progress(with_busybox: Pybuild, registry: str) -> None:
    """Connections of the process that plans are closed before it forks, so no process trips over those of another."""
    pybuild = with_busybox
    base = f"{registry}/base:1"
    pybuild("tag", "busybox", base)
    pybuild("push", base)

    done = pybuild("build", "-q", "--root", "another", pybuild.context({"Dockerfile": f"FROM {base}\nRUN true\n"}))

    assert done.err == ""
