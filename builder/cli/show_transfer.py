"""Pulls and pushes as progress events: one vertex an image, one status a blob."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.events import EventSink, VertexCompleted, VertexStarted, VertexStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.transfer import TransferProgress


class TransferView:
    """Translates what a registry client reports for an event sink.

    `report` is a client's progress sink. Within `vertex` its reports belong to that vertex; outside they are dropped.
    """

    def __init__(self, sink: EventSink, *, clock: Callable[[], float] = time.time) -> None:
        self._sink = sink
        self._clock = clock
        self._vertex: str | None = None

    @contextmanager
    def vertex(self, name: str) -> Iterator[None]:
        """Show what happens inside as the vertex *name*; an error that leaves it is the vertex's."""
        self._vertex = name
        self._sink(VertexStarted(vertex=name, name=name, time=self._clock()))
        try:
            yield
        except KeyboardInterrupt:
            self._sink(VertexCompleted(vertex=name, canceled=True, time=self._clock()))
            raise
        except Exception as error:
            text = getattr(error, "message", None) or str(error)
            self._sink(VertexCompleted(vertex=name, error=text, time=self._clock()))
            raise
        else:
            self._sink(VertexCompleted(vertex=name, time=self._clock()))
        finally:
            self._vertex = None

    def report(self, progress: TransferProgress) -> None:
        """Pass one report on."""
        if self._vertex is None:
            return
        id_ = progress.digest if progress.action in {"pull", "push"} else f"{progress.digest} {progress.action}"
        self._sink(
            VertexStatus(
                vertex=self._vertex,
                id=id_,
                current=progress.current,
                total=progress.total,
                completed=progress.current >= progress.total,
                time=self._clock(),
            )
        )
