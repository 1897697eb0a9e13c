"""Tests of builder.cli.render_json."""

from __future__ import annotations

import base64
import io
import json

from builder.cli.render_json import JsonRenderer
from builder.events import CacheAnswer, CacheChange, VertexCompleted, VertexLog, VertexStarted
from tests.builder.cli.recorded_build import EVENTS, LAYER


def _render(events, error=None):
    stream = io.StringIO()
    renderer = JsonRenderer(stream)
    renderer.start()
    for event in events:
        renderer.sink(event)
    renderer.close(error)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_recorded_build_begins_with_its_first_vertex():
    """A vertex is told when it starts, and again with its end."""
    first, status, end = _render(EVENTS)[:3]
    name = "[internal] load build definition from Dockerfile"
    started = {"digest": "v1", "name": name, "started": "2023-11-14T22:13:20.000000Z"}

    assert first == {"vertexes": [started]}
    assert status == {
        "statuses": [
            {
                "id": "transferring dockerfile:",
                "vertex": "v1",
                "current": 312,
                "timestamp": "2023-11-14T22:13:20.020000Z",
                "started": "2023-11-14T22:13:20.020000Z",
                "completed": "2023-11-14T22:13:20.020000Z",
            }
        ]
    }
    assert end == {"vertexes": [{**started, "completed": "2023-11-14T22:13:20.040000Z"}]}


def test_json_recorded_build_has_one_record_an_event():
    """Nothing is put together or left out."""
    kinds = [next(iter(record)) for record in _render(EVENTS)]

    assert len(kinds) == len(EVENTS)
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {
        "logs": 5,
        "statuses": 5,
        "vertexes": 10,
        "warnings": 1,
    }


def test_json_outcomes_are_told_as_buildkit_does():
    """Cached, failed and canceled vertices carry the fields BuildKit's clients look at."""
    ends = {}
    for record in _render(EVENTS):
        for vertex in record.get("vertexes", ()):
            if "completed" in vertex:
                ends[vertex["digest"]] = (vertex.get("cached", False), vertex.get("error"))

    assert ends == {
        "v1": (False, None),
        "v2": (False, None),
        "v3": (False, 'process "make" did not complete successfully: exit code: 2'),
        "v4": (True, None),
        "v5": (False, "context canceled"),
    }


def test_json_status_keeps_when_the_transfer_began():
    """Every status of a part has the start of its first."""
    statuses = [s for record in _render(EVENTS) for s in record.get("statuses", ()) if s["id"] == LAYER]

    assert {status["started"] for status in statuses} == {"2023-11-14T22:13:20.100000Z"}
    assert [status["current"] for status in statuses] == [0, 500_000, 1_050_000, 3_400_000]
    assert ["completed" in status for status in statuses] == [False, False, False, True]


def test_json_log_keeps_bytes_as_they_were():
    """Output that is not text survives."""
    records = _render([VertexLog(vertex="a", stream=2, data=b"\xff\x00\r\n", time=0.5)])

    assert base64.b64decode(records[0]["logs"][0]["data"]) == b"\xff\x00\r\n"
    assert records[0]["logs"][0]["stream"] == 2
    assert records[0]["logs"][0]["timestamp"] == "1970-01-01T00:00:00.500000Z"


def test_json_warning_says_where():
    """A warning carries its text in base64 and the line it is about."""
    (warning,) = [w for record in _render(EVENTS) for w in record.get("warnings", ())]

    assert base64.b64decode(warning["short"]) == b"JSONArgsRecommended: use JSON (line 4)"
    assert warning["sourceInfo"] == {"filename": "Dockerfile"}
    assert warning["range"] == [{"start": {"line": 4}, "end": {"line": 4}}]


def test_json_close_with_an_error_cancels_what_is_open():
    """A reader is not left with vertices that never end."""
    records = _render([VertexStarted(vertex="a", name="a", time=0.0)], error=RuntimeError("x"))

    assert records[-1]["vertexes"][0]["error"] == "context canceled"


def test_json_is_ascii():
    """Any locale can carry the lines."""
    stream = io.StringIO()
    JsonRenderer(stream).sink(VertexStarted(vertex="a", name="日本\udcff", time=0.0))

    assert stream.getvalue().isascii()


def test_json_answer_of_the_cache_is_a_field_of_its_vertex():
    """What is empty or unknown is left out."""
    changes = (CacheChange("variable", "A", "1", "2"), CacheChange("file added", "a"), CacheChange("user", "", "", "x"))
    answers = [
        CacheAnswer(0, "cached"),
        CacheAnswer(1, "imported", place="registry.example/cache"),
        CacheAnswer(2, "changed", changes, more=3, elsewhere=True),
    ]
    events = [VertexCompleted(vertex="v", answer=answer, time=0.0) for answer in answers]

    assert [record["vertexes"][0]["explainCache"] for record in _render(events)] == [
        {"hit": True, "reason": "cached"},
        {"hit": True, "reason": "imported", "cache": "registry.example/cache"},
        {
            "hit": False,
            "reason": "changed",
            "changes": [
                {"kind": "variable", "name": "A", "before": "1", "now": "2"},
                {"kind": "file added", "name": "a"},
                {"kind": "user", "before": "", "now": "x"},
            ],
            "moreFiles": 3,
            "elsewhere": True,
        },
    ]
