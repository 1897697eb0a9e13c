"""`--explain-cache`: what it says of hits and misses, as users see it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.e2e.command import Account, Done, Pybuild

pytestmark = pytest.mark.userns

FILES = {
    "Dockerfile": """\
FROM base AS made
ARG VERSION=1
RUN echo $VERSION > /made
FROM base
ENV MODE=a
USER 0
COPY d /d/
RUN --mount=type=bind,source=bound,target=/bound cat /bound /d/a
COPY --from=made /made /srv/made
""",
    "d/a": "1",
    "d/b": "2",
    "bound": "3",
    "ignored": "4",
    ".dockerignore": "ignored\n",
    "base/Dockerfile": "FROM busybox\nRUN touch /base\n",
}
MADE, COPY, RUN = (
    "RUN echo $VERSION > /made",
    "COPY d /d/",
    "RUN --mount=type=bind,source=bound,target=/bound cat /bound /d/a",
)
COPY_FROM = "COPY --from=made /made /srv/made"
HIT: list[str] = []
AFTER_COPY = {
    RUN: ["the step before gave another result: COPY d /d/"],
    COPY_FROM: [f"the step before gave another result: {RUN}"],
}


def build(pybuild: Pybuild, *arguments: str, progress: str = "quiet", status: int = 0) -> Done:
    """Build the context and have the cache explained."""
    told = ["--explain-cache", "--progress", progress, *arguments]
    return pybuild("build", *told, str(pybuild.folder / "context"), status=status)


def read(done: Done) -> dict[str, list[str]]:
    """Give what was said of each step, by its text; of a hit nothing."""
    said: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in done.err.partition("Cache: ")[2].splitlines()[1:]:
        step = re.match(r" (CACHED|MISSED)  \[.*?\] (.*)", line)
        if step:
            lines = said.setdefault(step[2], [])
            assert step[1] == "MISSED" or not lines
        elif line.startswith("         "):
            lines.append(re.sub(r"\b[0-9a-f]{12}\b", "X", line.strip()))
        else:
            break
    return said


@pytest.fixture
def built(with_busybox: Pybuild) -> Pybuild:
    """Return the command with a context that was built once."""
    prepare(with_busybox)
    return with_busybox


@pytest.fixture(scope="module")
def workshop(program: tuple[str, ...], user: Account, busybox_archive: Path) -> Iterator[Pybuild]:
    """Return a command for tests that leave the store as good as they found it."""
    with place(program, user) as command:
        command("import", str(busybox_archive), "busybox")
        prepare(command)
        yield command


@pytest.fixture
def rebuilt(workshop: Pybuild) -> Pybuild:
    """Return the command with a context that was built last, whatever was built before."""
    workshop.run_other("rm", "-rf", "context")
    prepare(workshop)
    return workshop


def prepare(pybuild: Pybuild) -> None:
    """Build the context."""
    pybuild.context(FILES)
    pybuild("build", "-q", "-t", "base", str(pybuild.folder / "context" / "base"))
    build(pybuild, "-t", "app")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is changed after a build, and what is said of the next."""

    files: Mapping[str, str] = field(default_factory=dict)
    edit: tuple[str, str] = ("", "")
    command: str = ""
    arguments: tuple[str, ...] = ()
    said: Mapping[str, list[str]]


