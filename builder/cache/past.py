"""What the last build of a Dockerfile was made of: what a miss is compared with.

The last successful build leaves, for each of its stages, the texts and keys of its steps in order. With them it can be said
of a step whose text, arguments or files changed which earlier step it was. Nothing else depends on it.
"""

from __future__ import annotations

from registry.hashing import small_sha256
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.request import BuildRequest

_ALIKE = 0.6
"""How much of two texts has to be the same, from 0 to 1, for one to be taken for the other where it is not clear."""


@frozen(kw_only=False)
class PastStep:
    """One step of a stage: its instruction, and the key it had. What a stage begins with is its first step.

    Attributes:
        text: the instruction.
        key: the key; of a base image the digest of its manifest, empty if it begins with nothing or with a stage.
    """

    text: str
    key: str


def name_place(request: BuildRequest) -> str:
    """Name what tells the builds of one Dockerfile from others; the name tells nothing, for addresses may hold secrets."""
    parts = (request.context, request.dockerfile, request.dockerfile_url)
    data = b"".join(small_sha256(str(part).encode("utf-8", "surrogateescape")).digest() for part in parts)
    return small_sha256(data).hexdigest()


def pair_steps(past: Sequence[str], now: Sequence[str]) -> dict[int, int]:
    """Find for steps of now which of the past they were.

    Steps of the same text are the same; between these, one step is taken for the one that stood there if it is of the
    same kind, and if there are several, for one that reads much alike. A step that was moved is found by its text.

    Args:
        past: the texts of a stage then.
        now: the texts of the stage now.

    Returns:
        Indices of *now* to indices of *past*; steps that are new are left out.
    """
    from difflib import SequenceMatcher  # noqa: PLC0415  only where a miss is explained

    pairs: dict[int, int] = {}
    for tag, old, old_end, new, new_end in SequenceMatcher(None, past, now, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs.update(zip(range(new, new_end), range(old, old_end), strict=True))
        elif tag == "replace":
            pairs.update(_pair_changed(past, now, range(old, old_end), range(new, new_end)))
    left = {text: index for index, text in enumerate(past) if index not in pairs.values()}
    for index, text in enumerate(now):
        if text in left and (index not in pairs or past[pairs[index]] != text):
            pairs[index] = left.pop(text)
    return pairs


def _pair_changed(past: Sequence[str], now: Sequence[str], old: range, new: range) -> dict[int, int]:
    from difflib import SequenceMatcher  # noqa: PLC0415  as above

    pairs: dict[int, int] = {}
    free = list(old)
    for index in new:
        alike = [
            (1.0 if len(old) == len(new) == 1 else SequenceMatcher(None, past[other], now[index]).ratio(), -other)
            for other in free
            if past[other].partition(" ")[0] == now[index].partition(" ")[0]
        ]
        best, number = max(alike, default=(0.0, 0))
        if best >= _ALIKE:
            pairs[index] = -number
            free.remove(-number)
    return pairs
