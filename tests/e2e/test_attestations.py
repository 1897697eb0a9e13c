"""What a build says of its results, from start to end: provenance, lists of software, and who reads them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.docker_registry import run_docker_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns

SCAN = """\
#!/bin/sh
# Lists the files of everything it is shown, as the protocol wants it.
set -e
list() {
    name=$(basename "$1")
    cd "$1"
    if touch "$1/written" 2>/dev/null; then echo "$1 can be written" >&2; exit 3; fi
    {
        printf '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":'
        printf '{"name":"%s","comment":"%s","creationInfo":{"creators":["Tool: e2e"]},"files":[' "$name" "$BUILDKIT_SCAN_WORD"
        comma=
        find . -type f | sort | while read -r file; do
            printf '%s{"fileName":"%s"}' "$comma" "${file#.}"
            comma=,
        done
        printf ']}}'
    } > "$BUILDKIT_SCAN_DESTINATION/$name.spdx.json"
}
touch /tmp/may-be-written
list "$BUILDKIT_SCAN_SOURCE"
for extra in ${BUILDKIT_SCAN_SOURCE_EXTRAS:+"$BUILDKIT_SCAN_SOURCE_EXTRAS"/*}; do list "$extra"; done
"""
DOCKERFILE = """\
FROM busybox AS made
ARG BUILDKIT_SBOM_SCAN_STAGE=true
RUN --mount=type=secret,id=token mkdir /o && echo made > /o/made
FROM busybox
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
RUN echo ran > /srv/ran
COPY file /srv/
COPY --from=made /o/made /srv/made
ENTRYPOINT ["cat"]
"""
ATTESTED = ("--provenance=mode=max", "--sbom=generator=gen,WORD=hello")
EPOCH = "SOURCE_DATE_EPOCH=1700000000"


@pytest.fixture
def with_generator(with_busybox: Pybuild) -> Pybuild:
    """Return the command with the image `gen`, which lists files, in its root."""
    files = {"Dockerfile": 'FROM busybox\nCOPY scan /\nENTRYPOINT ["/scan"]\n', "scan": SCAN}
    with_busybox("build", "-t", "gen", with_busybox.context(files, "generator"))
    return with_busybox


@pytest.fixture
def context(with_generator: Pybuild) -> str:
    """Return a context with two stages, a file and a command."""
    return with_generator.context({"Dockerfile": DOCKERFILE, "file": "text\n"})


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Return `host:port` of a registry that takes anything from anyone."""
    with run_docker_registry(tmp_path) as address:
        yield address


def blob(pybuild: Pybuild, digest: str) -> Any:
    """Read a JSON document of the store."""
    return json.loads((pybuild.images / "blobs" / digest.replace(":", "/")).read_bytes())


def built_digest(pybuild: Pybuild, *arguments: str) -> str:
    """Build, and return the digest of what was made."""
    pybuild("build", "--metadata-file", "m.json", *arguments)
    return str(json.loads((pybuild.folder / "m.json").read_text())["containerimage.digest"])


def statements(pybuild: Pybuild, digest: str) -> list[Any]:
    """Return the statements about the first image of an index in the store."""
    manifest = blob(pybuild, blob(pybuild, digest)["manifests"][-1]["digest"])
    return [blob(pybuild, layer["digest"]) for layer in manifest["layers"]]


@pytest.mark.registry
@pytest.mark.skopeo
@pytest.mark.parametrize("form", ["oci-artifact=true", "oci-artifact=false"])
def test_attested_image_is_pushed_and_read_by_others(
    with_generator: Pybuild, context: str, registry: str, form: str
) -> None:
    """The registry has the index with image and attestations; skopeo takes the one, or all; the image is unchanged."""
    pybuild, name = with_generator, f"{registry}/team/app:1"
    plain = built_digest(pybuild, "-t", "plain", context)
    digest = built_digest(pybuild, *ATTESTED, "-o", f"type=image,name={name},push=true,{form}", context)
    source = ("--src-tls-verify=false", f"docker://{name}")
    raw = pybuild.run_other("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}").out
    image, attested = json.loads(raw)["manifests"]
    pybuild.run_other("skopeo", "--insecure-policy", "copy", *source, "dir:one")
    pybuild.run_other("skopeo", "--insecure-policy", "copy", "--all", *source, "oci:all:app")

    assert (image["digest"], image["platform"]["os"]) == (plain, "linux")
    assert attested["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attested["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": plain,
    }
    assert json.loads((pybuild.folder / "one/manifest.json").read_text())["layers"]
    manifest = json.loads((pybuild.folder / "all/blobs" / attested["digest"].replace(":", "/")).read_text())
    assert [layer["annotations"]["in-toto.io/predicate-type"] for layer in manifest["layers"]] == [
        "https://spdx.dev/Document",
        "https://spdx.dev/Document",
        "https://spdx.dev/Document",
        "https://slsa.dev/provenance/v1",
    ]
    assert all((pybuild.folder / "all/blobs" / one["digest"].replace(":", "/")).exists() for one in manifest["layers"])
    assert ("subject" in manifest) is (form == "oci-artifact=true")
    assert digest != plain


def test_generator_lists_the_result_and_what_is_asked_for(with_generator: Pybuild, context: str) -> None:
    """The result first, with the layer of each file, then context and stage; all about the image."""
    pybuild = with_generator
    digest = built_digest(pybuild, "-t", "app", *ATTESTED, context)
    result, extra, stage, provenance = statements(pybuild, digest)
    image = blob(pybuild, blob(pybuild, digest)["manifests"][0]["digest"])
    files = {one["fileName"]: one["comment"] for one in result["predicate"]["files"]}

    assert [one["predicate"]["name"] for one in (result, extra, stage)] == ["sbom", "sbom-context", "sbom-made"]
    assert files["/srv/ran"] == f"layerID: {image['layers'][-3]['digest']}"
    assert files["/srv/made"] == f"layerID: {image['layers'][-1]['digest']}"
    assert result["predicate"]["comment"] == "hello"
    assert {one["fileName"] for one in extra["predicate"]["files"]} == {"/Dockerfile", "/file"}
    assert "/o/made" in {one["fileName"] for one in stage["predicate"]["files"]}
    assert {one["subject"][0]["name"] for one in (result, extra, stage, provenance)} == {
        "pkg:docker/app@latest?platform=linux%2Famd64"
    }
    uris = [one["uri"].partition("?")[0] for one in provenance["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert uris == ["pkg:docker/busybox@latest", "pkg:docker/gen@latest"]


def test_list_of_an_unchanged_result_is_cached(with_generator: Pybuild, context: str) -> None:
    """Nothing runs again; another parameter is another list."""
    pybuild = with_generator
    pybuild("build", *ATTESTED, context)
    again = pybuild("build", "--isolation", "none", "--progress=plain", *ATTESTED, context).err
    other = pybuild("build", "--progress=plain", "--sbom=generator=gen,WORD=other", context).err

    step = "generating sbom using docker.io/library/gen:latest"
    number = next(line.split()[0] for line in again.splitlines() if step in line)
    assert f"{number} CACHED" in again.splitlines()
    number = next(line.split()[0] for line in other.splitlines() if step in line)
    assert f"{number} CACHED" not in other.splitlines()


def test_list_comes_with_a_cache_from_elsewhere(with_generator: Pybuild, context: str) -> None:
    """A cache with the steps of all stages has the generator's too, so a build on another store runs nothing."""
    pybuild = with_generator
    for name in ("busybox", "gen"):
        pybuild("save", "-o", f"{name}.tar", name)
        pybuild("load", "-i", f"{name}.tar", "--root", "other")
    pybuild("build", *ATTESTED, "--cache-to", "type=local,dest=cache,mode=max", context)
    cached = ("--root", "other", "--cache-from", "type=local,src=cache")

    pybuild("build", "--isolation", "none", *ATTESTED, *cached, context)


def test_attested_image_is_used_as_any_other(with_generator: Pybuild, context: str) -> None:
    """It runs, is listed, inspected, tagged, built on, saved and loaded; nobody takes what is told of it for it."""
    pybuild = with_generator
    pybuild("build", "-t", "app:1", *ATTESTED, context)
    plain = built_digest(pybuild, context)
    pybuild("tag", "app:1", "app:2")
    child = pybuild.context({"Dockerfile": "FROM app:2 AS a\nFROM app:1\nCOPY --from=a /srv/made /srv/copy\n"}, "child")
    pybuild("build", "-t", "child", child)
    pybuild("save", "-o", "app.tar", "app:1")
    pybuild("load", "-i", "app.tar", "--root", "other")
    inspected = json.loads(pybuild("inspect", "app:2").out)[0]

    assert pybuild("run", "app:1", "/srv/made", "/srv/ran").lines == ["made", "ran"]
    assert pybuild("run", "child", "/srv/copy").lines == ["made"]
    assert pybuild("run", "--root", "other", "app:1", "/srv/made").lines == ["made"]
    assert inspected["Descriptor"]["digest"] == plain
    assert inspected["Os"] == "linux"
    assert len([line for line in pybuild("images").lines if line.startswith("app ")]) == 2
    assert "COPY /o/made /srv/made" in pybuild("history", "--no-trunc", "app:2").out


@pytest.mark.registry
def test_attested_image_goes_through_a_registry(with_generator: Pybuild, context: str, registry: str) -> None:
    """`push` brings everything there, and from there it is pulled and built on."""
    pybuild, name = with_generator, f"{registry}/app:1"
    pybuild("build", "-t", name, *ATTESTED, context)
    pybuild("push", name)
    child = pybuild.context({"Dockerfile": f"FROM {name}\nCOPY Dockerfile /\n"}, "child")
    pybuild("build", "--root", "other", "-t", "child", child)
    pybuild("pull", "--root", "third", name)

    assert pybuild("run", "--root", "other", "child", "/srv/made").lines == ["made"]
    assert pybuild("run", "--root", "third", name, "/srv/made").lines == ["made"]


def test_archive_with_attestations_is_loaded_whole(with_generator: Pybuild, context: str) -> None:
    """An OCI archive keeps the index; where it is loaded it has its attestations, also after a prune."""
    pybuild = with_generator
    pybuild("build", "-t", "app", *ATTESTED, "-o", "type=oci,dest=app.tar", context)
    elsewhere = replace(pybuild, variables={"PYBUILD_ROOT": str(pybuild.folder / "other")})
    elsewhere("load", "-i", "app.tar")
    elsewhere("prune", "-a", "-f")
    (entry,) = json.loads((pybuild.folder / "other/images/index.json").read_text())["manifests"]
    folder = pybuild.folder / "other/images/blobs"
    index = json.loads((folder / entry["digest"].replace(":", "/")).read_text())
    manifest = json.loads((folder / index["manifests"][1]["digest"].replace(":", "/")).read_text())

    assert elsewhere("run", "app", "/srv/made").lines == ["made"]
    assert len(manifest["layers"]) == 4
    assert all((folder / layer["digest"].replace(":", "/")).exists() for layer in manifest["layers"])


def test_files_of_a_result_are_attested_beside_them(with_generator: Pybuild, context: str) -> None:
    """One file each, about every file of the result by its digest; a prefix goes before their names."""
    pybuild = with_generator
    pybuild("build", *ATTESTED, "-o", "out", "-o", "type=tar,dest=out.tar,attestation-prefix=my.", context)
    provenance = json.loads((pybuild.folder / "out/provenance.json").read_text())
    subjects = {one["name"]: one["digest"]["sha256"] for one in provenance["subject"]}
    with tarfile.open(pybuild.folder / "out.tar") as tar:
        names = tar.getnames()

    assert (pybuild.folder / "out/provenance.json").stat().st_mode & 0o777 == 0o600
    assert subjects["srv/made"] == hashlib.sha256(b"made\n").hexdigest()
    assert {"srv/made", "srv/ran", "srv/file", "bin/busybox"} <= set(subjects)
    assert {"sbom.spdx.json", "sbom-made.spdx.json", "sbom-context.spdx.json"} <= {
        path.name for path in (pybuild.folder / "out").iterdir()
    }
    assert {"my.provenance.json", "my.sbom.spdx.json"} <= set(names)
    assert json.loads((pybuild.folder / "out/sbom.spdx.json").read_text())["subject"] == provenance["subject"]


def test_files_of_platforms_in_one_folder_have_attestations_apart(with_busybox: Pybuild) -> None:
    """Where platforms are not split their names say the platform, else each folder has its own."""
    text = "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n"
    context = with_busybox.context({"Dockerfile": text, "file": "x"})
    both = ("--provenance=mode=min", "--platform=linux/amd64,linux/arm64")
    with_busybox("build", *both, "-o", "type=local,dest=one,platform-split=false", "-o", "type=local,dest=two", context)
    with_busybox("build", "--provenance=inline-only=true", "-o", "three", context)

    assert {path.name for path in (with_busybox.folder / "one").iterdir()} == {
        "amd64",
        "arm64",
        "provenance.linux_amd64.json",
        "provenance.linux_arm64.json",
    }
    assert (with_busybox.folder / "two/linux_arm64/provenance.json").exists()
    assert [path.name for path in (with_busybox.folder / "three").iterdir()] == ["amd64"]


def test_epoch_makes_the_same_index_in_two_stores(with_generator: Pybuild, context: str) -> None:
    """Image, list and provenance are the same to the byte."""
    pybuild = with_generator
    for name in ("busybox", "gen"):
        pybuild("save", "-o", f"{name}.tar", name)
        pybuild("load", "-i", f"{name}.tar", "--root", "other")
    output = "type=image,name=app,rewrite-timestamp=true"
    digests = [
        built_digest(pybuild, *ATTESTED, "--build-arg", EPOCH, "-o", output, *root, context)
        for root in ((), ("--root", "other"))
    ]

    assert digests[0] == digests[1]


def test_list_that_cannot_be_made_here_is_refused(with_generator: Pybuild) -> None:
    """Without isolation no generator runs: status 4, and nothing is named."""
    context = with_generator.context({"Dockerfile": "FROM busybox\nCOPY Dockerfile /\n"}, "simple")
    done = with_generator("build", "-t", "app", "--isolation", "none", "--sbom=generator=gen", context, status=4)

    assert "isolation `none` runs no steps" in done.err
    assert "app" not in with_generator("images").out
    with_generator("build", "-t", "app", "--isolation", "none", "--provenance", context)


def test_two_attestations_of_one_name_are_refused_as_files(with_generator: Pybuild, context: str) -> None:
    """Beside files each needs a name; in an image none has one."""
    clash = ("--provenance=filename=sbom.spdx.json", "--sbom=generator=gen")
    done = with_generator("build", *clash, "-o", "out", context, status=1)

    assert "duplicate attestation path name sbom.spdx.json" in done.err
    with_generator("build", *clash, context)


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ("exit 0", 1, "sbom generator wrote no statement"),
        ("echo junk > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json", 1, "not JSON"),
        ("ln -s /etc/passwd $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json", 1, "wrote what is no file"),
        ("echo trouble; exit 5", 1, "did not complete successfully: exit code: 5"),
    ],
)
def test_generator_that_fails_fails_the_build(with_busybox: Pybuild, script: str, status: int, message: str) -> None:
    """With what was wrong, and without an image."""
    text = f'FROM busybox\nENTRYPOINT ["sh", "-c", "{script}"]\n'
    with_busybox("build", "-t", "gen", with_busybox.context({"Dockerfile": text}, "generator"))
    context = with_busybox.context({"Dockerfile": "FROM busybox\nCOPY Dockerfile /\n"})
    done = with_busybox("build", "-t", "app", "--sbom=generator=gen", context, status=status)

    assert message in done.err
    assert "app" not in with_busybox("images").out


def test_missing_generator_is_explained(with_busybox: Pybuild) -> None:
    """As a base image that cannot be had."""
    context = with_busybox.context({"Dockerfile": "FROM busybox\n"})
    done = with_busybox("build", "--sbom=generator=127.0.0.1:1/gen", context, status=3)

    assert "127.0.0.1:1" in done.err
    assert "Traceback" not in done.err


def test_quiet_build_prints_the_index(with_generator: Pybuild, context: str) -> None:
    """With `-q` and in the file of `--iidfile`, as buildx does for an index; and what is printed names the image."""
    pybuild = with_generator
    out = pybuild("build", "-q", "--iidfile", "iid", *ATTESTED, context).out.strip()

    assert out == (pybuild.folder / "iid").read_text()
    assert len(blob(pybuild, out)["manifests"]) == 2
    assert json.loads(pybuild("inspect", out).out)[0]["Config"]["Entrypoint"] == ["cat"]