CASES = {
    "content": Case(
        files={"d/a": "other"},
        said={MADE: HIT, COPY: ["d/a: other content, sha256:X -> sha256:X"], **AFTER_COPY},
    ),
    "mode": Case(
        command="chmod 755 context/d/b", said={MADE: HIT, COPY: ["d/b: other mode, 0644 -> 0755"], **AFTER_COPY}
    ),
    "new file": Case(files={"d/sub/c": ""}, said={MADE: HIT, COPY: ["d/sub: added", "d/sub/c: added"], **AFTER_COPY}),
    "file that is gone": Case(command="rm context/d/b", said={MADE: HIT, COPY: ["d/b: removed"], **AFTER_COPY}),
    "many files": Case(
        files={f"d/n{number}": "" for number in range(9)},
        said={MADE: HIT, COPY: [*(f"d/n{number}: added" for number in range(5)), "and 4 other files"], **AFTER_COPY},
    ),
    "file that became a link": Case(
        command="ln -sf a context/d/b",
        said={MADE: HIT, COPY: ["d/b: is something else, file -> symbolic link"], **AFTER_COPY},
    ),
    "bound file": Case(
        files={"bound": "other"},
        said={
            MADE: HIT,
            COPY: HIT,
            RUN: ["bound: other content, sha256:X -> sha256:X"],
            COPY_FROM: HIT,
        },
    ),
    "build argument": Case(
        arguments=("--build-arg", "VERSION=2"),
        said={
            MADE: ["build argument VERSION: 1 -> 2"],
            COPY: HIT,
            RUN: HIT,
            COPY_FROM: ["/made: other content, sha256:X -> sha256:X"],
        },
    ),
    "ENV": Case(
        edit=("MODE=a", "MODE=b"),
        said={
            MADE: HIT,
            COPY: HIT,
            RUN: ["variable MODE: a -> b"],
            COPY_FROM: HIT,
        },
    ),
    "USER": Case(
        edit=("USER 0", "USER 1:2"),
        said={
            MADE: HIT,
            COPY: HIT,
            RUN: ["USER: 0 -> 1:2"],
            COPY_FROM: HIT,
        },
    ),
    "command": Case(
        edit=("echo $VERSION", "printf $VERSION"),
        said={
            "RUN printf $VERSION > /made": ["command: echo $VERSION > /made -> printf $VERSION > /made"],
            COPY: HIT,
            RUN: HIT,
            COPY_FROM: ["/made: other content, sha256:X -> sha256:X"],
        },
    ),
    "flag": Case(
        edit=("COPY d", "COPY --chmod=600 d"),
        said={
            MADE: HIT,
            "COPY --chmod=600 d /d/": ["--chmod: (empty) -> 600"],
            RUN: ["the step before is another, COPY d /d/ -> COPY --chmod=600 d /d/"],
            COPY_FROM: [f"the step before gave another result: {RUN}"],
        },
    ),
    "step before": Case(
        edit=("USER 0", "RUN echo new"),
        said={
            MADE: HIT,
            "RUN echo new": ["it is in no cache, and no earlier build had it in this place"],
            COPY: ["the step before is another, FROM base -> RUN echo new"],
            RUN: ["the step before gave another result: COPY d /d/", "USER: 0 -> (empty)"],
            COPY_FROM: [f"the step before gave another result: {RUN}"],
        },
    ),
    "network": Case(
        arguments=("--network", "none"),
        said={
            MADE: ["network: default -> none"],
            COPY: HIT,
            RUN: ["network: default -> none"],
            COPY_FROM: HIT,
        },
    ),
    "--no-cache": Case(
        arguments=("--no-cache",),
        said={step: ["--no-cache asks for every step to be done"] for step in (MADE, COPY, RUN, COPY_FROM)},
    ),
    "--no-cache-filter": Case(
        arguments=("--no-cache-filter", "made"),
        said={
            MADE: ["--no-cache-filter names its stage"],
            COPY: HIT,
            RUN: HIT,
            COPY_FROM: HIT,
        },
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_change_is_named(rebuilt: Pybuild, case: Case) -> None:
    """A step that missed says what changed for it, with the value then and now, and no other step says anything."""
    old, new = case.edit
    text = FILES["Dockerfile"].replace(old, new) if old else FILES["Dockerfile"]
    rebuilt.context({"Dockerfile": text, **case.files})
    if case.command:
        rebuilt.run_other("sh", "-c", case.command)

    assert read(build(rebuilt, *case.arguments)) == case.said


UNCHANGED = {
    "nothing": "true",
    "times": "touch context/d/* context/bound",
    "ignored file": "echo x > context/ignored",
    "file that no step reads": "echo x > context/other",
}


@pytest.mark.parametrize("command", UNCHANGED.values(), ids=UNCHANGED.keys())
def test_build_that_is_cached_says_so_in_one_line(rebuilt: Pybuild, command: str) -> None:
    """What does not count changes nothing, and there is but one thing to say."""
    rebuilt.run_other("sh", "-c", command)

    assert build(rebuilt).err == "Cache: all 4 steps were there.\n"


def test_new_base_image_is_named_with_its_digests(built: Pybuild) -> None:
    """A tag that names another image now is what the steps on it say."""
    again = built.context({"base/Dockerfile": "FROM busybox\nRUN touch /other\n"})
    built("build", "-q", "-t", "base", f"{again}/base")
    said = read(build(built))

    assert said[MADE] == said[COPY] == ["base image base: sha256:X -> sha256:X"]
    assert said[COPY_FROM] == [f"the step before gave another result: {RUN}"]


def test_other_base_image_is_named(rebuilt: Pybuild) -> None:
    """FROM with another name is named as it is written."""
    rebuilt.context({"Dockerfile": FILES["Dockerfile"].replace("FROM base\n", "FROM busybox\n")})

    assert read(build(rebuilt))[COPY] == ["base image: base -> busybox"]


def test_other_platform_is_named_by_its_base_image(workshop: Pybuild) -> None:
    """Where a base has an image for each platform, the digest of the other one is what changed."""
    workshop.context(
        {"Dockerfile": "ARG TARGETARCH\nFROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n", "amd64": "1", "arm64": "2"}
    )
    both = "linux/amd64,linux/arm64"
    workshop("build", "-q", "--platform", both, "-t", "both", str(workshop.folder / "context"))
    workshop.context({"Dockerfile": "FROM both\nCOPY amd64 /x\n"})
    build(workshop, "--platform", "linux/amd64")
    done = build(workshop, "--platform", "linux/arm64")

    assert read(done) == {"COPY amd64 /x": ["base image both: sha256:X -> sha256:X"]}


def test_target_is_compared_with_the_last_build_of_its_stages(rebuilt: Pybuild) -> None:
    """A build of one stage and then of all says the same as if all had been built before."""
    assert build(rebuilt, "--target", "made").err == "Cache: the one step was there.\n"
    rebuilt.context({"d/a": "of this test alone"})

    assert read(build(rebuilt))[COPY] == ["d/a: other content, sha256:X -> sha256:X"]


def test_context_that_was_moved_is_compared_with_the_most_similar_steps(built: Pybuild) -> None:
    """Without a last build of the same Dockerfile, steps of the same text are compared, and it is said."""
    (built.folder / "context").rename(built.folder / "moved")
    built.context({"Dockerfile": "FROM scratch\n"})
    built.context({"d/a": "other"}, "moved")
    done = built("build", "--explain-cache", "-q", str(built.folder / "moved"))

    assert read(done)[COPY] == [
        "compared with the most similar step that was done before, which is not of this Dockerfile's last build:",
        "d/a: other content, sha256:X -> sha256:X",
    ]


def test_pruned_records_are_told_from_changes(built: Pybuild) -> None:
    """What was built and then removed from the store is said to be so, and no change is made up."""
    built("prune", "-a", "-f")
    built.context({"Dockerfile": FILES["Dockerfile"].replace("echo $V", "printf $V")})
    said = read(build(built))

    assert said[COPY][0].startswith("nothing changed, but the store no longer has its record")
    assert said["RUN printf $VERSION > /made"] == [
        "it changed, and what it was made of is no longer in the store, so nothing more can be said",
        f"instruction: {MADE} -> RUN printf $VERSION > /made",
    ]


def test_lost_layer_is_told_from_a_change(built: Pybuild) -> None:
    """A record whose layer is gone is no hit, and that is the reason."""
    image = json.loads(built("inspect", "app").out)[0]
    manifest = json.loads(blob(built, image["Descriptor"]["digest"]).read_text())
    blob(built, manifest["layers"][2]["digest"]).unlink()  # those of the base are busybox and /base

    assert read(build(built))[COPY] == ["nothing changed, but its layer is no longer in the store"]


def test_step_that_fails_is_explained(rebuilt: Pybuild) -> None:
    """The answers so far are shown when the build fails, before the error."""
    rebuilt.context({"Dockerfile": FILES["Dockerfile"].replace("cat /bound", "false")})
    done = build(rebuilt, status=1)
    failed = RUN.replace("cat /bound", "false")

    assert read(done)[failed] == ["command: cat /bound /d/a -> false /d/a"]
    assert COPY_FROM not in read(done)
    assert done.err.index("Cache: 2 of 3 steps that were reached were there.") < done.err.index("ERROR: ")


@pytest.mark.parametrize("stores", [True, False], ids=["unneeded layers too", "needed layers"])
def test_imported_steps_say_from_where(built: Pybuild, stores: bool) -> None:
    """A hit in a cache of --cache-from names it, and what changes after that is compared with it."""
    build(built, "--cache-to", "type=local,dest=cache,mode=max")
    built("prune", "-a", "-f")
    (built.folder / "context" / "d" / "a").write_text("1" if stores else "other")
    done = build(built, "--cache-from", "type=local,src=cache")

    if stores:
        assert done.err == f"Cache: all 4 steps were there, 4 of them in {built.folder / 'cache'}.\n"
    else:
        assert f" CACHED  [made 2/2] {MADE}, from the cache {built.folder / 'cache'}\n" in done.err


def test_miss_after_an_import_is_explained(built: Pybuild) -> None:
    """Records that came from a cache have their ingredients, so a change after them is named."""
    build(built, "--cache-to", "type=local,dest=cache,mode=max")
    built("prune", "-a", "-f")
    build(built, "--cache-from", "type=local,src=cache")
    built.context({"d/a": "other"})

    assert read(build(built))[COPY] == ["d/a: other content, sha256:X -> sha256:X"]


def test_secret_is_named_and_never_shown(with_busybox: Pybuild) -> None:
    """The id of a secret stands in the answer, its value in no output and in no file of the state."""
    text = "FROM busybox\nRUN --mount=type=secret,id=%s true\n"
    with_busybox.context({"Dockerfile": text % "one", "s": "hidden-value"})
    secret = ["--secret", "id=one,src=context/s", "--secret", "id=two,src=context/s"]
    build(with_busybox, *secret)
    with_busybox.context({"Dockerfile": text % "two"})
    done = build(with_busybox, *secret)

    said = read(done)["RUN --mount=type=secret,id=two true"]
    assert [line.partition(":")[0] for line in said] == ["secret two", "secret one"]
    assert "hidden-value" not in done.err
    assert all(b"hidden-value" not in path.read_bytes() for path in with_busybox.root.glob("state.db*"))


def test_plain_progress_has_the_answers_at_its_end(rebuilt: Pybuild) -> None:
    """They stand in a block of their own, after the steps."""
    done = build(rebuilt, progress="plain")

    assert done.err.endswith("\n\nCache: all 4 steps were there.\n")
    assert done.err.count("Cache: ") == 1


def test_raw_progress_has_the_answers_with_their_vertices(rebuilt: Pybuild) -> None:
    """Every line stays JSON; the vertex that is done has a field of its own."""
    rebuilt.context({"d/a": "raw"})
    done = build(rebuilt, progress="rawjson")
    vertices = [vertex for line in done.err.splitlines() for vertex in json.loads(line).get("vertexes", ())]
    answers = {
        vertex["name"].partition("] ")[2]: vertex["explainCache"] for vertex in vertices if "explainCache" in vertex
    }

    assert answers[MADE] == {"hit": True, "reason": "cached"}
    assert answers[COPY]["hit"] is False
    assert answers[COPY]["reason"] == "changed"
    (change,) = answers[COPY]["changes"]
    assert (change["kind"], change["name"]) == ("file content", "d/a")
    assert change["now"].startswith("sha256:")


def test_nothing_is_said_unless_it_is_asked_for(rebuilt: Pybuild) -> None:
    """Without the option the output is what it was."""
    done = rebuilt("build", "--progress", "plain", str(rebuilt.folder / "context"))

    assert "Cache" not in done.err


def blob(pybuild: Pybuild, digest: str) -> Path:
    """Return the path of a blob in the store."""
    return pybuild.images / "blobs" / digest.replace(":", "/")
