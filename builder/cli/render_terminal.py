"""Progress as a live view on a terminal.

    [+] Building 12.3s (2/4)
     => CACHED [stage-0 1/3] FROM docker.io/library/alpine:3.20                0.0s
     => => sha256:0a1b…                       1.05MB / 3.40MB [=====>      ]   0.2s
     => [stage-0 2/3] RUN make                                                 4.1s
     => => # cc -c main.c

Every running step has its time, its transfers and the last lines it wrote; what a step wrote is stripped of terminal
sequences first. The last frame stays on the screen.

Rich draws, from a thread that only `start` makes. A build that ends before that, because all was cached, never
loads it: its only frame is written as plain text.

Source: moby/buildkit, util/progress/progressui/display.go, for the form.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TextIO, assert_never, cast

from builder.cli.lines import LineAssembler, escape_line, strip_controls
from builder.cli.units import format_elapsed, format_transfer
from builder.events import Event, VertexCompleted, VertexLog, VertexStarted, VertexStatus, Warned
from registry.value import field, mutable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType
    from rich.live import Live

    from builder.cli.environment import Environment

FRAMES_PER_SECOND = 8

_BAR_WIDTH = 20
_BAR_FROM_COLUMNS = 80
_NARROWEST = 20
_COLORS = {"done": "32", "error": "31", "dim": "2", "title": "1"}
_STYLES = {"done": "green", "error": "red", "dim": "dim", "title": "bold", "": ""}


class Row(NamedTuple):
    """One line of the view, already as wide as it may be, and the name of its style."""

    text: str
    style: str = ""


@mutable(kw_only=False)
class _Part:
    started: float
    event: VertexStatus


@mutable(kw_only=False)
class _Vertex:
    name: str
    started: float
    tail: deque[str]
    ended: float | None = None
    outcome: str = ""
    parts: dict[str, _Part] = field(default_factory=dict)
    streams: dict[int, LineAssembler] = field(default_factory=dict)


class TerminalRenderer:
    """Shows events as a view that is drawn again several times a second.

    Args:
        stream: the terminal.
        environment: says how many lines of a step are shown, and whether in colour.
        title: what is being done, for the first line.
        clock: seconds since the epoch.
        size: columns and lines; None asks the terminal for each frame.
    """

    def __init__(
        self,
        stream: TextIO,
        environment: Environment,
        *,
        title: str = "Building",
        clock: Callable[[], float] = time.time,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._stream = _OpenEndedStream(stream)
        self._environment = environment
        self._title = title
        self._log_lines = environment.log_lines()
        self._clock = clock
        self._size = size
        self._lock = threading.Lock()
        self._vertices: dict[str, _Vertex] = {}
        self._warnings: list[Warned] = []
        self._begin: float | None = None
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._closed = False
        self._failed = False

    def sink(self, event: Event) -> None:
        """Take *event* into the next frame."""
        with self._lock:
            if not self._closed:
                self._take(event)

    def start(self) -> None:
        """Load rich and begin to draw by a thread of its own."""
        if self._live is not None or self._closed:
            return
        from rich.console import Console  # noqa: PLC0415  (60 ms that a fully cached build does not pay)
        from rich.live import Live  # noqa: PLC0415  (60 ms that a fully cached build does not pay)

        width, height = self._size or (None, None)
        console = Console(
            file=cast("TextIO", self._stream),  # rich uses write, flush and encoding of it
            force_terminal=True,
            no_color=not self._environment.color(),
            width=width,
            height=height,
            highlight=False,
            markup=False,
            emoji=False,
            _environ=self._environment.variables,
        )
        self._live = Live(
            console=console,
            get_renderable=lambda: self._renderable(console.width, console.height),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start(refresh=True)
        self._thread = threading.Thread(target=self._draw, args=(self._live,), name="progress", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """End the thread and clear the view, so that the process may fork; `start` goes on with all that was shown."""
        if self._live is None or self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._ended.clear()
        self._live.transient = True
        self._live.stop()
        self._live = self._thread = None

    def close(self, error: BaseException | None = None) -> None:
        """Draw the last frame, show the cursor, and write the warnings. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._failed = error is not None
            if self._failed:
                self._cancel_open()
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            self._live.stop()
        else:
            self._write_once()
        self._write_warnings()

    def frame(self, width: int, height: int | None) -> list[Row]:
        """Return the rows of the view as it is now.

        Args:
            width: columns; no row is wider.
            height: no more rows than this; None for all, with the transfers of steps that are done.
        """
        with self._lock:
            return self._frame(max(_NARROWEST, width), height)

    def _take(self, event: Event) -> None:
        if self._begin is None:
            self._begin = event.time
        if isinstance(event, Warned):
            self._warnings.append(event)
            return
        vertex = self._vertices.get(event.vertex)
        if vertex is None:
            vertex = _Vertex(escape_line(event.vertex), event.time, deque(maxlen=self._log_lines))
            self._vertices[event.vertex] = vertex
        match event:
            case VertexStarted():
                vertex.name = escape_line(event.name)
            case VertexCompleted():
                vertex.ended = event.time
                vertex.outcome = _outcome(event)
                vertex.streams.clear()
                vertex.tail.clear()
            case VertexLog():
                lines = vertex.streams.setdefault(event.stream, LineAssembler()).feed(event.data)
                vertex.tail.extend(strip_controls(line) for line in lines[-max(1, self._log_lines) :])
            case VertexStatus():
                part = vertex.parts.setdefault(event.id, _Part(event.time, event))
                part.event = event
            case _:
                assert_never(event)

    def _cancel_open(self) -> None:
        now = self._clock()
        for vertex in self._vertices.values():
            if vertex.ended is None:
                vertex.ended, vertex.outcome = now, "CANCELED"

    def _frame(self, width: int, height: int | None) -> list[Row]:
        now = self._clock()
        done = [vertex for vertex in self._vertices.values() if vertex.ended is not None]
        header = self._header(now, len(done))
        if height is None:
            rows = [row for vertex in self._vertices.values() for row in _block(vertex, now, width, log_lines=0)]
            return [Row(_fit(header, width), "title"), *rows]
        budget = max(0, height - 1)
        log_lines = self._log_lines
        running = [vertex for vertex in self._vertices.values() if vertex.ended is None]
        blocks = [_block(vertex, now, width, log_lines=log_lines) for vertex in running]
        while log_lines and sum(map(len, blocks)) > budget:
            log_lines -= 1
            blocks = [_block(vertex, now, width, log_lines=log_lines) for vertex in running]
        if sum(map(len, blocks)) > budget:
            blocks = [block[:1] for block in blocks]
        live = [row for block in blocks for row in block][-budget:] if budget else []
        room = budget - len(live)
        past = [_title(vertex, now, width) for vertex in done[-room:]] if room else []
        return [Row(_fit(header, width), "title"), *past, *live]

    def _header(self, now: float, done: int) -> str:
        elapsed = format_elapsed(now - self._begin) if self._begin is not None else "0.0s"
        end = "" if not self._closed else " FAILED" if self._failed else " FINISHED"
        return f"[+] {self._title} {elapsed} ({done}/{len(self._vertices)}){end}"

    def _draw(self, live: Live) -> None:
        while not self._ended.wait(1 / FRAMES_PER_SECOND):
            live.refresh()

    def _renderable(self, width: int, height: int) -> RenderableType:
        from rich.text import Text  # noqa: PLC0415  (60 ms that a fully cached build does not pay)

        # A row as wide as the screen makes some terminals wrap, and one row is left for the cursor.
        rows = self.frame(width - 1, None if self._closed else max(1, height - 1))
        text = Text(no_wrap=True, overflow="crop", end="")
        for number, row in enumerate(rows):
            text.append("\n" if number else "")
            text.append(row.text, style=_STYLES[row.style])
        return text

    def _write_once(self) -> None:
        if not self._vertices:
            return
        width = (self._size or (self._environment.width, 0))[0]
        color = self._environment.color()
        for row in self.frame(width - 1, None):
            code = _COLORS.get(row.style) if color else None
            self._stream.write(f"\x1b[{code}m{row.text}\x1b[0m\n" if code else f"{row.text}\n")
        self._stream.flush()

    def _write_warnings(self) -> None:
        if not self._warnings:
            return
        count = len(self._warnings)
        self._stream.write(f"\n {count} warning{'s' if count > 1 else ''} found:\n")
        for warning in self._warnings:
            self._stream.write(f" - {escape_line(warning.message)}\n")
        self._stream.flush()


