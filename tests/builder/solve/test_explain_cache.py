"""Why the cache had a step or not, told from records and the last build."""

import math
from pathlib import Path

import pytest

from builder.cache.key import derive_key
from builder.cache.state import Record, State
from builder.context.digest import ListedSource
from builder.events import CacheAnswer, CacheChange
from builder.plan.graph import BaseImage, CopyFiles, RunCommand, Vertex
from builder.solve.explain_cache import CacheExplainer
from builder.solve.questions import Question, list_stages
from registry.oci.digest import digest_of
from registry.oci.image_config import ImageConfig
from registry.oci.platform import Platform
from registry.value import replace
from tests.fakes.image import compose_image
from tests.fakes.listing import make_listing

PLACE = "place"
LINUX = Platform("linux", "amd64")


def base(comment: str = "") -> Vertex:
    """Make the vertex of a base image."""
    image = compose_image(ImageConfig(platform=LINUX, author=comment), [])
    return Vertex(op=BaseImage(reference="b", image=image), name="[1/2] FROM b", text="FROM b", stage="")


def run(text: str, parent: Vertex, **wishes) -> Vertex:
    """Make the vertex of a RUN."""
    values = {"environ": (), "platform": "linux/amd64", **wishes}
    op = RunCommand(args=("/bin/sh", "-c", text), cwd="/", user="", network="none", hostname="h", shm_size=1, **values)
    return Vertex(op=op, parent=parent, name=f"[2/2] RUN {text}", text=f"RUN {text}", stage="s")


def copy(source: Vertex, parent: Vertex) -> Vertex:
    """Make the vertex of a COPY from a stage."""
    op = CopyFiles(instruction="COPY", paths=("/a",), destination="/a")
    return Vertex(op=op, parent=parent, sources=(source,), name="[3/3] COPY", text="COPY --from=s /a /a", stage="t")


