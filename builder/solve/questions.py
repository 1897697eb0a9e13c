"""What a build asked of the cache, step by step, and how its steps lie in their stages.

Small, because every build needs it: the keys are kept for the next one (`builder.cache.past`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cache.past import PastStep
from builder.plan.graph import BaseImage, EmptyFileSystem
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from builder.cache.key import Ingredient
    from builder.cache.listing import Listing
    from builder.plan.graph import Vertex


_MANY = 1 << 16
"""Bytes of records that are kept as they are."""


@frozen(kw_only=False)
class Question:
    """The last key of a vertex that was looked up, or would have been without `--no-cache`.

    Attributes:
        key: the key.
        ingredients: what it is made of.
        had_record: whether there was a record, with or without its layer.
        place: the imported cache that had it; empty if none had.
    """

    key: str
    ingredients: list[Ingredient]
    had_record: bool = False
    place: str = ""


class AskedFiles:
    """The files in the key of a step; implements `builder.context.digest.Listed`.

    They become a listing when they are many or somebody wants it, as a step that is found wants none.

    Args:
        folder: for the listing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources: list[tuple[bytes, bytes, list[bytes]]] = []
        self._size = 0
        self._listing: Listing | None = None

    def begin(self, name: bytes, prefix: bytes) -> None:
        """Begin a source."""
        if self._listing is not None:
            self._listing.begin(name, prefix)
        else:
            self._sources.append((name, prefix, []))

    def add(self, records: bytes) -> None:
        """Take further records of the source."""
        if self._listing is not None:
            self._listing.add(records)
            return
        self._sources[-1][2].append(records)
        self._size += len(records)
        if self._size >= _MANY:
            self.listing()

    def listing(self) -> Listing:
        """Give what was taken as a listing."""
        if self._listing is None:
            from builder.cache.listing import Listing  # noqa: PLC0415  a build that is cached lists nothing

            self._listing = Listing(self._folder)
            for name, prefix, pieces in self._sources:
                self._listing.begin(name, prefix)
                for records in pieces:
                    self._listing.add(records)
            self._sources = []
        return self._listing


def has_key(vertex: Vertex) -> bool:
    """Tell whether a vertex is a step: base images have no cache keys."""
    return not isinstance(vertex.op, BaseImage | EmptyFileSystem)


def name_stage(vertex: Vertex) -> str:
    """Name the stage a step belongs to, and its platform where there are several."""
    return f"{vertex.platform} {vertex.stage}".strip()


def list_stages(vertices: Iterable[Vertex], questions: Mapping[str, Question]) -> dict[str, list[PastStep]]:
    """List the steps of each stage with what it begins with before them; steps without a question have no key.

    Args:
        vertices: of a plan, inputs before those that need them.
        questions: by vertex digest.
    """
    stages: dict[str, list[PastStep]] = {}
    for vertex in filter(has_key, vertices):
        steps = stages.setdefault(name_stage(vertex), [])
        if not steps:
            steps.append(_beginning(vertex.parent))
        question = questions.get(vertex.digest)
        steps.append(PastStep(vertex.text, question.key if question else ""))
    return stages


def _beginning(parent: Vertex | None) -> PastStep:
    if parent is None:
        return PastStep("FROM scratch", "")
    return PastStep(parent.text, parent.op.image.descriptor.digest if isinstance(parent.op, BaseImage) else "")
