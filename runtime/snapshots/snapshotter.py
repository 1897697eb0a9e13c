"""Snapshotters: ways to show chains of layers and to find out what was changed on one.

A committed snapshot is the same whoever made it: the tree of one layer in overlay form, found by name. Snapshotters
differ in what an active snapshot is while it is written, and in how a chain is shown for reading.

| snapshotter                | shows a chain by        | finds changes by                        | needs                   |
|----------------------------|-------------------------|-----------------------------------------|-------------------------|
| `overlay.Snapshots`        | an overlay mount        | looking at the upper directory          | mounts, an upper that   |
|                            |                         |                                         | `takes_upper` finds fit |
| `copies.CopiedSnapshots`   | a tree of its own       | one stat walk of the tree               | nothing                 |

Both give the same upper directory for the same changes, so layers are the same bytes (runtime.layers.diff).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runtime.snapshots.committed import StoredSnapshot

SnapshotterName = Literal["overlay", "copies"]
"""Which of them."""


class Active(NamedTuple):
    """A snapshot that is being written.

    Attributes:
        upper: what becomes the committed tree; `upperdir` of an overlay.
        work: a directory beside it, for who writes: `workdir` of an overlay, or what a step lays aside.
        tree: all that the chain and the changes show, where that is not an overlay's doing; else None.
        skeleton: a tree for a step to have below the chain, which is none of its layers (runtime.stubs).
    """

    upper: Path
    work: Path
    tree: Path | None = None
    skeleton: Path | None = None


class Snapshotter(Protocol):
    """Keeps the snapshots of one store. Many threads may use one, and many processes a store."""

    def has(self, name: str) -> bool:
        """Tell whether a snapshot is committed."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all committed snapshots, sorted."""

    def lowers(self, names: Iterable[str]) -> tuple[Path, ...]:
        """Return where the snapshots of a chain lie, base first as the names."""

    def prepare(self, lowers: Sequence[Path] = ()) -> Active:
        """Begin a snapshot on a chain, base first; empty for a first layer."""

    def writable(self, lowers: Sequence[Path], active: Active) -> AbstractContextManager[Path]:
        """Show an active snapshot over its chain to this process for writing; once, and not together with a step."""

    def settle(self, active: Active) -> None:
        """Bring all that was changed into `active.upper`. Nobody writes any more."""

    def reopened(
        self, lowers: Sequence[Path], active: Active
    ) -> AbstractContextManager[tuple[tuple[Path, ...], Active]]:
        """Give chain and snapshot for one more step on what a step has left in *active*, which can then only be discarded."""

    def commit(self, active: Active, name: str) -> None:
        """Make a settled snapshot visible under its name; *active* is gone afterwards."""

    def adopt(self, tree: Path, name: str) -> Path:
        """Make a finished tree visible under its name, and return where it lies then: there, or if the name is taken here."""

    def discard(self, active: Active) -> None:
        """Remove an active snapshot. Idempotent."""

    def view(self, names: Sequence[str]) -> AbstractContextManager[Path]:
        """Show a committed chain, base first, for reading until the block ends; the empty one is an empty directory."""

    def remove(self, name: str) -> None:
        """Remove a committed snapshot that nobody uses. Idempotent."""

    def stored(self) -> tuple[StoredSnapshot, ...]:
        """List the committed snapshots that can be removed here, with what is known of them."""

    def measure(self, directory: str) -> int:
        """Find out the bytes that a committed snapshot takes on disk; they are remembered."""

    def lay_aside(self, directory: str, target: Path) -> None:
        """Move a committed snapshot that nobody uses to where it is then removed. Idempotent."""
