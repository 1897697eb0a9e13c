"""Near names, for "did you mean".

Nearness is the edit distance with transpositions (optimal string alignment), letters compared without case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORT = 3
"""Words up to this length may differ in one place only: with two, every short word resembles every other."""


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate closest to *word*, or None when none is near.

    The first of equally near candidates wins. An exact match means that the spelling is not the fault: None.

    Source: moby/buildkit, util/suggest, which allows two edits; a transposition counts as one here.
    """
    folded = word.casefold()
    limit = 1 if len(folded) <= _SHORT else 2
    best: str | None = None
    for candidate in candidates:
        other = candidate.casefold()
        if other == folded:
            return None
        if abs(len(other) - len(folded)) > limit:
            continue
        distance = _distance(folded, other)
        if distance <= limit:
            best, limit = candidate, distance - 1
    return best


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the end of a message, or the empty string."""
    near = nearest(word, candidates)
    return f" (did you mean {near}?)" if near is not None else ""


def _distance(left: str, right: str) -> int:
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and b == left[i - 2]:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
