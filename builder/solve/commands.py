"""Carrying out RUN in two parts: the command, and then the layer of what it changed.

The two are parts because the next command need not wait for the layer (`builder.solve.schedule`). What a command was
given, its mounts and its network, is taken back when it has ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from builder.errors import ContextError
from builder.events import EventSink, Warned
from builder.solve.chain import Chain, Upper
from builder.solve.filesystem import FileSystem, FileSystems, snapshot_name
from builder.solve.networks import StepNetworks, networks_of
from builder.solve.ops.run import run_command
from registry.value import frozen
from runtime.layers.diff import KnownTrees, write_changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from builder.context.local import LocalContext
    from builder.context.remote import RemoteContext
    from builder.errors import StepFailedError
    from builder.image.assemble import Layer
    from builder.plan.graph import RunCommand, Vertex
    from builder.solve.failed_step import FailedStep
    from builder.solve.imported_cache import ImportedCaches
    from builder.solve.layer import LayerMaker
    from builder.solve.ops.mounts import Mounts, StepMounts
    from builder.solve.solver import Grants
    from builder.store import Store
    from runtime.networks import PrivateNetwork
    from runtime.snapshots.snapshotter import Active
    from runtime.zygote import Step, Zygote


@frozen
class Ended:
    """A command that has ended well.

    *active* is the settled snapshot of what it changed on *chain*; *upper* is the same for the commands on it, None
    where they have to wait for the layer. *is_recorded* says whether the cache may keep the layer. *held* keeps the
    chain, and what it has left, until the layer is made.
    """

    active: Active
    chain: Chain
    upper: Upper | None
    is_recorded: bool
    held: ExitStack


class Commands:
    """Carries out the commands of one build; close it when done. Used from many threads.

    Args:
        store: where layers and snapshots are.
        context: the build context.
        file_systems: unpacks stages and images.
        layers: makes layers.
        zygote: starts steps.
        sink: takes events.
        grants: what the commands may have.
        imported: what other caches know; None if there are none.
        epoch: seconds after which times do not count; None if all do.
        keeps_failed: keep what the first command that fails has left.
    """

    def __init__(
        self,
        store: Store,
        context: LocalContext | RemoteContext,
        file_systems: FileSystems,
        layers: LayerMaker,
        zygote: Zygote,
        sink: EventSink,
        *,
        grants: Grants,
        imported: ImportedCaches | None,
        epoch: int | None,
        keeps_failed: bool,
    ) -> None:
        self._store = store
        self._context = context
        self._file_systems = file_systems
        self._layers = layers
        self._zygote = zygote
        self._sink = sink
        self._grants = grants
        self._imported = imported
        self._epoch = epoch
        self._keeps_failed = keeps_failed
        self._failed: list[FailedStep] = []
        self._running: set[Step] = set()
        self._known = KnownTrees()
        self._canceled = False
        self._guard = threading.Lock()
        self._mounts: Mounts | None = None
        self._networks: StepNetworks | None = None

    def prepare_networks(self) -> None:
        """Have a first private network made while other things are done."""
        self._networks = StepNetworks(self._sink, networks_of(self._zygote))
        self._networks.prepare()

    def find_failed(self, error: BaseException) -> FailedStep | None:
        """Give the step that was kept when it failed with this error."""
        return next((failed for failed in self._failed if failed.error is error), None)

    def cancel(self) -> None:
        """End the running commands, and those that begin from now on."""
        with self._guard:
            self._canceled = True
            running = tuple(self._running)
        for step in running:
            step.kill()

    def close(self) -> None:
        """Let go of what was kept, and end what serves the commands."""
        for failed in self._failed:
            failed.close()
        if self._mounts is not None:
            self._mounts.close()
        if self._networks is not None:
            self._networks.close()

    def chain(self, layers: FileSystem) -> Chain:
        """Give the snapshots of a file system, unpacking what is not unpacked."""
        return Chain(self._store.snapshots.lowers(self._file_systems.snapshots(layers)))

    def run(self, vertex: Vertex, op: RunCommand, chain: Chain, sources: Sequence[FileSystem]) -> Ended:
        """Run a command to its end.

        Args:
            vertex: the step.
            op: its command.
            chain: what it runs on.
            sources: the file systems that its mounts read from.

        Raises:
            StepFailedError: it ended with another status than 0, or could not be started.
            BuildError: something it needs cannot be had.
        """
        step: Step | None = None

        def note(started: Step) -> None:
            nonlocal step
            step = started
            with self._guard:
                self._running.add(started)
                canceled = self._canceled
            if canceled:
                started.kill()

        def keep_failed(active: Active, error: StepFailedError) -> bool:
            if self._canceled or not self._keeps_failed:
                return False
            from builder.solve.failed_step import FailedStep  # noqa: PLC0415  only if somebody wants to look at it

            kept = held.pop_all()
            kept.push(given.pop_all())
            failed = FailedStep(
                error, op, chain, active, mounts, network, self._zygote, self._store.snapshots, held=kept
            )
            self._failed.append(failed)
            return True

        with ExitStack() as held:
            held.enter_context(chain.held())
            try:
                with ExitStack() as given:
                    mounts = given.enter_context(self._mounted(vertex, op, sources))
                    network = given.enter_context(self._lent_network(op))
                    active = run_command(
                        vertex,
                        op,
                        chain,
                        self._store.snapshots,
                        self._zygote,
                        sink=self._sink,
                        on_start=note,
                        mounts=mounts,
                        network=network,
                        keep_failed=keep_failed,
                    )
            finally:
                if step is not None:
                    with self._guard:
                        self._running.discard(step)
            return self._ended(vertex, op, chain, active, held)

    def make_layer(self, vertex: Vertex, ended: Ended, below: FileSystem) -> Layer:
        """Make the layer of what a command has changed, and its snapshot, on the file system it ran on."""
        active, lowers = ended.active, ended.chain.paths
        epoch = None if vertex.no_cache else self._epoch  # without a cache, a step gives what it gave
        layer = self._layers.make(
            lambda writer, note: write_changes(active.upper, lowers, writer, on_entry=note, known=self._known),
            epoch=epoch,
        )
        same = self._find_same_layer(layer)
        if same is not None:
            return same
        name = snapshot_name((*below, layer))
        if ended.upper is None:
            self._store.snapshots.commit(active, name)
        else:
            ended.upper.commit(name)
        return layer

    def _ended(self, vertex: Vertex, op: RunCommand, chain: Chain, active: Active, held: ExitStack) -> Ended:
        upper: Upper | None = None
        # With an epoch, an earlier layer may take the place of the new one.
        if active.tree is None and self._epoch is None:
            upper = Upper(active, self._store.snapshots)
            held.callback(upper.release)
        else:
            held.callback(self._store.snapshots.discard, active)
        is_recorded = not op.mounts or self._is_unchanged(vertex, op)
        return Ended(active=active, chain=chain, upper=upper, is_recorded=is_recorded, held=held.pop_all())

    def _lent_network(self, op: RunCommand) -> AbstractContextManager[PrivateNetwork | None]:
        """Give the private network of a command for the time of a block."""
        return contextlib.nullcontext() if self._networks is None else self._networks.lent(op)

    @contextlib.contextmanager
    def _mounted(self, vertex: Vertex, op: RunCommand, sources: Sequence[FileSystem]) -> Iterator[StepMounts | None]:
        """Give what a command is given beside its root for the time of the block, None for nothing."""
        if not op.mounts and not op.devices:
            yield None
            return
        from builder.solve.ops.mounts import Mounts  # noqa: PLC0415  only with mounts

        with self._guard:
            if self._mounts is None:
                self._mounts = Mounts(
                    self._store,
                    self._context,
                    self._file_systems,
                    self._grants.secrets,
                    self._grants.ssh,
                    is_canceled=lambda: self._canceled,
                    can_mount=self._zygote.isolation == "namespaces",
                    imported=self._imported,
                )
            mounts = self._mounts
        with mounts.prepared(vertex, op, sources) as ready:
            if op.devices and self._grants.devices is not None:
                self._grants.devices.give(vertex, ready)
            yield ready

    def _is_unchanged(self, vertex: Vertex, op: RunCommand) -> bool:
        """Tell, and warn, whether files of the context changed while a command could read them."""
        from builder.solve.mount_inputs import check_mounted  # noqa: PLC0415  only with mounts

        try:
            check_mounted(self._context, vertex, op)
        except ContextError as error:
            message = f"{vertex.name}: the result is not kept in the cache, {error.message}"
            self._sink(Warned(vertex=vertex.digest, message=message, time=time.time()))
            return False
        return True

    def _find_same_layer(self, layer: Layer) -> Layer | None:
        """Find an earlier layer that counts as the same."""
        if self._epoch is None or layer.clamped is None:
            return None
        from builder.solve.same_layer import find_same_layer  # noqa: PLC0415  only with an epoch

        return find_same_layer(layer, layer.clamped, self._epoch, self._store, self._file_systems)
