"""What a provenance tells of a build, in both versions and modes."""

import base64
import json

import pytest

from builder.attest.provenance import summarize
from builder.request import ProvenanceRequest, SecretSource
from tests.builder.export.test_results import EPOCH, Workshop

TEXT = "FROM scratch AS made\nCOPY file /a\nFROM made\nARG FLAVOUR\nLABEL a=b\nCOPY file /b\n"


@pytest.fixture
def workshop(tmp_path):
    """Give an empty workshop."""
    made = Workshop(tmp_path / "one")
    yield made
    made.store.close()


def statement(workshop, text="FROM scratch\nCOPY file /\n", **wishes):
    """Build and return the statement of the provenance, and the image."""
    provenance = ProvenanceRequest(**wishes.pop("provenance", {}))
    index = workshop.build(text, provenance=provenance, **wishes)
    (attached,) = index.attachments
    return workshop.document(attached.manifest.layers[-1]), index.images[0]


def predicate(workshop, *arguments, **wishes):
    """Build and return the predicate of the provenance."""
    return statement(workshop, *arguments, **wishes)[0]["predicate"]


def test_least_provenance_tells_of_inputs_only(workshop):
    """No arguments, no labels, no steps, no Dockerfile; request and dependencies are not complete."""
    wishes = {"build_args": {"FLAVOUR": "sweet"}, "labels": {"l": "m"}, "target": "made"}
    told = predicate(workshop, TEXT, provenance={"mode": "min"}, **wishes)

    assert told["buildDefinition"] == {
        "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
        "externalParameters": {
            "configSource": {"path": "Dockerfile"},
            "request": {
                "frontend": "dockerfile.v0",
                "args": {"target": "made"},
                "locals": [{"name": "context"}, {"name": "dockerfile"}],
            },
        },
        "internalParameters": {"builderPlatform": "linux/amd64"},
        "resolvedDependencies": [],
    }
    metadata = told["runDetails"]["metadata"]
    assert metadata["buildkit_metadata"] == {}
    assert metadata["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}
    assert "sweet" not in json.dumps(told)


def test_whole_provenance_tells_of_arguments_steps_and_sources(workshop):
    """The values of arguments, the Dockerfile with the line of each step, and the layers after each."""
    built, image = statement(workshop, TEXT, build_args={"FLAVOUR": "sweet"}, labels={"l": "m"}, no_cache=True)
    definition, details = built["predicate"]["buildDefinition"], built["predicate"]["runDetails"]
    metadata = details["metadata"]["buildkit_metadata"]

    assert definition["externalParameters"]["request"]["args"] == {
        "build-arg:FLAVOUR": "sweet",
        "label:l": "m",
        "no-cache": "",
    }
    assert details["metadata"]["buildkit_completeness"]["request"] is True
    (info,) = metadata["source"]["infos"]
    assert base64.b64decode(info["data"]).decode() == TEXT
    steps = definition["internalParameters"]["buildConfig"]["llbDefinition"]
    lines = {
        step: told["locations"][0]["ranges"][0]["start"]["line"]
        for step, told in metadata["source"]["locations"].items()
    }
    assert sorted(lines.values()) == [2, 6]
    last = steps[-1]["inputs"][0]
    assert lines[last.partition(":")[0]] == 6
    assert [layer["digest"] for layer in metadata["layers"][last][0]] == [one.digest for one in image.manifest.layers]
    assert len(metadata["layers"]) == 2


def test_subject_is_the_manifest_under_its_name(workshop):
    """Not the index: what runs is what was made."""
    built, image = statement(workshop)

    assert built["_type"] == "https://in-toto.io/Statement/v1"
    assert built["predicateType"] == "https://slsa.dev/provenance/v1"
    assert built["subject"] == [
        {
            "name": "pkg:docker/app@1?platform=linux%2Famd64",
            "digest": {"sha256": image.descriptor.digest.partition(":")[2]},
        }
    ]


def test_older_version_says_the_same(workshop):
    """Every field of version 0.2 has the value of its counterpart."""
    new = predicate(workshop, TEXT, provenance={"builder_id": "https://ci/1", "reproducible": True})
    built, _ = statement(
        workshop, TEXT, provenance={"version": "v0.2", "builder_id": "https://ci/1", "reproducible": True}
    )
    old = built["predicate"]

    assert built["predicateType"] == "https://slsa.dev/provenance/v0.2"
    assert old["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert old["builder"]["id"] == new["runDetails"]["builder"]["id"] == "https://ci/1"
    assert old["invocation"]["configSource"] == {"entryPoint": "Dockerfile"}
    assert old["invocation"]["parameters"] == new["buildDefinition"]["externalParameters"]["request"]
    assert old["invocation"]["environment"] == {"platform": "linux/amd64"}
    assert old["buildConfig"] == new["buildDefinition"]["internalParameters"]["buildConfig"]
    assert old["materials"] == []
    metadata, counterpart = old["metadata"], new["runDetails"]["metadata"]
    assert metadata["completeness"] == {"parameters": True, "environment": True, "materials": False}
    assert metadata["reproducible"] is counterpart["buildkit_reproducible"] is True
    assert metadata["https://mobyproject.org/buildkit@v1#metadata"] == counterpart["buildkit_metadata"]
    assert metadata["https://mobyproject.org/buildkit@v1#hermetic"] is counterpart["buildkit_hermetic"] is False
    assert {"buildInvocationID", "buildStartedOn", "buildFinishedOn"} <= set(metadata)


def test_each_build_is_an_invocation_of_its_own(workshop):
    """An id, and times that go on."""
    first, second = (predicate(workshop)["runDetails"]["metadata"] for _ in range(2))

    assert first["invocationId"] != second["invocationId"]
    assert first["startedOn"] < first["finishedOn"] < second["startedOn"]


def test_epoch_makes_provenance_the_same_to_the_byte(workshop):
    """What differs from run to run is left out, so the index has the same digest again."""
    indexes = [
        workshop.build(TEXT, provenance=ProvenanceRequest(), build_args={"SOURCE_DATE_EPOCH": str(EPOCH)})
        for _ in range(2)
    ]
    metadata = workshop.document(indexes[0].attachments[0].manifest.layers[0])["predicate"]["runDetails"]["metadata"]

    assert indexes[0].descriptor == indexes[1].descriptor
    assert not {"invocationId", "startedOn", "finishedOn"} & set(metadata)


def test_credentials_are_nowhere(workshop):
    """A canary in arguments, variables, addresses of the Dockerfile and secrets is in no byte of the store's statement."""
    text = (
        "FROM scratch\nARG API_TOKEN\nENV URL=https://u:canary@h/\nLABEL from=https://canary@h/\n"
        "# see https://u:can/ary@h and http://u:canary@h\nCOPY file /\nCOPY <<E /x\nhttp://u:canary@h/\nE\n"
    )
    built, _ = statement(
        workshop,
        text,
        build_args={"API_TOKEN": "canary", "HTTP_PROXY": "u:canary@proxy:1", "MIRROR": "https://u:canary@m/"},
        secrets=(SecretSource("s", value=b"canary"),),
        build_contexts={"x": "https://u:canary@h/x.tar"},
    )
    told = json.dumps(built)
    request = built["predicate"]["buildDefinition"]["externalParameters"]["request"]
    (info,) = built["predicate"]["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"]

    assert "canary" not in told
    assert "canary" not in base64.b64decode(info["data"]).decode()
    assert request["args"]["build-arg:MIRROR"] == "https://xxxxx@m/"
    assert request["args"]["build-arg:HTTP_PROXY"] == "proxy:1"
    assert built["predicate"]["runDetails"]["metadata"]["buildkit_completeness"]["request"] is False


def test_folders_of_this_machine_are_told_by_name(workshop, tmp_path):
    """Neither the path of a named context nor that of a layout is in it."""
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "f").write_text("x")
    told = predicate(
        workshop,
        "FROM scratch\nCOPY --from=more f /\n",
        build_contexts={"more": tmp_path / "extra", "layout": f"oci-layout://{tmp_path}/layout:1"},
    )
    request = told["buildDefinition"]["externalParameters"]["request"]

    assert request["args"] == {"context:more": "local:more", "context:layout": "oci-layout:layout"}
    assert request["locals"] == [{"name": "context"}, {"name": "dockerfile"}, {"name": "more"}]
    assert str(tmp_path) not in json.dumps(told)


def test_summary_leaves_out_the_run():
    """What buildx leaves out of a metadata file, in both versions."""
    assert summarize({"buildDefinition": 1, "runDetails": {"builder": 2, "metadata": 3}}) == {
        "buildDefinition": 1,
        "runDetails": {"builder": 2},
    }
    assert summarize({"builder": 1, "metadata": 2}) == {"builder": 1}
