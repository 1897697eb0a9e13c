"""Tests of builder.cli.render_plain."""

from __future__ import annotations

import io
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.render_plain import PATIENCE, PlainRenderer
from builder.events import VertexCompleted, VertexLog, VertexStarted, VertexStatus
from tests.builder.cli.recorded_build import BEGIN, EVENTS, LAYER

GOLDEN = f"""\
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 312B done
#1 DONE 0.0s

#2 [stage-0 1/3] FROM docker.io/library/alpine:3.20
#2 {LAYER} 0B / 3.40MB
#2 {LAYER} 1.05MB / 3.40MB 1.1s
#2 {LAYER} 3.40MB / 3.40MB 1.2s done
#2 DONE 1.4s

#3 [stage-0 2/3] RUN make
#3 ...

#4 [docs 2/2] RUN sphinx
#4 0.200 reading
#4 ...

#3 [stage-0 2/3] RUN make
#3 0.300 cc -c main.c
#3 0.300 ok \\xff
#3 11.30 100%
#3 WARN: JSONArgsRecommended: use JSON (line 4)
#3 ...

#4 [docs 2/2] RUN sphinx
#4 CACHED

#3 [stage-0 2/3] RUN make
#3 11.60 \x1b[31mno rule\x1b[0m
#3 ERROR: process "make" did not complete successfully: exit code: 2

#5 [stage-0 3/3] COPY . .
#5 CANCELED

 1 warning found:
 - JSONArgsRecommended: use JSON (line 4)
"""


def _render(events, error=None):
    stream = io.StringIO()
    renderer = PlainRenderer(stream)
    for event in events:
        renderer.sink(event)
    renderer.close(error)
    return stream.getvalue()


def test_plain_recorded_build_is_rendered_as_buildkit_does():
    """A whole build comes out in BuildKit's plain form."""
    assert _render(EVENTS) == GOLDEN


def test_plain_step_in_the_background_waits_once_started():
    """Lines of another step do not interrupt the one that is shown; they follow when it ends."""
    stream = io.StringIO()
    renderer = PlainRenderer(stream, clock=lambda: 0.0)
    renderer.start()
    for vertex in ("a", "b"):
        renderer.sink(VertexStarted(vertex=vertex, name=vertex, time=0.0))
    renderer.sink(VertexLog(vertex="b", stream=1, data=b"from b\n", time=0.0))
    renderer.sink(VertexLog(vertex="a", stream=1, data=b"from a\n", time=0.0))
    renderer.sink(VertexCompleted(vertex="a", time=0.0))
    renderer.close()

    assert stream.getvalue() == "#1 a\n#1 0.000 from a\n#1 DONE 0.0s\n\n#2 b\n#2 0.000 from b\n"


def test_plain_step_in_the_background_comes_to_light_in_time():
    """A line that has waited long enough is shown although the other step goes on and nothing else happens."""
    shown = threading.Event()
    now = [0.0]

    class Stream(io.StringIO):
        def write(self, text):
            if "from b" in text:
                shown.set()
            return super().write(text)

    renderer = PlainRenderer(Stream(), clock=lambda: now[0])
    renderer.start()
    for vertex in ("a", "b"):
        renderer.sink(VertexStarted(vertex=vertex, name=vertex, time=0.0))
    renderer.sink(VertexLog(vertex="b", stream=1, data=b"from b\n", time=0.0))
    assert not shown.is_set()
    now[0] = PATIENCE
    renderer.sink(VertexLog(vertex="b", stream=1, data=b"more\n", time=0.0))

    assert shown.wait(10)
    renderer.close()


def test_plain_start_and_close_are_idempotent():
    """Closing twice writes once and leaves no thread behind."""
    stream = io.StringIO()
    renderer = PlainRenderer(stream)
    before = threading.active_count()
    renderer.start()
    renderer.start()
    renderer.sink(VertexStarted(vertex="a", name="a", time=0.0))
    renderer.close(RuntimeError("x"))
    renderer.close(RuntimeError("x"))

    assert threading.active_count() <= before
    assert stream.getvalue() == "#1 a\n#1 CANCELED\n"


def test_plain_name_with_control_characters_stays_one_line():
    """The name of a step cannot forge lines or colours."""
    assert _render([VertexStarted(vertex="a", name="x\n#9 DONE\x1b[2J", time=0.0)]) == "#1 x\\x0a#9 DONE\\x1b[2J\n"


def test_plain_closed_stream_does_not_disturb_the_build():
    """A reader that goes away is no error for the one who reports progress."""

    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    renderer = PlainRenderer(Broken())
    for event in EVENTS:
        renderer.sink(event)
    renderer.close()


def test_plain_transfer_is_told_at_most_once_a_second():
    """A fast transfer costs a few lines, not thousands."""
    events = [VertexStarted(vertex="a", name="a", time=BEGIN)]
    events += [VertexStatus(vertex="a", id="x", current=n, total=1000, time=BEGIN + n / 1000) for n in range(1000)]
    events += [VertexStatus(vertex="a", id="x", current=1000, total=1000, completed=True, time=BEGIN + 1.0)]

    assert _render(events) == "#1 a\n#1 x 0B / 1.00kB\n#1 x 1.00kB / 1.00kB 1.0s done\n"


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [(0.0, "0.000"), (9.9994, "9.999"), (12.345, "12.35"), (123.45, "123.5"), (-1.0, "0.000")],
    ids=str,
)
def test_plain_stamp_has_four_digits(seconds, stamp):
    """The seconds before a line lose decimals as they grow."""
    text = _render(
        [
            VertexStarted(vertex="a", name="a", time=0.0),
            VertexLog(vertex="a", stream=1, data=b"x\n", time=seconds),
        ]
    )

    assert text.splitlines()[1] == f"#1 {stamp} x"


@given(st.lists(st.binary().map(lambda data: data.replace(b"\r", b"")), max_size=8))
def test_plain_output_is_never_lost(chunks):
    """However output is cut into events, every line of it is shown once and in order."""
    events = [VertexStarted(vertex="a", name="a", time=0.0)]
    events += [VertexLog(vertex="a", stream=1, data=chunk, time=0.0) for chunk in chunks]
    whole = b"".join(chunks)
    lines = whole.split(b"\n")
    if not lines[-1]:
        lines.pop()

    expected = "#1 a\n" + "".join(f"#1 0.000 {line.decode('utf-8', 'backslashreplace')}\n" for line in lines)
    assert _render(events) == expected
