"""`pybuild bake` as people start it: compose files and bake files, with links, overrides and failures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.command import Pybuild

pytestmark = pytest.mark.userns


def _write(pybuild: Pybuild, **files: str) -> None:
    """Write files into the current folder of the command; `__` in a name is a dot."""
    pybuild.context({name.replace("__", "."): text for name, text in files.items()}, name=".")


def test_compose_file_of_two_services_is_built(with_busybox: Pybuild) -> None:
    """Services become images of their names; one service is the base of another; a service without build is none."""
    pybuild = with_busybox
    pybuild.context({"Dockerfile": "FROM base\nARG WHO\nRUN echo $WHO >> /base\nCMD cat /base\n"}, name="app")
    _write(
        pybuild,
        compose__yaml="services:\n"
        "  db: {image: postgres}\n"
        '  base.image: {build: {dockerfile_inline: "FROM busybox\\nRUN echo base > /base"}, image: me/base}\n'
        "  app:\n"
        "    image: me/app:${TAG:-latest}\n"
        "    build: {context: app, args: [WHO], additional_contexts: {base: 'service:base.image'}}\n",
        __env="WHO=alice\nTAG=7\n",
    )

    done = pybuild("bake", "--metadata-file", "built.json")

    built = json.loads((pybuild.folder / "built.json").read_text())
    assert done.out == ""
    assert pybuild("run", "me/app:7").out == "base\nalice\n"
    assert {name: told["image.name"] for name, told in built.items()} == {
        "base_image": "docker.io/me/base:latest",
        "app": "docker.io/me/app:7",
    }
    assert (
        json.loads(pybuild("inspect", "me/app:7").out)[0]["Descriptor"]["digest"]
        == built["app"]["containerimage.digest"]
    )


def test_bake_file_with_a_link_and_set_is_built(with_busybox: Pybuild) -> None:
    """A linked target that nobody named leaves no image; --set replaces what the file says."""
    pybuild = with_busybox
    _write(
        pybuild,
        **{
            "docker-bake__json": json.dumps(
                {
                    "variable": {"TAG": {"default": "1"}},
                    "target": {
                        "tools": {"dockerfile-inline": "FROM busybox\nRUN echo tool > /tool", "tags": ["me/tools"]},
                        "app": {
                            "contexts": {"tools": "target:tools"},
                            "dockerfile-inline": "FROM busybox\nARG V\nCOPY --from=tools /tool /tool\nRUN echo $V > /v",
                            "args": {"V": "file"},
                            "tags": ["me/app:${TAG}"],
                        },
                    },
                }
            )
        },
    )

    pybuild("bake", "app", "--set", "app.args.V=command line", "--var", "TAG=2")
    again = pybuild("bake", "app", "--set", "app.args.V=command line", "--var", "TAG=2")

    assert pybuild("run", "me/app:2", "cat", "/tool", "/v").out == "tool\ncommand line\n"
    assert "me/tools" not in pybuild("images").out
    assert again.err.count("CACHED") == 6


def test_bake_file_in_hcl_is_built_for_each_of_a_matrix(with_busybox: Pybuild) -> None:
    """Targets of one wave share steps; each has its own result."""
    pybuild = with_busybox
    _write(
        pybuild,
        **{
            "docker-bake__hcl": 'target "m" {\n  matrix = { n = ["a", "b"] }\n  name = "m-${n}"\n  tags = ["m:${n}"]\n'
            "  args = { N = upper(n) }\n  dockerfile-inline = <<E\nFROM busybox\nRUN echo shared\nARG N\nRUN echo $N > /n\nE\n}\n"
        },
    )

    done = pybuild("bake", "m")

    assert [pybuild("run", f"m:{n}", "cat", "/n").out for n in "ab"] == ["A\n", "B\n"]
    assert "[m-a 2/3] RUN echo shared\n" in done.err
    assert done.err.count(" shared\n") == 3  # the two names, and the output of one


def test_bake_ends_with_the_first_failure_and_names_its_target(with_busybox: Pybuild) -> None:
    """What links to the target that failed is not started; the exit code is that of the failure."""
    pybuild = with_busybox
    _write(
        pybuild,
        compose__yaml="services:\n"
        '  bad: {build: {dockerfile_inline: "FROM busybox\\nRUN exit 3"}}\n'
        "  good: {build: {dockerfile_inline: 'FROM x', additional_contexts: {x: 'service:bad'}}, image: me/good}\n",
    )

    done = pybuild("bake", "--metadata-file", "built.json", status=1)

    assert 'ERROR: target bad: process "/bin/sh -c exit 3" did not complete successfully: exit code: 3' in done.err
    assert "[good" not in done.err
    assert not (pybuild.folder / "built.json").exists()


@pytest.mark.parametrize(
    ("definition", "arguments", "message"),
    [
        ("{build: {dockerfle: x}}", [], "bake file `compose.yaml` cannot be used, unknown key: `services.app.build.dockerfle`"),
        ("{build: .}", ["ap"], "no such target: `ap`"),
        ("{build: /etc}", [], "targets ask for more than is allowed: read `/etc`"),
        ("{build: gone}", [], "target app: unable to prepare context: path not found: `gone`"),
        ("{build: {dockerfile_inline: 'FRM x'}}", [], "target app: unknown instruction: FRM"),
    ],
)  # fmt: skip
def test_bake_refuses_what_cannot_be(pybuild: Pybuild, definition: str, arguments: list[str], message: str) -> None:
    """One message with the place, exit status 2."""
    _write(pybuild, compose__yaml=f"services:\n  app: {definition}\n")

    done = pybuild("bake", *arguments, status=2)

    assert message in done.err
    assert "Traceback" not in done.err


def test_bake_shows_instead_of_building(pybuild: Pybuild) -> None:
    """--print, --list and --check answer on standard output."""
    _write(
        pybuild,
        Dockerfile="FROM scratch\nmaintainer me\nCOPY a /a\n",
        compose__yaml="services:\n  app: {build: .}\n  other: {build: .}\n",
    )

    printed = json.loads(pybuild("bake", "--print", "app").out)
    checked = pybuild("bake", "--check", status=1).out

    assert printed == {
        "group": {"default": {"targets": ["app"]}},
        "target": {"app": {"context": ".", "dockerfile": "Dockerfile"}},
    }
    assert [line.split()[0] for line in pybuild("bake", "--list", "targets").lines] == [
        "TARGET",
        "default",
        "app",
        "other",
    ]
    assert checked.startswith("app\n\nCheck complete, ")
    assert "\nother\n\nCheck complete, " in checked
    assert checked.count("WARNING: MaintainerDeprecated") == 2


def test_bake_reads_standard_input(pybuild: Pybuild) -> None:
    """`-f -` takes a file of targets in any language."""
    done = pybuild("bake", "-f", "-", "--print", stdin=b'{"target": {"x": {"tags": ["a"]}}}')

    assert json.loads(done.out)["target"]["x"]["tags"] == ["a"]
