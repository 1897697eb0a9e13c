"""Renderers: what makes progress visible, and the choice of one.

A renderer is opened before anything happens and closed after everything has. Between the two its `sink` takes events
from any thread. A background thread writes between `start` and `pause`, so a process may fork outside of them.
"""

from __future__ import annotations

from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Protocol, TextIO, TypeAlias

    from builder.cli.environment import Environment
    from builder.events import Event
else:
    Protocol = object

ProgressMode: TypeAlias = 'Literal["auto", "plain", "tty", "rawjson", "quiet"]'
"""The values of `--progress`; `auto` is `tty` where standard error is a terminal, else `plain`."""

PROGRESS_MODES: tuple[ProgressMode, ...] = ("auto", "plain", "tty", "rawjson", "quiet")
_SYNONYMS = {"none": "quiet"}


class Renderer(Protocol):
    """Shows events. A bound `sink` is an `EventSink`."""

    def sink(self, event: Event) -> None:
        """Take one event; from any thread, before or after `start`. Never raises for a stream that is closed."""

    def start(self) -> None:
        """Begin to refresh by a thread of its own, where the renderer has one. Idempotent."""

    def pause(self) -> None:
        """End that thread before a fork; `start` goes on in either process. Idempotent."""

    def close(self, error: BaseException | None = None) -> None:
        """Write what is left, end the thread, give the terminal back. Idempotent.

        Args:
            error: what ended the work early; steps that were still running are shown as canceled. Its text is not
                written: that is `report`'s work.
        """


class QuietRenderer:
    """Shows nothing."""

    def sink(self, event: Event) -> None:
        """Drop *event*."""

    def start(self) -> None:
        """Do nothing."""

    def pause(self) -> None:
        """Do nothing."""

    def close(self, error: BaseException | None = None) -> None:
        """Do nothing."""


def open_renderer(mode: str, environment: Environment, stream: TextIO, *, title: str = "Building") -> Renderer:
    """Return the renderer for *mode* that writes to *stream*, which stays the caller's.

    Args:
        mode: a `ProgressMode`, or `none`, which some tools call `quiet`.
        environment: says whether *stream*, taken to be standard error, is a terminal, and its size.
        stream: where progress goes.
        title: what is being done, for the terminal view.

    Raises:
        UsageError: *mode* is none of them.
    """
    mode = _SYNONYMS.get(mode, mode)
    if mode == "auto":
        mode = "tty" if environment.stderr_tty and environment.variables.get("TERM") != "dumb" else "plain"
    match mode:
        case "plain":
            from builder.cli.render_plain import PlainRenderer  # noqa: PLC0415  (one of them is needed)

            return PlainRenderer(stream)
        case "tty":
            from builder.cli.render_terminal import TerminalRenderer  # noqa: PLC0415  (one of them is needed)

            return TerminalRenderer(stream, environment, title=title)
        case "rawjson":
            from builder.cli.render_json import JsonRenderer  # noqa: PLC0415  (one of them is needed)

            return JsonRenderer(stream)
        case "quiet":
            return QuietRenderer()
        case _:
            pass
    raise UsageError(f"unknown progress mode: `{mode}`", hint=f"use one of {', '.join(PROGRESS_MODES)}")