class _OpenEndedStream:
    """A text stream that swallows what is written after the terminal has gone: the build goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return True


def _outcome(event: VertexCompleted) -> str:
    if event.canceled:
        return "CANCELED"
    if event.error is not None:
        return "ERROR"
    return "CACHED" if event.cached else "DONE"


def _block(vertex: _Vertex, now: float, width: int, *, log_lines: int) -> list[Row]:
    rows = [_title(vertex, now, width)]
    rows += [_part_row(part, now if vertex.ended is None else vertex.ended, width) for part in vertex.parts.values()]
    if vertex.ended is None and log_lines:
        rows += [Row(_fit(f" => => # {line}", width), "dim") for line in _tail(vertex)[-log_lines:]]
    return rows


def _tail(vertex: _Vertex) -> list[str]:
    under_way = [strip_controls(stream.peek()) for stream in vertex.streams.values()]
    return [*vertex.tail, *(line for line in under_way if line)]


def _title(vertex: _Vertex, now: float, width: int) -> Row:
    elapsed = (now if vertex.ended is None else vertex.ended) - vertex.started
    shown = f"{vertex.outcome} " if vertex.outcome in {"CACHED", "ERROR", "CANCELED"} else ""
    style = {"": "", "ERROR": "error", "CANCELED": "error"}.get(vertex.outcome, "done")
    return Row(_spread(f" => {shown}{vertex.name}", format_elapsed(elapsed), width), style)


def _part_row(part: _Part, now: float, width: int) -> Row:
    event = part.event
    right = format_elapsed((event.time if event.completed else now) - part.started)
    if event.total:
        amount = f"{format_transfer(event.current)} / {format_transfer(event.total)}"
        bar = f" {_bar(event.current, event.total)}" if width >= _BAR_FROM_COLUMNS and not event.completed else ""
        right = f"{amount}{bar} {right:>6}"
    elif event.current:
        right = f"{format_transfer(event.current)} {right:>6}"
    return Row(_spread(f" => => {escape_line(event.id)}", right, width), "dim")


def _bar(current: int, total: int) -> str:
    filled = min(_BAR_WIDTH, max(0, _BAR_WIDTH * current // total))
    return f"[{('=' * filled + '>')[:_BAR_WIDTH]:<{_BAR_WIDTH}}]"


def _spread(left: str, right: str, width: int) -> str:
    """Return *left* and *right* at the two ends of *width* columns; *left* gives way."""
    room = width - len(right) - 1
    if room < _NARROWEST // 2:
        return _fit(left, width)
    left = _fit(left, room)
    return f"{left}{' ' * (room - _columns(left))} {right}"


def _fit(text: str, width: int) -> str:
    """Return *text* in at most *width* columns, the end cut off with `…`."""
    if _columns(text) <= width:
        return text
    if text.isascii():
        return f"{text[: width - 1]}…"
    kept, used = 0, 0
    for character in text:
        used += _columns(character)
        if used > width - 1:
            break
        kept += 1
    return f"{text[:kept]}…"


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # noqa: PLC0415  (most names are ASCII)

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
