"""Answers of the cache as text."""

import io

import pytest

from builder.cli.render import QuietRenderer
from builder.cli.show_cache import CacheReport, describe_answers
from builder.events import CacheAnswer, CacheChange, VertexCompleted, VertexStarted

DIGEST = "sha256:" + "0123456789abcdef" * 4


def describe(*changes: CacheChange, **wishes) -> list[str]:
    """Give what is said of one step that changed."""
    answer = CacheAnswer(0, "changed", changes, **wishes)
    return [line.strip() for line in describe_answers([("[1/1] RUN x", answer)])][2:]


LINES = {
    "variable": (CacheChange("variable", "A", "1", "2"), "variable A: 1 -> 2"),
    "came": (CacheChange("build argument", "A", None, "2"), "build argument A: now 2"),
    "gone": (CacheChange("variable", "A", "1", None), "variable A: no longer 1"),
    "empty": (CacheChange("user", "", "", "1"), "USER: (empty) -> 1"),
    "digest": (CacheChange("base image", "a", DIGEST, "x"), "base image a: sha256:0123456789ab -> x"),
    "unknown before": (CacheChange("base image", "a", None, DIGEST), "base image a: now sha256:0123456789ab"),
    "bare digest": (CacheChange("url body", "", DIGEST[7:], "x"), "content of the address: sha256:0123456789ab -> x"),
    "long": (
        CacheChange("command", "", "a" * 200 + "b" + "a" * 200, "a" * 200 + "c"),
        f"command: …{'a' * 20}b{'a' * 39}… -> …{'a' * 20}c",
    ),
    "long from the beginning": (
        CacheChange("command", "", "a" * 100, "b"),
        f"command: {'a' * 60}… -> b",
    ),
    "controls": (CacheChange("variable", "A", "1\n", "\x1b[31m"), "variable A: 1\\x0a -> \\x1b[31m"),
    "controls in a name": (CacheChange("file added", "a\nb"), "a\\x0ab: added"),
    "mode": (CacheChange("file mode", "a", "0644", "0755"), "a: other mode, 0644 -> 0755"),
    "step before": (CacheChange("step before", "RUN a"), "the step before gave another result: RUN a"),
    "other step before": (
        CacheChange("step before", "", "RUN a", "RUN b"),
        "the step before is another, RUN a -> RUN b",
    ),
    "files of a stage": (CacheChange("files", "made"), "the files it reads from made are others"),
    "files": (CacheChange("files"), "the files it reads are others"),
    "order": (CacheChange("order of variables"), "the order of ENV and ARG is another"),
    "nothing known": (CacheChange("base image", "a"), "another base image a"),
}


@pytest.mark.parametrize(("change", "line"), LINES.values(), ids=LINES.keys())
def test_change_is_one_line(change, line):
    """Named as users name it, values short and harmless."""
    assert describe(change) == [line]


def test_files_that_are_not_named_are_counted():
    """In the singular too."""
    assert describe(CacheChange("file added", "a"), more=1)[-1] == "and 1 other file"
    assert describe(CacheChange("file added", "a"), more=2)[-1] == "and 2 other files"


def test_comparison_with_another_build_is_said_first():
    """It is no last build of the Dockerfile, so what changed may be more than one change."""
    assert describe(CacheChange("files"), elsewhere=True)[0].startswith("compared with the most similar step")


def test_steps_stand_in_the_order_of_the_plan():
    """Whenever they were done."""
    answers = [("b", CacheAnswer(1, "new")), ("a", CacheAnswer(0, "cached"))]

    assert [line.split()[1] for line in describe_answers(answers) if line[1] in "CM"] == ["a", "b"]


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ([], "Cache: it was not asked for any step."),
        ([CacheAnswer(0, "cached")], "Cache: the one step was there."),
        ([CacheAnswer(0, "cached")] * 2, "Cache: all 2 steps were there."),
        (
            [CacheAnswer(0, "cached"), CacheAnswer(1, "imported", place="h/c")],
            "Cache: all 2 steps were there, 1 of them in h/c.",
        ),
    ],
)
def test_build_that_is_cached_takes_one_line(answers, line):
    """There is nothing to explain."""
    assert list(describe_answers(("s", answer) for answer in answers)) == [line]


def test_failed_build_says_that_it_knows_a_part_only():
    """Steps that come after the failure were never asked for."""
    (line, *_) = describe_answers([("s", CacheAnswer(0, "cached"))], failed=True)

    assert line == "Cache: 1 of 1 steps that were reached was there."


@pytest.mark.parametrize("is_alone", [True, False])
def test_report_passes_events_on_and_writes_once_at_the_end(is_alone):
    """What is shown beside it is set off by an empty line."""
    taken: list[object] = []
    shown = QuietRenderer()
    shown.sink = taken.append
    stream = io.StringIO()
    report = CacheReport(shown, stream, is_alone=is_alone)
    events = [
        VertexStarted(vertex="v", name="[1/1] RUN x", time=0.0),
        VertexCompleted(vertex="v", answer=CacheAnswer(0, "new"), time=1.0),
    ]
    for event in events:
        report.sink(event)
    before = stream.getvalue()
    report.close()
    report.close()

    assert taken == events
    assert before == ""
    assert stream.getvalue().count("Cache: ") == 1
    assert stream.getvalue().startswith("Cache: 0 of 1" if is_alone else "\nCache: 0 of 1")
    assert " MISSED  [1/1] RUN x\n" in stream.getvalue()


def test_report_survives_a_reader_that_has_gone():
    """The build has been done, whether its report is read or not."""
    stream = io.StringIO()
    report = CacheReport(QuietRenderer(), stream, is_alone=True)
    stream.close()

    report.close()
