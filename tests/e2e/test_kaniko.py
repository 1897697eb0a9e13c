"""`pybuild kaniko` as a CI job starts it: pushed to Debian's docker-registry on loopback, or written to files."""

from __future__ import annotations

import base64
import json
import ssl
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.fakes.certificate_authority import CertificateAuthority
from tests.fakes.docker_registry import run_docker_registry
from tests.fakes.registry_server import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.command import Pybuild

SCRATCH = {"Dockerfile": "FROM scratch\nCOPY file /file\n", "file": "text\n"}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Return `localhost:port` of a registry that takes anything from anyone."""
    with run_docker_registry(tmp_path) as address:
        yield address.replace("127.0.0.1", "localhost")


def _digest(pybuild: Pybuild, name: str, root: str = "another") -> str:
    """Return the digest that the registry has under *name*."""
    pybuild("pull", "--root", root, name)
    digest: str = json.loads(pybuild("inspect", "--root", root, name).out)[0]["Descriptor"]["digest"]
    return digest


@pytest.mark.registry
def test_destinations_are_pushed_and_digests_written(pybuild: Pybuild, registry: str) -> None:
    """Every destination has the image; the three files name its digest as kaniko does."""
    names = [f"{registry}/x:1", f"{registry}/team/y:2"]
    context = pybuild.context(SCRATCH)
    files = [
        "--digest-file=f",
        "--image-name-with-digest-file=out/named",
        "--image-name-tag-with-digest-file=out/tagged",
    ]

    done = pybuild(
        "kaniko", "--context", f"dir://{context}", "-d", names[0], "--destination", names[1], "--insecure", *files
    )

    digest = (pybuild.folder / "f").read_text()
    assert [_digest(pybuild, name) for name in names] == [digest, digest]
    assert (pybuild.folder / "out/named").read_text() == f"{registry}/x@{digest}\n{registry}/team/y@{digest}\n"
    assert (pybuild.folder / "out/tagged").read_text() == f"{names[0]}@{digest}\n{names[1]}@{digest}\n"
    assert done.err.startswith(f"pybuild: kaniko: --insecure: {registry} may use plain HTTP or any certificate, ")
    assert done.out == ""


def test_image_goes_to_a_tar_alone(pybuild: Pybuild) -> None:
    """`--no-push --tar-path` writes an archive that `load` reads, and leaves the store without the image."""
    context = pybuild.context(SCRATCH)

    done = pybuild("kaniko", "-c", context, "--no-push", "--tar-path", "a.tar", "-d", "reg.invalid/x:1", "--force")

    assert "--force has no effect" in done.err
    assert pybuild("images", "-q").out == ""
    pybuild("load", "-i", "a.tar")
    assert json.loads(pybuild("inspect", "reg.invalid/x:1").out)[0]["RepoTags"] == ["reg.invalid/x:1"]


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_context_comes_as_a_tar(pybuild: Pybuild, tmp_path: Path, stdin: bool) -> None:
    """`tar://FILE` and `tar://stdin` give the image that the folder gives."""
    folder = pybuild.context({"in/it/Dockerfile": SCRATCH["Dockerfile"], "file": "text\n"})
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(folder, ".")
    (pybuild.folder / "c.tar.gz").write_bytes((tmp_path / "c.tar.gz").read_bytes())
    common = ["-f", "in/it/Dockerfile", "--no-push", "--reproducible", "--oci-layout-path"]

    where = ["tar://stdin"] if stdin else ["tar://c.tar.gz"]
    data = (tmp_path / "c.tar.gz").read_bytes() if stdin else b""
    pybuild("kaniko", "-c", *where, *common, "a", "--digest-file", "1", stdin=data)
    pybuild("kaniko", "-c", f"dir://{folder}", *common, "b", "--digest-file", "2")

    digest = (pybuild.folder / "1").read_text()
    assert digest == (pybuild.folder / "2").read_text()
    listed = json.loads((pybuild.folder / "a" / "index.json").read_text())["manifests"]
    assert [descriptor["digest"] for descriptor in listed] == [digest]


@pytest.mark.registry
def test_credentials_of_kanikos_folder_are_used(pybuild: Pybuild, tmp_path: Path) -> None:
    """A registry with passwords takes what `.docker/config.json` of `--kaniko-dir` says; without, the push is refused."""
    context = pybuild.context(SCRATCH)
    with run_docker_registry(tmp_path, users={"alice": "wonderland"}) as address:
        auth = base64.b64encode(b"alice:wonderland").decode()
        pybuild.context({".docker/config.json": json.dumps({"auths": {address: {"auth": auth}}})}, name="k")
        words = ["kaniko", "-c", context, "-d", f"{address}/x:1"]

        refused = pybuild(*words, status=3)
        done = pybuild(*words, "--kaniko-dir", "k")

    assert address in refused.err
    assert "wonderland" not in done.err + done.out + refused.err


def test_certificates_open_a_registry_with_tls(pybuild: Pybuild, tmp_path: Path) -> None:
    """A registry that asks for a certificate gets ours, and its own is checked with the authority that is named."""
    authority = CertificateAuthority()
    authority.issue(tmp_path / "server.pem", tmp_path / "server.key")
    authority.issue(tmp_path / "client.pem", tmp_path / "client.key")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    tls.load_verify_locations(cadata=authority.pem.decode())
    tls.verify_mode = ssl.CERT_REQUIRED
    names = ("client.pem", "client.key")
    pybuild.context({"ca.pem": authority.pem.decode()} | {name: (tmp_path / name).read_text() for name in names}, ".")
    context = pybuild.context(SCRATCH)
    with FakeRegistry(tls=tls) as registry:
        words = ["kaniko", "-c", context, "-d", f"{registry.address}/x:1", "--digest-file", "f"]
        client = ["--registry-client-cert", f"{registry.address}=client.pem,client.key"]

        pybuild(*words, *client, status=3)
        assert registry.manifests == {}
        pybuild(*words, *client, "--registry-certificate", f"{registry.address}=ca.pem")
        pushed = dict(registry.manifests["x"])
        registry.manifests.clear()
        pybuild(*words, *client, "--skip-tls-verify")

    assert (pybuild.folder / "f").read_text() in pushed
    assert pushed.keys() == registry.manifests["x"].keys()


@pytest.mark.registry
def test_base_image_comes_from_a_mirror(with_busybox: Pybuild, registry: str) -> None:
    """An image of docker.io is pulled from `--registry-mirror`, by a machine that cannot reach docker.io."""
    pybuild = with_busybox
    pybuild("tag", "busybox", f"{registry}/library/mirrored:1")
    pybuild("push", f"{registry}/library/mirrored:1")
    context = pybuild.context({"Dockerfile": "FROM mirrored:1\nLABEL a=b\n"})
    mirror = ["--registry-mirror", registry, "--skip-default-registry-fallback"]

    pybuild("kaniko", "--root", "another", "-c", context, "-d", f"{registry}/x:1", *mirror)

    pybuild("pull", "--root", "third", f"{registry}/x:1")
    assert json.loads(pybuild("inspect", "--root", "third", f"{registry}/x:1").out)[0]["Config"]["Labels"] == {"a": "b"}


@pytest.mark.registry
@pytest.mark.userns
def test_cache_repository_serves_another_machine(with_busybox: Pybuild, registry: str) -> None:
    """What one store added to `--cache-repo`, another one does not run again."""
    pybuild = with_busybox
    pybuild("tag", "busybox", f"{registry}/base:1")
    pybuild("push", f"{registry}/base:1")
    context = pybuild.context(
        {"Dockerfile": f"FROM {registry}/base:1\nRUN cat /proc/sys/kernel/random/uuid > /srv/id\n"}
    )
    words = [
        "-c",
        context,
        "-d",
        f"{registry}/x:1",
        "--cache=true",
        "--cache-repo",
        f"{registry}/cache",
        "--digest-file",
    ]

    pybuild("kaniko", "--root", "one", *words, "1")
    again = pybuild("kaniko", "--root", "two", *words, "2")

    assert (pybuild.folder / "1").read_text() == (pybuild.folder / "2").read_text()
    assert "CACHED" in again.err


@pytest.mark.parametrize(
    ("dockerfile", "status"),
    [("FROM scratch\nFRO x\n", 2), ("FROM localhost:1/none\n", 3)],
    ids=["dockerfile", "registry"],
)
def test_failed_build_writes_no_digest(pybuild: Pybuild, dockerfile: str, status: int) -> None:
    """The exit status is that of `pybuild build`, and no file claims a digest."""
    context = pybuild.context({"Dockerfile": dockerfile})

    pybuild("build", context, status=status)
    pybuild("kaniko", "-c", context, "--no-push", "--digest-file", "f", status=status)

    assert not (pybuild.folder / "f").exists()
