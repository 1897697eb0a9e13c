"""`--attest`, `--provenance` and `--sbom`."""

import pytest

from builder.cli.arguments import parser_for
from builder.cli.build_request import parse_build
from builder.cli.environment import Environment
from builder.errors import UsageError
from builder.request import ProvenanceRequest, SbomRequest
from registry.errors import ReferenceInvalidError
from registry.oci.reference import parse_reference

SYFT = SbomRequest(generator=parse_reference("docker/buildkit-syft-scanner:stable-1"))


def parse(folder, *words, **variables):
    """Parse a command line in a folder with a Dockerfile."""
    (folder / "Dockerfile").write_text("FROM scratch\n")
    environment = Environment(variables=variables, cwd=folder, home=folder, stdout_tty=False, uid=1000)
    return parse_build(parser_for("build").parse([*words, "--root", str(folder)]), environment)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], None),
        (["--provenance"], ProvenanceRequest()),
        (["--provenance", "."], ProvenanceRequest()),
        (["--provenance", "--pull"], ProvenanceRequest()),
        (["--provenance=true"], ProvenanceRequest()),
        (["--provenance", "true"], ProvenanceRequest()),
        (["--provenance=1"], ProvenanceRequest()),
        (["--provenance=false"], None),
        (["--provenance", "false", "."], None),
        (["--provenance=mode=min"], ProvenanceRequest(mode="min")),
        (["--provenance", "mode=min,version=v0.2", "."], ProvenanceRequest(mode="min", version="v0.2")),
        (["--provenance=mode=full"], ProvenanceRequest()),
        (["--attest", "type=provenance"], ProvenanceRequest()),
        (["--attest=type=provenance,disabled=true"], None),
        (
            [
                "--attest=type=provenance,mode=max,builder-id=https://ci/1,reproducible=true,inline-only=1,filename=p.json"
            ],
            ProvenanceRequest(builder_id="https://ci/1", reproducible=True, inline_only=True, filename="p.json"),
        ),
        (['--attest="type=provenance","builder-id=a,b"'], ProvenanceRequest(builder_id="a,b")),
    ],
)
def test_provenance_is_spelled_as_with_buildx(tmp_path, words, wanted):
    """Short and long, alone and with a value."""
    assert parse(tmp_path, *words).provenance == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], None),
        (["--sbom"], SYFT),
        (["--sbom=true"], SYFT),
        (["--sbom=false"], None),
        (["--sbom=generator=me/gen:1"], SbomRequest(generator=parse_reference("me/gen:1"))),
        (
            ["--attest=type=sbom,generator=gen,EXTRA_DEPTH=2,A=1"],
            SbomRequest(generator=parse_reference("gen"), parameters=(("A", "1"), ("EXTRA_DEPTH", "2"))),
        ),
        (["--attest=type=sbom,disabled=true"], None),
    ],
)
def test_sbom_is_spelled_as_with_buildx(tmp_path, words, wanted):
    """What is no generator is a parameter of it."""
    assert parse(tmp_path, *words).sbom == wanted


def test_no_default_attestations_is_harmless(tmp_path):
    """There are none, and asking for them still works."""
    request = parse(tmp_path, "--sbom", BUILDX_NO_DEFAULT_ATTESTATIONS="1")

    assert (request.provenance, request.sbom) == (None, SYFT)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--provenance", "--attest=type=provenance"], "duplicate attestation field provenance"),
        (["--attest=mode=max"], "attestation type not specified: `mode=max`"),
        (["--attest=type=sbon"], 'unknown attestation type "sbon"'),
        (["--attest=type=provenance,max"], "not key=value: `max`"),
        (["--provenance=max"], "option --provenance: not key=value: `max`"),
        (["--provenance=mode=most"], 'invalid mode "most"'),
        (["--provenance=moed=max"], "unknown key: `moed`"),
        (["--provenance=version=v2"], "invalid provenance SLSA version: `v2`"),
        (["--provenance=reproducible=maybe"], "reproducible is true or false, not `maybe`"),
        (["--provenance=filename=../x"], "filename is not the name of a file: `../x`"),
        (["--provenance=filename=.wh.x"], "filename is not the name of a file: `.wh.x`"),
        (["-o", "type=local,dest=o,attestation-prefix=../"], "attestation-prefix is no part of a file name"),
        (["--sbom=generator="], "generator is empty"),
        (["--sbom=my-key=1"], "not a parameter of a generator: `my-key`"),
        (["--attest=type=sbom,disabled=x"], "disabled is true or false, not `x`"),
    ],
)
def test_attestation_that_cannot_be_is_explained(tmp_path, words, message):
    """One message that says what it is."""
    with pytest.raises(UsageError) as caught:
        parse(tmp_path, *words)

    assert message in caught.value.message


def test_generator_is_the_name_of_an_image(tmp_path):
    """What is none is refused as everywhere."""
    with pytest.raises(ReferenceInvalidError):
        parse(tmp_path, "--sbom=generator=Not An Image")


@pytest.mark.parametrize(
    ("words", "value", "recorded"),
    [
        ([], "max", None),
        (["--metadata-file=m"], "", "min"),
        (["--metadata-file=m"], "min", "min"),
        (["--metadata-file=m"], "max", "max"),
        (["--metadata-file=m"], "disabled", None),
        (["--metadata-file=m"], "false", None),
        (["--metadata-file=m"], "0", None),
    ],
)
def test_metadata_file_tells_as_much_as_the_variable_says(tmp_path, words, value, recorded):
    """As with buildx, the least by default."""
    assert parse(tmp_path, *words, BUILDX_METADATA_PROVENANCE=value).recorded == recorded
