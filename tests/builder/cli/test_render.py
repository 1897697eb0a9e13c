"""What all renderers promise."""

import io
import threading

import pytest

from builder.cli.environment import Environment
from builder.cli.render import PROGRESS_MODES, open_renderer
from builder.events import VertexCompleted, VertexStarted


@pytest.fixture
def environment(tmp_path):
    """Surroundings with a terminal that can do little."""
    return Environment(variables={"TERM": "xterm"}, cwd=tmp_path, home=None)


@pytest.mark.parametrize("mode", PROGRESS_MODES)
def test_renderer_has_no_thread_while_paused(mode, environment):
    """Between `pause` and `start` a process may fork, and what was told before is shown after."""
    stream = io.StringIO()
    before = set(threading.enumerate())  # some of them may end meanwhile: those of other tests
    renderer = open_renderer(mode, environment, stream)
    renderer.start()
    renderer.sink(VertexStarted(vertex="v", name="first step", time=1.0))
    renderer.pause()

    assert set(threading.enumerate()) <= before
    renderer.start()
    renderer.sink(VertexCompleted(vertex="v", time=2.0))
    renderer.close()
    assert set(threading.enumerate()) <= before
    assert ("first step" in stream.getvalue()) == (mode != "quiet")