class Machine:
    """A state database in a folder, and builds in it whose steps give what they are told to give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = State(folder / "state.db")

    def build(self, *vertices: Vertex, listed: tuple[ListedSource, ...] = (), **contents: str) -> list[CacheAnswer]:
        """Ask for *vertices* as the solver does, keep their records, and return the answers.

        Args:
            vertices: of the plan.
            listed: the files of every step.
            contents: ingredients of every step beside those of its op, by name with `_` for a blank.
        """
        explainer = CacheExplainer(self.state, vertices, PLACE, no_cache=False)
        questions: dict[str, Question] = {}
        answers = []
        for vertex in vertices:
            if isinstance(vertex.op, BaseImage):
                continue
            more = [(name.replace("_", " "), value) for name, value in contents.items()]
            ingredients = [*vertex.op.ingredients(), ("below", vertex.parent.digest), *more]
            key = derive_key(ingredients)
            had_record = self.state.find_record(key) is not None
            questions[vertex.digest] = Question(key, ingredients, had_record=had_record)
            cached = had_record and not vertex.no_cache
            answers.append(explainer.answer(vertex, questions, listed, cached=cached))
            record = Record(
                key=key,
                op=vertex.op.ingredients()[0][1],
                diff_id=digest_of(b"x"),
                created="",
                name=vertex.text,
                ingredients=tuple(ingredients),
            )
            self.state.put_record(record, listing=make_listing(self.folder, listed).pack())
        self.state.put_past(PLACE, list_stages(vertices, questions))
        return answers


@pytest.fixture
def machine(tmp_path):
    """Give an empty one."""
    made = Machine(tmp_path)
    yield made
    made.state.close()


def test_step_that_was_never_done_is_new(machine):
    """There is nothing to compare with; the next time it is cached."""
    step = run("make", base())

    assert machine.build(step.parent, step) == [CacheAnswer(1, "new")]
    assert machine.build(step.parent, step) == [CacheAnswer(1, "cached")]


@pytest.mark.parametrize(
    ("wishes", "change"),
    [
        ({"environ": (("A", "2"),)}, CacheChange("variable", "A", "1", "2")),
        ({"environ": (("A", "2"),), "build_args": frozenset("A")}, CacheChange("build argument", "A", "1", "2")),
        ({"platform": "linux/arm64"}, CacheChange("platform", "", "linux/amd64", "linux/arm64")),
    ],
)
def test_ingredient_that_changed_is_named(machine, wishes, change):
    """With its value in the last build and in this."""
    now = {"environ": (("A", "1"),), **wishes}
    machine.build(run("make", base(), environ=(("A", "1"),)))

    assert machine.build(run("make", base(), **now)) == [CacheAnswer(0, "changed", (change,))]


def test_last_build_counts_and_not_the_last_use_of_a_record(machine):
    """Going back and forth between three values is told step by step."""
    values = [run("make", base(), environ=(("A", value),)) for value in "123"]
    for vertex in values:
        machine.build(vertex)
    machine.build(values[0])
    changed = run("make", base(), environ=(("A", "4"),))

    assert machine.build(changed)[0].changes == (CacheChange("variable", "A", "1", "4"),)


def test_base_image_is_told_by_the_digests_of_both_builds(machine):
    """The same name, another image."""
    old, new = base("old"), base("new")
    machine.build(old, run("make", replace_below(old)))
    (answer,) = machine.build(new, run("make", replace_below(new)))

    assert answer.changes == (
        CacheChange("base image", "b", old.op.image.descriptor.digest, new.op.image.descriptor.digest),
    )


def replace_below(vertex: Vertex) -> Vertex:
    """Make a base that tells itself from others of no layers by its digest."""
    object.__setattr__(vertex, "digest", vertex.op.image.descriptor.digest)
    return vertex


def test_step_before_is_told_from_another_step_before(machine):
    """It gave something else, or it is not the one that stood there."""
    first, other, new = run("one", base()), run("one", base(), environ=(("A", "1"),)), run("new", base())
    machine.build(first, run("two", first))
    redone = machine.build(other, run("two", other))
    machine.build(first, run("two", first))
    inserted = machine.build(new, run("two", new))

    assert redone[1].changes == (CacheChange("step before", "RUN one"),)
    assert inserted[1].changes == (CacheChange("step before", "", "RUN one", "RUN new"),)


def test_removed_record_is_no_change(machine):
    """The last build had this very key."""
    step = run("make", base())
    machine.build(step)
    machine.state.remove_records([record.key for record, _ in machine.state.records()], used_until=math.inf)

    assert machine.build(step) == [CacheAnswer(0, "record removed")]


def test_removed_record_of_a_step_that_changed_leaves_its_text(machine):
    """All that is known of the last build is the instruction."""
    machine.build(run("make", base()))
    machine.state.remove_records([record.key for record, _ in machine.state.records()], used_until=math.inf)

    assert machine.build(run("ninja", base())) == [
        CacheAnswer(0, "past removed", (CacheChange("instruction", "", "RUN make", "RUN ninja"),))
    ]


def test_key_of_another_version_is_no_change(machine):
    """All ingredients are the same, and the key is not."""
    step = run("make", base())
    machine.build(step)
    (record,) = [record for record, _ in machine.state.records()]
    machine.state.remove_records([record.key], used_until=math.inf)
    machine.state.put_record(replace(record, key="older"))
    stages = machine.state.find_past(PLACE)
    machine.state.put_past(PLACE, {"s": (stages["s"][0], replace(stages["s"][1], key="older"))})

    assert machine.build(step) == [CacheAnswer(0, "other version")]


def test_record_without_its_layer_is_told_apart(machine):
    """It was found, and yet the step was done."""
    step = run("make", base())
    machine.build(step)
    questions = {step.digest: Question("key", [], had_record=True)}
    explainer = CacheExplainer(machine.state, [step], PLACE, no_cache=False)

    assert explainer.answer(step, questions, (), cached=False) == CacheAnswer(0, "layer removed")


@pytest.mark.parametrize(("no_cache", "reason"), [(True, "no-cache"), (False, "no-cache-filter")])
def test_step_that_was_not_looked_up_says_why(machine, no_cache, reason):
    """For all steps, or for those of its stage."""
    parent = base()
    step = Vertex(op=run("x", parent).op, parent=parent, name="n", text="RUN x", stage="s", no_cache=True)
    explainer = CacheExplainer(machine.state, [step], PLACE, no_cache=no_cache)

    assert explainer.answer(step, {step.digest: Question("k", [])}, (), cached=False) == CacheAnswer(0, reason)


def test_step_that_failed_before_it_was_asked_has_no_answer(machine):
    """As where a source is missing."""
    step = run("make", base())

    assert CacheExplainer(machine.state, [step], PLACE, no_cache=False).answer(step, {}, (), cached=False) is None


def test_unknown_place_is_compared_with_the_most_similar_record(machine):
    """The same instruction of another Dockerfile, of several the one that shares most."""
    machine.build(run("make", base(), environ=(("A", "1"), ("B", "1"))))
    machine.build(run("make", base(), environ=(("A", "2"), ("B", "2"))))
    machine.state.put_past(PLACE, {"s": ()})
    step = run("make", base(), environ=(("A", "1"), ("B", "3")))
    explainer = CacheExplainer(machine.state, [step], "elsewhere", no_cache=False)
    question = Question("k", [*step.op.ingredients(), ("below", step.parent.digest)])

    assert explainer.answer(step, {step.digest: question}, (), cached=False) == CacheAnswer(
        0, "changed", (CacheChange("variable", "B", "1", "3"),), elsewhere=True
    )


def test_step_is_not_compared_with_one_of_this_build(machine):
    """The same instruction twice in a Dockerfile: the first is no earlier build of the second."""
    first = run("date", base())
    second = run("date", first)

    assert [answer.reason for answer in machine.build(first, second)] == ["new", "new"]


def test_few_files_are_named_and_the_others_counted(machine):
    """Each with all that changed of it."""
    source, parent = base("stage"), base()
    step = copy(source, parent)
    before = [ListedSource(b"a", b"a/", records(0o100644, 8))]
    now = [ListedSource(b"a", b"a/", records(0o100600, 8))]
    machine.build(step, listed=tuple(before), files="a=1")
    (answer,) = machine.build(step, listed=tuple(now), files="a=2")

    assert [change.name for change in answer.changes] == [f"/a/{number}" for number in range(5)]
    assert answer.more == 3


def records(mode: int, count: int) -> bytes:
    """Make the records of so many empty files."""
    one = [(1).to_bytes(4, "big"), mode.to_bytes(4, "big"), bytes(8), bytes(8), bytes(8), bytes(4)]
    return b"".join(b"".join([*one, str(number).encode(), bytes(32)]) for number in range(count))


def test_copy_from_a_stage_is_compared_by_the_kind_of_key_that_was_asked(machine):
    """By content if it was asked by content, though the last build was answered by the cheap key."""
    step = copy(base("stage"), base())
    machine.build(step, files="a=1")
    machine.build(step, path="/a", source_file_system="1")
    (answer,) = machine.build(step, files="a=2")

    assert answer.changes == (CacheChange("files", "b"),)


def test_copy_of_another_path_names_it(machine):
    """Files are then others, and need not be listed."""
    step = copy(base("stage"), base())
    machine.build(step, path="/a", source_file_system="1")
    (answer,) = machine.build(step, path="/x/a", source_file_system="1")

    assert answer.changes[0] == CacheChange("source path", "", "/a", "/x/a")
