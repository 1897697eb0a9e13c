"""A RUN that failed, kept as it was for somebody who wants to look at it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from builder.solve.ops.run import sandbox_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.errors import StepFailedError
    from builder.plan.graph import RunCommand
    from builder.solve.chain import Chain
    from builder.solve.ops.mounts import StepMounts
    from runtime.mounts import LayersMount
    from runtime.networks import PrivateNetwork
    from runtime.snapshots.snapshotter import Active, Snapshotter
    from runtime.spec import SandboxSpec
    from runtime.zygote import Zygote


class FailedStep:
    """A step that failed, with all that it was given still there until it is closed.

    Args:
        error: how it failed.
        op: its command.
        chain: what it ran on.
        active: what it changed; discarded in the end.
        mounts: what it was given beside its root.
        network: its own network; None if it had none.
        zygote: started it.
        snapshots: where *active* is.
        held: keeps *mounts*, *network* and *chain* until it is closed.
    """

    def __init__(
        self,
        error: StepFailedError,
        op: RunCommand,
        chain: Chain,
        active: Active,
        mounts: StepMounts | None,
        network: PrivateNetwork | None,
        zygote: Zygote,
        snapshots: Snapshotter,
        *,
        held: ExitStack,
    ) -> None:
        self.error = error
        self.op = op
        self._chain = chain
        self._active = active
        self._mounts = mounts
        self._network = network
        self._zygote = zygote
        self._snapshots = snapshots
        self._held = held

    def run(
        self,
        args: tuple[str, ...],
        *,
        environ: Sequence[tuple[str, str]] = (),
        stdin: int,
        output: int,
        foreground: bool,
    ) -> int:
        """Run another command where the step ran, on the files as it left them, and return its status. Once.

        It has the environment, user, directory, mounts, network and limits of the step. What it changes is thrown away
        when this step is closed, but for what it writes to a cache mount.

        Args:
            args: the command.
            environ: variables that count less than those of the step.
            stdin: its standard input.
            output: where all that it writes goes.
            foreground: whether *stdin* is a terminal whose foreground is the command's.

        Returns:
            The exit status, or the negative number of the signal that ended it.

        Raises:
            SandboxError: it could not be started.
        """
        with ExitStack() as stack:
            lowers, active = stack.enter_context(self._snapshots.reopened(self._chain.paths, self._active))
            spec = sandbox_of(self.op, lowers, active, self._mounts, self._network)
            spec = spec._replace(
                args=args,
                environ=(*environ, *spec.environ),
                layer_mounts=self._reopen_mounts(spec, stack),
                interactive=True,
                foreground=foreground,
            )
            namespace = None if self._network is None else self._network.fd
            step = self._zygote.run(spec, stdin=stdin, stdout=output, stderr=output, network_namespace=namespace)
            try:
                return step.wait().status
            except BaseException:
                step.end()
                raise

    def close(self) -> None:
        """Discard what the step changed, and let go of what it was given."""
        with self._held:
            self._snapshots.discard(self._active)

    def _reopen_mounts(self, spec: SandboxSpec, stack: ExitStack) -> tuple[LayersMount, ...]:
        """Show what the step wrote to its mounts as one more layer, since no directory is the upper one of two overlays."""
        mounts = []
        for mount in spec.layer_mounts:
            if mount.upper is None:
                mounts.append(mount)
                continue
            above = self._snapshots.prepare()
            stack.callback(self._snapshots.discard, above)
            mounts.append(mount._replace(lowers=(*mount.lowers, mount.upper), upper=above.upper, work=above.work))
        return tuple(mounts)
