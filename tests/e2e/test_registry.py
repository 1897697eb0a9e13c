"""Pull and push against Debian's docker-registry on loopback, open and with passwords."""

from __future__ import annotations

import json
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
    """Its layers stay in the registry, as nothing needs its files; the build of a changed stage fetches them."""
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

    build("first")
    was_pulled = blob.exists()
    pybuild("rmi", "--root", "another", base)
    was_removed = not blob.exists()
    cached = build("first")
    stayed_away = not blob.exists()
    build("second")

    assert was_pulled
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
