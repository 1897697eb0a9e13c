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
    before = threading.active_count()
    renderer = open_renderer(mode, environment, stream)
    renderer.start()
    renderer.sink(VertexStarted(vertex="v", name="first step", time=1.0))
    renderer.pause()

    assert threading.active_count() == before
    renderer.start()
    renderer.sink(VertexCompleted(vertex="v", time=2.0))
    renderer.close()
    assert threading.active_count() == before
    assert ("first step" in stream.getvalue()) == (mode != "quiet")
