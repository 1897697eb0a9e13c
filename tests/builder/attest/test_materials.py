"""What went into a result: images, repositories, files, folders, secrets."""

import json

from builder.attest.materials import Material, gather
from builder.pipeline import Build
from builder.request import BuildRequest, SecretSource
from registry.content.compression import Compression
from registry.oci.digest import digest_of
from tests.builder import test_remote_sources as remote
from tests.builder.plan.test_convert import LINUX, image, plan

workshop = remote.workshop
web = remote.web
repository = remote.repository


def inputs(text, scanned=(), **wishes):
    """Gather what goes into a Dockerfile that needs no network."""
    request = BuildRequest(
        context=wishes.pop("context", "-"),
        root=".",
        platform=LINUX,
        build_platform=LINUX,
        compression=Compression(),
        **wishes,
    )
    made = plan(text, {"busybox:latest": image()})
    return gather(made.vertices(), scanned, request, lambda: None)


def definition(workshop, text=None, context=None, **wishes):
    """Build with the network of this machine, and give the definition in the provenance."""
    request = BuildRequest(
        context=context or workshop.context,
        root=workshop.store.root,
        platform=LINUX,
        build_platform=LINUX,
        dockerfile_text=text,
        compression=Compression(),
        git_environ={"PATH": workshop.path},
        recorded="max",
        **wishes,
    )
    build = Build(request, workshop.store, lambda _: None, connect=workshop._connect, now=lambda: "now")
    try:
        build.prepare()
        return build.finish(None).record["buildx.build.provenance"]["buildDefinition"]
    finally:
        build.close()


def test_image_is_a_material_once():
    """By package URL, with the digest of its manifest, also of stages that files are copied from."""
    found = inputs("FROM busybox AS a\nFROM busybox\nCOPY --from=a / /\n")

    hexes = image().descriptor.digest.partition(":")[2]
    assert found.materials == (Material("pkg:docker/busybox@latest?platform=linux%2Famd64", {"sha256": hexes}),)


def test_image_of_a_stage_that_is_not_needed_is_none():
    """Only what the result needs went into it."""
    assert inputs("FROM busybox AS a\nFROM scratch\n").materials == ()


def test_generator_of_a_list_went_in():
    """As BuildKit tells it; its commands are no commands of the build."""
    vertices = plan("FROM busybox\nRUN x", {"busybox:latest": image()}).vertices()
    found = inputs("FROM scratch", scanned=vertices)

    assert [material.uri for material in found.materials] == ["pkg:docker/busybox@latest?platform=linux%2Famd64"]
    assert found.networked is False


def test_secrets_and_agents_are_ids():
    """Required if one of the steps requires it."""
    found = inputs(
        "FROM busybox\nRUN --mount=type=secret,id=a --mount=type=ssh x\nRUN --mount=type=secret,id=a,required=true "
        "--mount=type=secret,id=b,env=B y\n"
    )

    assert found.secrets == {"a": True, "b": False}
    assert found.agents == {"default": False}


def test_command_without_a_network_is_hermetic():
    """What no command could fetch is in the materials."""
    assert inputs("FROM busybox\nRUN --network=none x").networked is False
    assert inputs("FROM busybox\nRUN x").networked is True


def test_files_and_repositories_have_digests(workshop, web, repository):
    """The commit of a repository, the digest of a file; no credentials and no query, but the ids that open them."""
    web.files["/f.txt"] = b"hello"
    repository.serve_to(web.git / "r.git")
    text = f"FROM scratch\nADD http://u:canary@{web.address}/f.txt?token=canary /\nADD {web.url}/git/r.git#main /r\n"
    secrets = (SecretSource("HTTP_AUTH_TOKEN_127.0.0.1", value=b"canary"), SecretSource("other", value=b"x"))
    told = definition(workshop, text, secrets=secrets)
    steps = told["internalParameters"]["buildConfig"]["llbDefinition"]
    sources = [step["op"]["Op"]["source"]["identifier"] for step in steps if "source" in (step["op"]["Op"] or {})]

    assert told["resolvedDependencies"] == [
        {"uri": f"{web.url}/git/r.git#main", "digest": {"sha1": repository.git("rev-parse", "HEAD")}},
        {"uri": f"{web.url}/f.txt", "digest": {"sha256": digest_of(b"hello").partition(":")[2]}},
    ]
    assert told["externalParameters"]["request"]["secrets"] == [{"id": "HTTP_AUTH_TOKEN_127.0.0.1", "optional": True}]
    assert sources == [f"{web.url}/f.txt", f"git://{web.address}/git/r.git#main"]
    assert "canary" not in json.dumps(told)


def test_archive_as_context_is_the_source_of_the_build(workshop, web):
    """Address and digest stand in configSource and among the dependencies, and no folder is left to tell of."""
    archive = remote.make_tar({"Dockerfile": b"FROM scratch\nCOPY Dockerfile /\n"})
    web.files["/c.tar"] = archive
    told = definition(workshop, context=f"{web.url}/c.tar")
    material = {"uri": f"{web.url}/c.tar", "digest": {"sha256": digest_of(archive).partition(":")[2]}}

    assert told["externalParameters"]["configSource"] == {**material, "path": "Dockerfile"}
    assert told["resolvedDependencies"] == [material]
    assert "locals" not in told["externalParameters"]["request"]


def test_repository_as_context_is_the_source_of_the_build(workshop, web, repository):
    """With the commit that was checked out; a commit that was cut short is told whole."""
    commit = repository.commit({"Dockerfile": "FROM scratch\nCOPY a /\n"})
    repository.serve_to(web.git / "r.git")
    told = definition(workshop, context=f"{web.url}/git/r.git?commit={commit[:12]}")

    assert told["externalParameters"]["configSource"] == {
        "uri": f"{web.url}/git/r.git",
        "digest": {"sha1": commit},
        "path": "Dockerfile",
    }


def test_dockerfile_at_an_address_is_a_material(workshop, web):
    """And no folder of this machine."""
    web.files["/D"] = b"FROM scratch\nCOPY x /\n"
    (workshop.context / "x").write_text("x")
    told = definition(workshop, dockerfile_url=f"{web.url}/D")

    assert [material["uri"] for material in told["resolvedDependencies"]] == [f"{web.url}/D"]
    assert told["externalParameters"]["request"]["locals"] == [{"name": "context"}]


def test_named_context_is_a_material_where_it_is_used(workshop, web):
    """One that no step reads was not even fetched."""
    web.files["/c.tar"] = remote.make_tar({"f": b"x"})
    contexts = {"more": f"{web.url}/c.tar", "unused": f"{web.url}/gone.tar"}
    told = definition(workshop, "FROM scratch\nCOPY --from=more f /\n", build_contexts=contexts)

    assert [material["uri"] for material in told["resolvedDependencies"]] == [f"{web.url}/c.tar"]
