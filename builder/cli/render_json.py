"""Progress as BuildKit's status records, one JSON object a line. The schema is in this folder's README.

Source: moby/buildkit, client/graph.go, SolveStatus and its parts.
"""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from typing import Any, TextIO, assert_never

from builder.events import (
    CacheAnswer,
    CacheChange,
    Event,
    VertexCompleted,
    VertexLog,
    VertexStarted,
    VertexStatus,
    Warned,
)

CANCELED = "context canceled"
"""The error text of a canceled vertex, by which BuildKit's clients know one."""


class JsonRenderer:
    """Writes each event as one line at once. ASCII only, so that any locale can carry it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._vertexes: dict[str, dict[str, Any]] = {}
        self._parts: dict[tuple[str, str], str] = {}
        self._closed = False

    def sink(self, event: Event) -> None:
        """Write *event* as one record."""
        with self._lock:
            if self._closed:
                return
            record = self._record(event)
            try:
                self._stream.write(json.dumps(record, separators=(",", ":")) + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._closed = True  # nobody reads any more; the build goes on

    def start(self) -> None:
        """Do nothing: there is no thread."""

    def pause(self) -> None:
        """Do nothing: there is no thread."""

    def close(self, error: BaseException | None = None) -> None:
        """Write a canceled record for what is still open if *error* is given; idempotent."""
        with self._lock:
            unfinished = [vertex for vertex, record in self._vertexes.items() if "completed" not in record]
        if error is not None:
            now = time.time()
            for vertex in unfinished:
                self.sink(VertexCompleted(vertex=vertex, canceled=True, time=now))
        with self._lock:
            self._closed = True

    def _record(self, event: Event) -> dict[str, Any]:
        match event:
            case VertexStarted():
                vertex: dict[str, Any] = {
                    "digest": event.vertex,
                    "name": event.name,
                    "started": _format_time(event.time),
                }
                if event.inputs:
                    vertex["inputs"] = list(event.inputs)
                self._vertexes[event.vertex] = vertex
                return {"vertexes": [vertex]}
            case VertexCompleted():
                return {"vertexes": [self._complete(event)]}
            case VertexLog():
                data = b64encode(event.data).decode()
                log = {
                    "vertex": event.vertex,
                    "stream": event.stream,
                    "data": data,
                    "timestamp": _format_time(event.time),
                }
                return {"logs": [log]}
            case VertexStatus():
                return {"statuses": [self._status(event)]}
            case Warned():
                return {"warnings": [_warning(event)]}
        assert_never(event)

    def _complete(self, event: VertexCompleted) -> dict[str, Any]:
        vertex = self._vertexes.setdefault(event.vertex, {"digest": event.vertex})
        vertex["completed"] = _format_time(event.time)
        if event.cached:
            vertex["cached"] = True
        if event.canceled or event.error is not None:
            vertex["error"] = CANCELED if event.canceled else event.error
        if event.answer is not None:
            vertex["explainCache"] = _answer(event.answer)
        return vertex

    def _status(self, event: VertexStatus) -> dict[str, Any]:
        now = _format_time(event.time)
        started = self._parts.setdefault((event.vertex, event.id), now)
        status: dict[str, Any] = {"id": event.id, "vertex": event.vertex}
        if event.total:
            status["total"] = event.total
        status |= {"current": event.current, "timestamp": now, "started": started}
        if event.completed:
            status["completed"] = now
        return status


def _change(change: CacheChange) -> dict[str, str]:
    parts = {"kind": change.kind, "name": change.name or None, "before": change.before, "now": change.now}
    return {name: value for name, value in parts.items() if value is not None}


def _answer(answer: CacheAnswer) -> dict[str, Any]:
    record: dict[str, Any] = {"hit": answer.is_hit, "reason": answer.reason}
    if answer.changes:
        record["changes"] = [_change(change) for change in answer.changes]
    if answer.more:
        record["moreFiles"] = answer.more
    if answer.place:
        record["cache"] = answer.place
    if answer.elsewhere:
        record["elsewhere"] = True
    return record


def _warning(event: Warned) -> dict[str, Any]:
    warning: dict[str, Any] = {"level": 1, "short": _base64(event.message)}
    if event.vertex is not None:
        warning = {"vertex": event.vertex, **warning}
    if event.detail:
        warning["detail"] = [_base64(event.detail)]
    if event.url:
        warning["url"] = event.url
    name, colon, line = event.location.rpartition(":")
    if colon and line.isdigit():
        warning["sourceInfo"] = {"filename": name}
        warning["range"] = [{"start": {"line": int(line)}, "end": {"line": int(line)}}]
    elif event.location:
        warning["sourceInfo"] = {"filename": event.location}
    return warning


def _base64(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _format_time(seconds: float) -> str:
    """Return RFC 3339 in UTC with microseconds."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micros:06d}Z"
