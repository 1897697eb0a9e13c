"""Tests of builder.cli.render_terminal."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from builder.cli.environment import Environment
from builder.cli.render_terminal import TerminalRenderer
from builder.events import VertexCompleted, VertexLog, VertexStarted, VertexStatus
from tests.builder.cli.recorded_build import BEGIN, EVENTS, LAYER

ENVIRONMENT = Environment(
    variables={"TERM": "xterm", "NO_COLOR": "1"}, cwd=Path("/"), home=None, stderr_tty=True, width=80
)


def _renderer(*, now=BEGIN, size=(80, 24), environment=ENVIRONMENT, stream=None):
    return TerminalRenderer(io.StringIO() if stream is None else stream, environment, clock=lambda: now, size=size)


def _rows(renderer, width=80, height=None):
    return [row.text for row in renderer.frame(width, height)]


FINAL = f"""\
[+] Building 13.6s (5/5) FAILED
 => [internal] load build definition from Dockerfile                       0.0s
 => => transferring dockerfile:                                     312B   0.0s
 => [stage-0 1/3] FROM docker.io/library/alpine:3.20                       1.4s
 => => sha256:{LAYER[7:48]}… 3.40MB / 3.40MB   1.2s
 => ERROR [stage-0 2/3] RUN make                                          12.0s
 => CACHED [docs 2/2] RUN sphinx                                          11.5s
 => CANCELED [stage-0 3/3] COPY . .                                        0.1s

 1 warning found:
 - JSONArgsRecommended: use JSON (line 4)
"""


def test_terminal_recorded_build_leaves_its_last_frame():
    """What stays on the screen shows every step with outcome and time."""
    stream = io.StringIO()
    renderer = _renderer(now=BEGIN + 13.6, size=(80, 24), stream=stream)
    for event in EVENTS:
        renderer.sink(event)
    renderer.close(RuntimeError("x"))
    renderer.close()

    assert stream.getvalue() == FINAL


def test_terminal_live_view_ends_with_the_same_frame():
    """Drawn by rich, the last frame has the same rows, and the cursor is visible again."""
    stream = io.StringIO()
    before = threading.active_count()
    renderer = _renderer(now=BEGIN + 13.6, size=(80, 24), stream=stream)
    renderer.sink(EVENTS[0])
    renderer.start()
    renderer.start()
    for event in EVENTS[1:]:
        renderer.sink(event)
    renderer.close(RuntimeError("x"))

    text = stream.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert threading.active_count() <= before
    last = text[text.rindex("[+] Building") :].replace("\x1b[?25h", "")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", last)
    assert [line.rstrip() for line in shown.splitlines()] == FINAL.splitlines()


def test_terminal_running_step_shows_its_last_lines():
    """A running step has elapsed time and the last lines, stripped of terminal sequences."""
    renderer = _renderer(now=2.0)
    renderer.sink(VertexStarted(vertex="a", name="RUN make", time=0.0))
    data = b"".join(b"line %d\n" % number for number in range(9)) + b"\x1b[31mred\x1b[0m\x07\n50%\r60%"
    renderer.sink(VertexLog(vertex="a", stream=1, data=data, time=0.0))

    assert _rows(renderer, 40, 20) == [
        "[+] Building 2.0s (0/1)",
        " => RUN make                        2.0s",
        " => => # line 5",
        " => => # line 6",
        " => => # line 7",
        " => => # line 8",
        " => => # red\\x07",
        " => => # 60%",
    ]


def test_terminal_number_of_lines_comes_from_the_environment():
    """BUILDKIT_TTY_LOG_LINES=1 leaves one line."""
    environment = Environment(variables={"BUILDKIT_TTY_LOG_LINES": "1"}, cwd=Path("/"), home=None)
    renderer = _renderer(environment=environment)
    renderer.sink(VertexStarted(vertex="a", name="a", time=BEGIN))
    renderer.sink(VertexLog(vertex="a", stream=1, data=b"x\ny\n", time=BEGIN))

    assert _rows(renderer, 40, 20)[2:] == [" => => # y"]


def test_terminal_transfer_under_way_has_a_bar():
    """A transfer of known length shows how far it is."""
    renderer = _renderer(now=1.0)
    renderer.sink(VertexStarted(vertex="a", name="pull", time=0.0))
    renderer.sink(VertexStatus(vertex="a", id="sha256:12", current=500, total=1000, time=0.0))

    left, right = " => => sha256:12", "500B / 1.00kB [==========>         ]   1.0s"
    assert _rows(renderer, 100, 20)[2] == left + " " * (100 - len(left) - len(right)) + right


@pytest.mark.parametrize(("width", "height"), [(40, 24), (80, 5), (20, 3), (10, 1), (200, 2)], ids=str)
def test_terminal_frame_fits_the_screen(width, height):
    """No frame is higher or wider than asked for, whatever runs."""
    renderer = _renderer(now=BEGIN + 20)
    for event in EVENTS[:-4]:
        renderer.sink(event)
    for number in range(30):
        renderer.sink(VertexStarted(vertex=f"x{number}", name=f"RUN 日本語 {number} " * 9, time=BEGIN))
        renderer.sink(VertexLog(vertex=f"x{number}", stream=1, data="漢字\n".encode() * 50, time=BEGIN))
    rows = _rows(renderer, width, height)

    assert len(rows) <= height
    assert all(_columns(row) <= max(20, width) for row in rows)


def _columns(text):
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(text)


def test_terminal_running_steps_win_over_finished_ones():
    """On a short screen the steps that run are shown, then the ones that ended last."""
    renderer = _renderer(now=BEGIN)
    for number in range(10):
        renderer.sink(VertexStarted(vertex=str(number), name=f"step {number}", time=BEGIN))
        if number != 3:
            renderer.sink(VertexCompleted(vertex=str(number), time=BEGIN))

    names = [row.split()[2] for row in _rows(renderer, 40, 4)[1:]]
    assert names == ["8", "9", "3"]


def test_terminal_build_that_never_started_drawing_does_not_load_rich():
    """A build of which everything is cached pays nothing for the live view."""
    code = """
import io, sys
from pathlib import Path
from builder.cli.environment import Environment
from builder.cli.render import open_renderer
from builder.events import VertexStarted, VertexCompleted
renderer = open_renderer("tty", Environment(variables={}, cwd=Path("/"), home=None, stderr_tty=True), io.StringIO())
renderer.sink(VertexStarted(vertex="a", name="a", time=0.0))
renderer.sink(VertexCompleted(vertex="a", cached=True, time=0.0))
renderer.close()
print("rich" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "False\n"


def test_terminal_that_goes_away_does_not_disturb_the_build():
    """Writing to a terminal that hung up is no error."""

    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    renderer = _renderer(stream=Gone())
    renderer.start()
    for event in EVENTS:
        renderer.sink(event)
    renderer.close()
