"""The snapshots below a step, of which the topmost may still be on their way to their names.

A step can run on what the one before has left before the layer of that is made. Its tree then lies among the unfinished
things of the process, and is renamed when the name is known, or thrown away if another process has made the same. What
a mount shows stays as it is meanwhile; only who opens a directory by its path has to keep it in its place until that
is done.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runtime.snapshots.snapshotter import Active, Snapshotter


class Upper:
    """What a step has changed, as one of the trees below other steps. Used from many threads.

    Who uses it holds it, its maker from the start; when nobody does any more, what is left of it is removed.

    Args:
        active: the settled snapshot.
        snapshots: where it was made.
    """

    def __init__(self, active: Active, snapshots: Snapshotter) -> None:
        self._active = active
        self._snapshots = snapshots
        self._path = active.upper
        self._changed = threading.Condition()
        self._opening = 0
        self._held = 1

    @property
    def path(self) -> Path:
        """Where it lies at this moment."""
        return self._path

    @property
    def is_committed(self) -> bool:
        """Whether it lies under its name, and stays there when nobody holds it."""
        return self._path != self._active.upper

    @contextmanager
    def opening(self) -> Iterator[Path]:
        """Keep it in its place for the time of the block."""
        with self._changed:
            self._opening += 1
        try:
            yield self._path
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify_all()

    def commit(self, name: str) -> None:
        """Make it visible under its name, once nobody is opening it.

        Raises:
            KernelError: the store cannot be written.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._opening)
            self._path = self._snapshots.adopt(self._path, name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for the time of the block."""
        with self._changed:
            self._held += 1
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let go of it, for who has made it."""
        with self._changed:
            self._held -= 1
            is_over = not self._held
        if is_over:
            self._snapshots.discard(self._active)


@frozen(kw_only=False)
class Chain:
    """The trees below a step, base first. *pending* are the last of them, those that may still move."""

    lowers: tuple[Path, ...]
    pending: tuple[Upper, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where they lie at this moment."""
        return (*self.lowers, *(upper.path for upper in self.pending))

    def with_upper(self, upper: Upper) -> Chain:
        """Give the chain of a step on the one that has left *upper* on this chain."""
        settled = 0
        while settled < len(self.pending) and self.pending[settled].is_committed:
            settled += 1
        lowers = (*self.lowers, *(each.path for each in self.pending[:settled]))
        return Chain(lowers, (*self.pending[settled:], upper))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all of it on disk for the time of the block."""
        with ExitStack() as stack:
            for upper in self.pending:
                stack.enter_context(upper.held())
            yield

    def opening(self, until: ExitStack) -> Sequence[Path]:
        """Say where all of it lies, and keep it there until a stack is closed."""
        return (*self.lowers, *(until.enter_context(upper.opening()) for upper in self.pending))
