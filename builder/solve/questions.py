"""What a build asked of the cache, step by step, and how its steps lie in their stages.

Small, because every build needs it: the keys are kept for the next one (`builder.cache.past`).
"""

from __future__ import annotations

from builder.cache.past import PastStep
from builder.plan.graph import BaseImage, EmptyFileSystem
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from builder.cache.key import Ingredient
    from builder.plan.graph import Vertex


@frozen(kw_only=False)
class Question:
    """A key of a vertex that is looked up, or would be without `--no-cache`; what counts afterwards is the last one.

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
