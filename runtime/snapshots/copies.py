"""Snapshots by copying: a chain is a tree of its own on disk, for places without mounts.

The *tree* of an active snapshot shows the chain below and all that is changed. It is not made anew for every step: when
its changes are committed, it shows exactly the longer chain, so it is kept, and the next step on that chain, or on one
that goes on from it, takes it over. A Dockerfile whose steps follow one another costs one copy of the base image, and
then for each step one stat walk and the size of what changed.

    TEMPORARY/snapshot-*/tree/    the tree of an active snapshot
    TEMPORARY/snapshot-*/upper/   its changes, once they are settled
    TEMPORARY/kept-*/tree/        a tree that waits for the next step
    TEMPORARY/view-*/             a chain for reading: hard links to the files of its snapshots

Source of the idea: kaniko, pkg/snapshot, which has one tree, the root of its container.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.errors import LayerError
from runtime.snapshots.changes import Survey, extract_changes, survey_tree
from runtime.snapshots.committed import CommittedSnapshots, copy_root_metadata, naming, remove_directory
from runtime.snapshots.copying import Copier
from runtime.snapshots.snapshotter import Active

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runtime.snapshots.committed import Hold

_MOST_KEPT: Final = 8
"""Trees that wait at the same time; each may be as large as an image."""

_TICK_SECONDS: Final = 0.001
_MOST_TICKS: Final = 20
_CLOCK_REALTIME_COARSE: Final = 5
"""The clock of time stamps. Source: linux/include/uapi/linux/time.h."""

_Chain = tuple["Path", ...]


@dataclass(slots=True)
class _Work:
    """What is known of an active snapshot.

    Attributes:
        lowers: its chain.
        before: the survey before; None if the tree is not used.
        after: the survey after, once it is settled.
    """

    lowers: _Chain
    before: Survey | None
    after: Survey | None = None


class CopiedSnapshots(CommittedSnapshots):
    """The committed and active snapshots of one store, without a mount. See `Snapshotter`."""

    def __init__(self, root: Path, temporary: Path, *, hold: Hold | None = None) -> None:
        super().__init__(root, temporary, hold=hold)
        self._guard = threading.Lock()
        self._works: dict[Path, _Work] = {}
        self._kept: dict[_Chain, tuple[Path, Survey]] = {}  # the last one kept comes last
        self._views: dict[_Chain, Path] = {}

    def prepare(self, lowers: Sequence[Path] = ()) -> Active:
        """Begin a snapshot on a chain: take over a tree, or make one.

        Raises:
            KernelError: the store cannot be written, or a layer cannot be read.
        """
        chain = tuple(lowers)
        with naming("copy", self.temporary):
            directory = self.make_temporary("snapshot")
            active = Active(upper=directory / "upper", work=directory / "work", tree=directory / "tree")
            try:
                os.mkdir(active.upper, 0o700)
                os.mkdir(active.work, 0o700)
                before = self._take_tree(chain, directory / "tree")
                copy_root_metadata(directory / "tree", active.upper)
            except BaseException:
                remove_directory(directory)
                raise
        _pass_tick(before.newest)
        with self._guard:
            self._works[active.upper] = _Work(chain, before)
        return active

    @contextmanager
    def writable(self, lowers: Sequence[Path], active: Active) -> Iterator[Path]:
        """Show an active snapshot for writing; a first layer is written straight to the upper directory."""
        if lowers or active.tree is None:
            yield active.tree or active.upper
            return
        self._works[active.upper].before = None
        yield active.upper

    def settle(self, active: Active) -> None:
        """Bring all that was changed into `active.upper`.

        Raises:
            KernelError: something could not be read or written.
            LayerError: the directories are nested too deep.
        """
        work = self._works[active.upper]
        if work.before is None or active.tree is None:
            return
        work.after = survey_tree(active.tree)
        extract_changes(active.tree, work.before, work.after, active.upper)

    @contextmanager
    def reopened(self, lowers: Sequence[Path], active: Active) -> Iterator[tuple[tuple[Path, ...], Active]]:
        """Give chain and snapshot for one more step, in the same tree; see `Snapshotter`."""
        yield tuple(lowers), active

    def commit(self, active: Active, name: str) -> None:
        """Make a settled snapshot visible under its name, and keep its tree for the next step.

        Raises:
            KernelError: the store cannot be written.
        """
        work = self._works[active.upper]
        self.adopt(active.upper, name)
        if work.after is not None and active.tree is not None:
            self._keep((*work.lowers, self.path(name)), active.tree, work.after)
        self.discard(active)

    def discard(self, active: Active) -> None:
        """Remove an active snapshot. Idempotent.

        Raises:
            KernelError: something could not be removed.
        """
        with self._guard:
            self._works.pop(active.upper, None)
        remove_directory(active.upper.parent)

    @contextmanager
    def view(self, names: Sequence[str]) -> Iterator[Path]:
        """Show a committed chain for reading: its only layer, a tree that waits, or one of hard links.

        Raises:
            KernelError: the store cannot be written, or a layer cannot be read.
        """
        chain = self.lowers(names)
        if len(chain) == 1:  # a first layer holds no marks that need reading
            yield chain[0]
            return
        with self._guard:
            kept = self._kept.pop(chain, None)
        if kept is None:
            yield self._linked_view(chain)
            return
        try:
            yield kept[0]
        finally:
            with self._guard:
                doomed = self._add_kept(chain, *kept)
            _remove_all(doomed)

    def _take_tree(self, chain: _Chain, target: Path) -> Survey:
        """Put the tree of a chain at *target*."""
        for count in range(len(chain), 0, -1):
            with self._guard:
                kept = self._kept.pop(chain[:count], None)
            if kept is None:
                continue
            os.rename(kept[0], target)
            os.rmdir(kept[0].parent)
            if count == len(chain):
                return kept[1]
            return _grow(target, chain[count:])
        os.mkdir(target, 0o755)
        return _grow(target, chain)

    def _keep(self, chain: _Chain, tree: Path, survey: Survey) -> None:
        kept = self.make_temporary("kept") / "tree"
        os.rename(tree, kept)
        with self._guard:
            doomed = self._add_kept(chain, kept, survey)
        _remove_all(doomed)

    def _add_kept(self, chain: _Chain, tree: Path, survey: Survey) -> list[Path]:
        """Keep a tree; return the directories of those that make room for it."""
        doomed = []
        if chain in self._kept:
            doomed.append(self._kept.pop(chain)[0].parent)
        self._kept[chain] = (tree, survey)
        while len(self._kept) > _MOST_KEPT:
            doomed.append(self._kept.pop(next(iter(self._kept)))[0].parent)
        return doomed

    def _linked_view(self, chain: _Chain) -> Path:
        with self._guard:
            if chain not in self._views:
                with naming("link", self.temporary):
                    view = self.make_temporary("view")
                    os.chmod(view, 0o755)  # noqa: S103 - the root directory of an image is for everybody
                    _lay_over(view, chain, Copier(links=True))
                self._views[chain] = view
            return self._views[chain]


def _grow(tree: Path, layers: Sequence[Path]) -> Survey:
    _lay_over(tree, layers, Copier())
    return survey_tree(tree)


def _lay_over(tree: Path, layers: Sequence[Path], copier: Copier) -> None:
    target = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for layer in layers:
            source = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                copier.lay_over(source, target)
            finally:
                os.close(source)
    except RecursionError as error:
        raise LayerError("directories are nested too deep to be copied") from error
    finally:
        os.close(target)


def _pass_tick(newest: int) -> None:
    """Wait until the clock of time stamps has left *newest*, so that a later change gets another ctime.

    Kernels before 6.13 stamp with the time of the last timer tick, 1 to 10 ms apart. A clock that was put back is not
    waited for.
    """
    for _ in range(_MOST_TICKS):
        if time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) > newest:
            return
        time.sleep(_TICK_SECONDS)


def _remove_all(directories: Sequence[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):  # what stays is swept with all that is unfinished
            remove_directory(directory)
