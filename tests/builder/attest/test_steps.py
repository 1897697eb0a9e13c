"""The steps of a plan in the words of LLB."""

import base64

from builder.attest.steps import describe_steps
from tests.builder.plan.test_convert import image, plan


def steps_of(text, **wishes):
    """Plan a Dockerfile and tell its steps."""
    made = plan(text, {"busybox:latest": image()}, **wishes)
    return describe_steps(made.vertices(), made.vertex).steps


def ops(steps, kind):
    """Give the ops of one kind."""
    return [step["op"]["Op"][kind] for step in steps if kind in (step["op"]["Op"] or {})]


def test_run_is_an_exec_on_an_image():
    """The image by digest, then the command with its root as first mount, then the result."""
    first, second, last = steps_of("FROM busybox\nENV A=b\nUSER me\nRUN --network=none make it")

    assert first["op"]["Op"]["source"]["identifier"] == (
        f"docker-image://docker.io/library/busybox:latest@{image().descriptor.digest}"
    )
    assert first["op"]["platform"] == {"Architecture": "amd64", "OS": "linux"}
    execution = second["op"]["Op"]["exec"]
    assert execution["meta"]["args"] == ["/bin/sh", "-c", "make it"]
    assert execution["meta"]["env"][-1] == "A=b"
    assert execution["meta"]["user"] == "me"
    assert execution["mounts"] == [{"input": 0, "dest": "/", "output": 0}]
    assert execution["network"] == 2
    assert second["inputs"] == ["step0:0"]
    assert last == {"id": "step2", "op": {"Op": None}, "inputs": ["step1:0"]}


def test_mounts_tell_what_they_are():
    """Secrets by id only, other stages and the context as inputs."""
    text = (
        "FROM scratch AS other\nCOPY a /\nFROM busybox\n"
        "RUN --mount=type=secret,id=s,required=true --mount=type=cache,target=/c --mount=type=tmpfs,target=/t "
        "--mount=type=bind,from=other,source=/a,target=/b --mount=type=bind,target=/d --mount=type=ssh true"
    )
    steps = steps_of(text)
    (execution,) = ops(steps, "exec")
    _, secret, cache, tmpfs, other, context, agent = execution["mounts"]
    inputs = next(step["inputs"] for step in steps if "exec" in (step["op"]["Op"] or {}))

    assert secret["secretOpt"] == {"ID": "s", "mode": 0o400, "optional": False}
    assert (secret["mountType"], secret["dest"], secret["input"]) == (1, "/run/secrets/s", -1)
    assert (cache["mountType"], cache["cacheOpt"]) == (3, {"ID": "/c", "sharing": 0})
    assert (tmpfs["mountType"], tmpfs["dest"]) == (4, "/t")
    assert (other["selector"], other["dest"], other["readonly"]) == ("/a", "/b", True)
    assert (agent["mountType"], agent["SSHOpt"]["ID"]) == (2, "default")
    produced = {step["id"]: step["op"]["Op"] for step in steps}
    assert "file" in produced[inputs[other["input"]].partition(":")[0]]
    assert produced[inputs[context["input"]].partition(":")[0]]["source"]["identifier"] == "local://context"


def test_copy_is_a_file_op_with_the_context_as_second_input():
    """Several sources are actions on each other; the context is brought in once."""
    steps = steps_of("FROM busybox\nCOPY --chown=1:me --chmod=700 a b /d/\nCOPY c /e")

    assert [source["identifier"] for source in ops(steps, "source")][1:] == ["local://context"]
    first, second = ops(steps, "file")
    copies = [action["Action"]["copy"] for action in first["actions"]]
    assert [(one["src"], one["dest"], one["modeStr"]) for one in copies] == [("/a", "/d/", "700"), ("/b", "/d/", "700")]
    assert copies[0]["owner"] == {"user": {"User": {"byID": 1}}, "group": {"User": {"byName": {"name": "me"}}}}
    assert [(action["input"], action["secondaryInput"], action["output"]) for action in first["actions"]] == [
        (0, 1, -1),
        (2, 1, 0),
    ]
    assert second["actions"][0]["Action"]["copy"]["timestamp"] == -1


def test_linked_copy_is_merged():
    """A layer of its own, on scratch, and a merge with what is below."""
    steps = steps_of("FROM busybox\nCOPY --link a /d/")
    (made,) = ops(steps, "file")

    assert made["actions"][0]["input"] == -1
    assert ops(steps, "merge") == [{"inputs": [{"input": 0}, {"input": 1}]}]


def test_texts_in_the_dockerfile_lose_credentials():
    """Here-documents are told, but not the user and password of an address in them."""
    steps = steps_of(
        "FROM busybox\nCOPY <<E /f\nhttps://u:canary@h/\nE\nRUN <<E\n#!/bin/sh\ncurl https://u:canary@h/\nE\n"
    )
    texts = [
        base64.b64decode(action["Action"]["mkfile"]["data"]).decode()
        for op in ops(steps, "file")
        for action in op["actions"]
    ]

    assert texts == ["https://xxxxx@h/\n", "#!/bin/sh\ncurl https://xxxxx@h/\n"]


def test_variable_with_the_name_of_a_secret_is_masked():
    """As build argument and as ENV."""
    (execution,) = ops(
        steps_of("FROM busybox\nARG API_TOKEN\nENV DB_PASSWORD=x\nRUN true", build_args={"API_TOKEN": "canary"}), "exec"
    )

    assert execution["meta"]["env"][1:] == ["API_TOKEN=xxxxx", "DB_PASSWORD=xxxxx"]


def test_empty_result_has_no_steps():
    """FROM scratch alone does nothing."""
    assert steps_of("FROM scratch") == []


def test_working_directory_is_made():
    """WORKDIR is a mkdir with the owner and time it gets."""
    (made,) = ops(steps_of("FROM busybox\nUSER 5\nWORKDIR /w", build_args={"SOURCE_DATE_EPOCH": "7"}), "file")

    assert made["actions"][0]["Action"]["mkdir"] == {
        "path": "/w",
        "mode": 0o755,
        "makeParents": True,
        "timestamp": 7_000_000_000,
        "owner": {"user": {"User": {"byID": 5}}},
    }
