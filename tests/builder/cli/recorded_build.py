"""One build as the renderers see it: a cached step, a transfer, two steps at once, a warning, a failure."""

from __future__ import annotations

from builder.events import Event, VertexCompleted, VertexLog, VertexStarted, VertexStatus, Warned

BEGIN = 1_700_000_000.0
LAYER = "sha256:" + "1f" * 32

EVENTS: tuple[Event, ...] = (
    VertexStarted(vertex="v1", name="[internal] load build definition from Dockerfile", time=BEGIN),
    VertexStatus(vertex="v1", id="transferring dockerfile:", current=312, completed=True, time=BEGIN + 0.02),
    VertexCompleted(vertex="v1", time=BEGIN + 0.04),
    VertexStarted(
        vertex="v2", name="[stage-0 1/3] FROM docker.io/library/alpine:3.20", inputs=("v1",), time=BEGIN + 0.1
    ),
    VertexStatus(vertex="v2", id=LAYER, current=0, total=3_400_000, time=BEGIN + 0.1),
    VertexStatus(vertex="v2", id=LAYER, current=500_000, total=3_400_000, time=BEGIN + 0.5),
    VertexStatus(vertex="v2", id=LAYER, current=1_050_000, total=3_400_000, time=BEGIN + 1.2),
    VertexStatus(vertex="v2", id=LAYER, current=3_400_000, total=3_400_000, completed=True, time=BEGIN + 1.3),
    VertexCompleted(vertex="v2", time=BEGIN + 1.5),
    VertexStarted(vertex="v3", name="[stage-0 2/3] RUN make", inputs=("v2",), time=BEGIN + 1.5),
    VertexStarted(vertex="v4", name="[docs 2/2] RUN sphinx", inputs=("v2",), time=BEGIN + 1.5),
    VertexLog(vertex="v3", stream=1, data=b"cc -c ma", time=BEGIN + 1.6),
    VertexLog(vertex="v4", stream=1, data=b"reading\n", time=BEGIN + 1.7),
    VertexLog(vertex="v3", stream=1, data=b"in.c\nok \xff\n", time=BEGIN + 1.8),
    VertexLog(vertex="v3", stream=2, data=b"10%\r50%\r100%\n", time=BEGIN + 12.8),
    Warned(vertex="v3", message="JSONArgsRecommended: use JSON (line 4)", location="Dockerfile:4", time=BEGIN + 12.9),
    VertexCompleted(vertex="v4", cached=True, time=BEGIN + 13.0),
    VertexLog(vertex="v3", stream=2, data=b"\x1b[31mno rule\x1b[0m", time=BEGIN + 13.1),
    VertexCompleted(vertex="v3", error='process "make" did not complete successfully: exit code: 2', time=BEGIN + 13.5),
    VertexStarted(vertex="v5", name="[stage-0 3/3] COPY . .", inputs=("v3",), time=BEGIN + 13.5),
    VertexCompleted(vertex="v5", canceled=True, time=BEGIN + 13.6),
)
