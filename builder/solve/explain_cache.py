"""Why the cache had a step or not: what `--explain-cache` says of each vertex.

A miss is compared with the step that stood in its place in the last successful build of the same Dockerfile
(`builder.cache.past`), whose record holds the ingredients of its key. Where there was none, it is compared with the
most similar record of the same instruction in any build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from builder.cache.compare import CONTENT_NAMES, compare_ingredients, count_equal, shape
from builder.cache.listing import compare_listings, unpack_listing
from builder.cache.past import pair_steps
from builder.events import CacheAnswer, CacheChange
from builder.plan.graph import BaseImage, RunCommand
from builder.solve.questions import has_key, list_stages, name_stage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from builder.cache.key import Ingredient
    from builder.cache.past import PastStep
    from builder.cache.state import Record, State
    from builder.context.digest import ListedSource
    from builder.plan.graph import Vertex
    from builder.solve.questions import Question

MOST_FILES = 5
"""How many files that changed are named."""

_MOST_RECORDS = 100
"""How many records of the same instruction are looked at."""


class _Earlier(NamedTuple):
    """The step that stood in the place of one of now, and what stood before it; None if it was the first."""

    step: PastStep
    before: PastStep | None


class CacheExplainer:
    """Says why the cache had each step of a build or not. Used from many threads.

    Args:
        state: has records, listings and what the last build was made of.
        vertices: those of the build, inputs before those that need them.
        place: names the builds of its Dockerfile (`builder.cache.past.name_place`).
        no_cache: whether nothing was looked up at all.
    """

    def __init__(self, state: State, vertices: Sequence[Vertex], place: str, *, no_cache: bool) -> None:
        self._state = state
        self._no_cache = no_cache
        self._numbers = {vertex.digest: number for number, vertex in enumerate(vertices)}
        self._past = state.find_past(place)
        self._earlier = dict(_find_earlier(vertices, self._past))

    def answer(
        self,
        vertex: Vertex,
        questions: Mapping[str, Question],
        listed: Sequence[ListedSource],
        *,
        cached: bool,
    ) -> CacheAnswer | None:
        """Say what the cache said to a vertex; None for what has no key, or was not asked.

        Args:
            vertex: done, or failed.
            questions: those asked so far in this build, by vertex digest.
            listed: the files that its key is made of.
            cached: whether it was answered by the cache.
        """
        question = questions.get(vertex.digest)
        if question is None:
            return None
        number = self._numbers[vertex.digest]
        if cached:
            return CacheAnswer(number, "imported" if question.place else "cached", place=question.place)
        if vertex.no_cache:
            return CacheAnswer(number, "no-cache" if self._no_cache else "no-cache-filter")
        if question.had_record:
            return CacheAnswer(number, "layer removed")
        earlier = self._earlier.get(vertex.digest)
        if earlier is None:
            if name_stage(vertex) in self._past:
                return CacheAnswer(number, "new")
            own = {asked.key for asked in list(questions.values())}
            record = self._find_similar(vertex.text, question, own)
            return (
                self._compare(number, vertex, question, listed, None, record) if record else CacheAnswer(number, "new")
            )
        if earlier.step.key == question.key:
            return CacheAnswer(number, "record removed")
        record = self._find_record(earlier.step.key, question)
        if record is None:
            changes = [_instruction(earlier.step.text, vertex.text)] if earlier.step.text != vertex.text else []
            return CacheAnswer(number, "past removed", tuple(changes))
        return self._compare(number, vertex, question, listed, earlier, record)

    def _find_record(self, key: str, question: Question) -> Record | None:
        """Find the record of an earlier key; of its two kinds of keys that which can be compared with the question."""
        record = self._state.find_record(key)
        if record is None or shape(record.ingredients) == shape(question.ingredients):
            return record
        others = self._state.find_records(record.diff_id, record.name)
        alike = [other for other in others if other.key != question.key and _has_shape(other, question)]
        return max(alike, key=lambda other: count_equal(other.ingredients, question.ingredients), default=record)

    def _find_similar(self, text: str, question: Question, own: Collection[str]) -> Record | None:
        """Find the record of an instruction that shares most with the question, of those the one that was used last."""
        records = [record for record in self._state.find_named(text, limit=_MOST_RECORDS) if record.key not in own]
        alike = [record for record in records if _has_shape(record, question)]
        return max(alike, key=lambda record: count_equal(record.ingredients, question.ingredients), default=None)

    def _compare(
        self,
        number: int,
        vertex: Vertex,
        question: Question,
        listed: Sequence[ListedSource],
        earlier: _Earlier | None,
        record: Record,
    ) -> CacheAnswer:
        before, now = record.ingredients, question.ingredients
        changes = list(_compare_below(vertex, before, now, earlier))
        build_args = vertex.op.build_args if isinstance(vertex.op, RunCommand) else ()
        changes += compare_ingredients(before, now, build_args=build_args)
        files: list[CacheChange] = []
        if not any(change.kind == "source" for change in changes):
            files = list(self._compare_content(vertex, record, now, listed))
        names = list(dict.fromkeys(change.name for change in files))
        shown = set(names[:MOST_FILES])
        changes += (change for change in files if change.name in shown)
        return CacheAnswer(
            number,
            "changed" if changes else "other version",
            tuple(changes),
            more=len(names) - len(shown),
            elsewhere=earlier is None,
        )

    def _compare_content(
        self, vertex: Vertex, record: Record, now: Sequence[Ingredient], listed: Sequence[ListedSource]
    ) -> Iterator[CacheChange]:
        """Give the files that differ; where they were not listed, or are known as a whole, what they come from."""
        then, here = _content(record.ingredients), _content(now)
        if then == here:
            return
        listing = self._state.find_listing(record.key)
        if listing and shape(record.ingredients) == shape(now):
            differing = list(compare_listings(unpack_listing(listing), listed, root="/" if vertex.sources else ""))
            if differing:
                yield from differing
                return
        paths = [" ".join(value for name, value in side if name == "path") for side in (then, here)]
        if paths[0] != paths[1] and all(paths):
            yield CacheChange("source path", "", *paths)
        for source in vertex.sources or (None,):
            yield CacheChange("files", "" if source is None else _name_source(source))


def _find_earlier(vertices: Iterable[Vertex], past: Mapping[str, Sequence[PastStep]]) -> Iterator[tuple[str, _Earlier]]:
    """Find the step of the last build that stood in the place of each vertex, by its digest."""
    steps = list(filter(has_key, vertices))
    for name, stage in list_stages(steps, {}).items():
        then = past.get(name, ())
        pairs = pair_steps([step.text for step in then], [step.text for step in stage])
        mine = [vertex for vertex in steps if name_stage(vertex) == name]
        for index, vertex in enumerate(mine, start=1):  # what the stage begins with stands before its steps
            if pairs.get(index):
                yield vertex.digest, _Earlier(then[pairs[index]], then[pairs[index] - 1])


def _compare_below(
    vertex: Vertex, before: Sequence[Ingredient], now: Sequence[Ingredient], earlier: _Earlier | None
) -> Iterator[CacheChange]:
    """Say what is different below a step, if anything is."""
    if dict(before).get("below") == dict(now).get("below"):
        return
    parent, stood = vertex.parent, earlier.before if earlier else None
    if parent is None or isinstance(parent.op, BaseImage):
        text = parent.text if parent else "FROM scratch"
        base, stood_base = text.removeprefix("FROM "), stood.text.removeprefix("FROM ") if stood else None
        if stood is None or stood.text == text:
            digest = parent.op.image.descriptor.digest if parent and isinstance(parent.op, BaseImage) else None
            yield CacheChange("base image", base, stood.key if stood else None, digest)
        elif stood.text.startswith("FROM "):
            yield CacheChange("base image", "", stood_base, base)
        else:
            yield CacheChange("step before", "", stood.text, text)
    elif stood is None or stood.text == parent.text:
        yield CacheChange("step before", parent.text)
    else:
        yield CacheChange("step before", "", stood.text, parent.text)


def _instruction(before: str, now: str) -> CacheChange:
    return CacheChange("instruction", "", before, now)


def _has_shape(record: Record, question: Question) -> bool:
    return shape(record.ingredients) == shape(question.ingredients)


def _content(ingredients: Iterable[Ingredient]) -> list[Ingredient]:
    return [(name, value) for name, value in ingredients if name in CONTENT_NAMES]


def _name_source(source: Vertex) -> str:
    if isinstance(source.op, BaseImage):
        return source.op.reference
    return source.stage or source.text
