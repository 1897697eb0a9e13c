"""What figures are to reach. Absolute limits are meant for works at their full sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmark.results import Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a *figure* is to stay at or below, or at or above where the limit *is_least*."""

    figure: str
    value: float
    unit: str = ""
    is_least: bool = False

    def is_reached(self, value: float) -> bool:
        """Tell whether a value is within the limit."""
        return value >= self.value if self.is_least else value <= self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A limit of a work, and the function that finds the figure in its results: None where it was not measured."""

    limit: Limit
    find: Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Compared:
    """A limit of what has this *title*, with the value measured and the least that it can be here, where that is known."""

    title: str
    limit: Limit
    value: float
    least: float | None = None


PEAK = Limit(figure="peak memory", value=150, unit=" MB")
"""Of every work, so of the one that takes the most."""

SIZE = Limit(figure="gzip / gzip of zlib 6", value=1.10)


def cold(seconds: float) -> Reach:
    """Limit the time from nothing."""
    return Reach(limit=Limit(figure="cold", value=seconds, unit=" s"), find=lambda results: results.project.cold)


def warm(seconds: float) -> Reach:
    """Limit the time of the same again."""
    return Reach(limit=Limit(figure="warm", value=seconds, unit=" s"), find=lambda results: results.project.warm)


def cold_to_floor(ratio: float) -> Reach:
    """Limit what is done beside the floor's work."""
    return Reach(
        limit=Limit(figure="cold / floor", value=ratio),
        find=lambda results: _divide(results.project.cold, results.floor),
    )


def warm_beyond_floor(seconds: float) -> Reach:
    """Limit what is done beside the floor's work, where that is next to nothing."""

    def find(results: Results) -> float | None:
        if results.project.warm is None or results.floor is None:
            return None
        return results.project.warm - results.floor

    return Reach(limit=Limit(figure="warm - floor", value=seconds, unit=" s"), find=find)


def warm_to_cold(ratio: float) -> Reach:
    """Limit what has to be done again."""
    return Reach(
        limit=Limit(figure="warm / cold", value=ratio),
        find=lambda results: _divide(results.project.warm, results.project.cold),
    )


def buildah_to_cold(ratio: float) -> Reach:
    """Ask to be so many times faster than buildah."""

    def find(results: Results) -> float | None:
        buildah = results.find_tool("buildah")
        return _divide(buildah.cold, results.project.cold) if buildah else None

    return Reach(limit=Limit(figure="buildah cold / cold", value=ratio, is_least=True), find=find)


def _divide(value: float | None, by: float | None) -> float | None:
    return None if value is None or by is None else value / by
