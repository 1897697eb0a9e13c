"""The step that lists software, and what is made of what it wrote."""

import io
import json
import tarfile

import pytest

from builder.attest.sbom import add_layers, plan_scan, read_documents
from builder.attest.statement import SPDX, Attestation
from builder.errors import AttestationError, UsageError
from builder.request import SbomRequest
from registry.oci.digest import digest_of
from registry.oci.reference import parse_reference
from tests.builder.plan.test_convert import LINUX, image, plan

WANTED = SbomRequest(generator=parse_reference("gen"), parameters=(("DEPTH", "3"),))
STATEMENT = {"_type": "https://in-toto.io/Statement/v0.1", "predicateType": SPDX, "predicate": {"name": "x"}}


def scan(text, generator=None, **wishes):
    """Plan a Dockerfile and the step that lists its software."""
    from builder.request import BuildRequest  # noqa: PLC0415  beside its only use
    from registry.content.compression import Compression  # noqa: PLC0415  as above

    made = plan(text, {"busybox:latest": image()}, sbom=WANTED, **wishes)
    request = BuildRequest(
        context=".", root=".", platform=LINUX, build_platform=LINUX, compression=Compression(), network="none"
    )
    generator = generator or image(
        entrypoint=("/scan",), cmd=("all",), env=("A=b",), working_directory="/w", user="joe"
    )
    return plan_scan(WANTED, made, request, generator)


def mounts(vertex):
    """Give target and source of the mounts of a scan."""
    return {mount.mount.target: mount.source for mount in vertex.op.mounts}


def test_generator_runs_as_the_protocol_says():
    """Its own command and variables, where to read and write, as root, in the network of the build."""
    vertex = scan("FROM busybox\nCOPY a /")
    environ = dict(vertex.op.environ)

    assert vertex.name == "[linux/amd64] generating sbom using docker.io/library/gen:latest"
    assert vertex.op.args == ("/scan", "all")
    assert (environ["A"], environ["BUILDKIT_SCAN_DESTINATION"]) == ("b", "/run/out/")
    assert environ["BUILDKIT_SCAN_SOURCE"] == "/run/src/core/sbom"
    assert environ["BUILDKIT_SCAN_DEPTH"] == "3"
    assert "BUILDKIT_SCAN_SOURCE_EXTRAS" not in environ
    assert (vertex.op.cwd, vertex.op.user, vertex.op.network) == ("/w", "", "none")
    assert mounts(vertex) == {"/run/src/core/sbom": 0, "/tmp": None}
    assert all(getattr(mount.mount, "readonly", True) for mount in vertex.op.mounts if mount.source is not None)
    assert vertex.parent.op.path == "/run/out"


def test_stages_and_context_are_extras():
    """What the ARGs of the Dockerfile ask for is shown beside the result."""
    text = (
        "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM busybox AS one\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN a\n"
        "FROM scratch AS two\nFROM busybox\nCOPY --from=one / /\nCOPY --from=two / /\n"
    )
    vertex = scan(text)

    assert dict(vertex.op.environ)["BUILDKIT_SCAN_SOURCE_EXTRAS"] == "/run/src/extras"
    assert mounts(vertex) == {
        "/run/src/core/sbom": 0,
        "/run/src/extras/sbom-one": 1,
        "/run/src/extras/sbom-context": None,
        "/tmp": None,
    }


def test_empty_result_can_be_scanned():
    """A result without layers is shown as an empty folder."""
    assert scan("FROM scratch").sources[0].name == "empty file system"


def test_generator_without_a_command_is_refused():
    """Nothing could be run."""
    with pytest.raises(UsageError, match=r"sbom scanner docker\.io/library/gen:latest does not have cmd"):
        scan("FROM busybox", image())


# Collecting


def layer(files):
    """Make a tar of files, JSON or bytes, by path."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def test_documents_are_collected_result_first():
    """Other files that the generator left are passed by, subjects it gave are kept."""
    own = {**STATEMENT, "subject": [{"name": "s", "digest": {"sha256": "12"}}]}
    found = read_documents(
        layer({"run": None, "run/out": None, "run/out/a.json": own, "run/out/sbom.spdx.json": STATEMENT, "x": b"junk"}),
        "gen",
    )

    assert [one.file for one in found] == ["sbom.spdx.json", "a.json"]
    assert found[0].predicate == {"name": "x"}
    assert (found[0].subjects, found[1].subjects[0].name) == ((), "s")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json", "not JSON"),
        ([], "is no in-toto statement"),
        ({**STATEMENT, "_type": "other"}, "is no in-toto statement"),
        ({**STATEMENT, "predicate": None}, "has no predicate"),
        ({**STATEMENT, "predicateType": ""}, "has no predicate"),
        ({**STATEMENT, "predicateType": "https://slsa.dev/provenance/v1"}, "which only the builder may write"),
        ({**STATEMENT, "subject": [{"name": "x"}]}, "has a subject without digest"),
        ({**STATEMENT, "subject": "x"}, "has a subject without digest"),
        ("/etc/passwd", "wrote what is no file: `f`"),
        (None, "wrote what is no file: `f`"),
    ],
)
def test_document_that_cannot_be_used_is_explained(content, message):
    """The generator is named in the hint."""
    with pytest.raises(AttestationError, match=message) as caught:
        read_documents(layer({"run/out/f": content}), "gen:1")

    assert "gen:1" in caught.value.hint


def test_whiteout_is_no_document():
    """As a file beside a result its name would take away another."""
    with pytest.raises(AttestationError, match=r"wrote what is no file: `\.wh\.bin`"):
        read_documents(layer({"run/out/.wh.bin": STATEMENT}), "gen")


def test_generator_that_wrote_nothing_is_an_error():
    """A list was asked for, so none is no success."""
    with pytest.raises(AttestationError, match="wrote no statement: `gen`"):
        read_documents(layer({"run/out": None}), "gen")


# Layers


def test_files_tell_their_layers():
    """A comment that is there stays, what is in no layer gets none, and the tool is named."""
    top = digest_of(b"top")
    document = Attestation(
        predicate_type=SPDX,
        file="sbom.spdx.json",
        predicate={
            "files": [{"fileName": "/a/b"}, {"fileName": "./a/b", "comment": "mine"}, {"fileName": "c"}, "odd"],
            "creationInfo": {"created": "t", "creators": ["Tool: x"]},
        },
    )

    predicate = add_layers(document, lambda path: top if path == b"a/b" else None).predicate

    assert predicate["files"] == [
        {"fileName": "/a/b", "comment": f"layerID: {top}"},
        {"fileName": "./a/b", "comment": "mine"},
        {"fileName": "c"},
        "odd",
    ]
    assert predicate["creationInfo"]["creators"][0] == "Tool: x"
    assert predicate["creationInfo"]["creators"][1].startswith("Tool: pybuild-")


@pytest.mark.parametrize("change", [{"file": "sbom-stage.spdx.json"}, {"predicate_type": "https://cyclonedx.org/bom"}])
def test_other_documents_stay_as_they_are(change):
    """What is not in the result, or in another format, has no layers to tell."""
    fields = {"predicate_type": SPDX, "file": "sbom.spdx.json", "predicate": {"files": [{"fileName": "a"}]}}
    document = Attestation(**{**fields, **change})

    assert add_layers(document, lambda _: digest_of(b"")) is document
