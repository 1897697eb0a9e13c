"""RUN: a command on a snapshot."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from builder.errors import DockerfileError, StepFailedError
from builder.events import EventSink, VertexLog
from builder.solve.networks import network_for
from builder.solve.ops.resolver import resolv_conf
from runtime.errors import StepSetupError
from runtime.mounts import BindMount
from runtime.ownership import is_recorded
from runtime.spec import SandboxSpec, Ulimit
from runtime.stubs import Stub, remove_stubs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.plan.graph import RunCommand, Vertex
    from builder.solve.chain import Chain
    from builder.solve.ops.mounts import StepMounts
    from runtime.networks import PrivateNetwork
    from runtime.snapshots.snapshotter import Active, Snapshotter
    from runtime.zygote import Step, Zygote

TAIL_LINES = 32
"""Lines of output kept for the report of a step that fails."""

READ_SIZE = 1 << 16


def run_command(
    vertex: Vertex,
    op: RunCommand,
    chain: Chain,
    snapshots: Snapshotter,
    zygote: Zygote,
    *,
    sink: EventSink,
    on_start: Callable[[Step], None],
    mounts: StepMounts | None = None,
    network: PrivateNetwork | None = None,
    keep_failed: Callable[[Active, StepFailedError], bool] | None = None,
) -> Active:
    """Run a command, and return the settled snapshot of its changes, which the caller commits or discards.

    Args:
        vertex: for events and messages.
        op: the command.
        chain: what it runs on; it is kept from moving until the step has opened all of it.
        snapshots: where the upper directory is made.
        zygote: starts the step.
        sink: takes the output.
        on_start: told of the running step, so that it can be ended from outside.
        mounts: what the step is given beside its root.
        network: the step's own network; None for the host's, or for none if the command wants none.
        keep_failed: told of the snapshot of a step that failed; if it says that it keeps it, it has to discard it.

    Raises:
        StepFailedError: the command ended with another status than 0, or could not be started.
        DockerfileError: the image does not know the user.
    """
    with ExitStack() as opening:
        lowers = chain.opening(opening)
        active = snapshots.prepare(lowers)
        try:
            spec = sandbox_of(op, lowers, active, mounts, network)
            on_ready = opening.close if chain.pending else None
            stubs = _execute(vertex, spec, zygote, network, sink=sink, on_start=on_start, on_ready=on_ready)
            remove_stubs(active.tree or active.upper, stubs)
            snapshots.settle(active)
        except BaseException as error:
            if keep_failed is None or not isinstance(error, StepFailedError) or not keep_failed(active, error):
                snapshots.discard(active)
            raise
    return active


def sandbox_of(
    op: RunCommand,
    lowers: Sequence[Path],
    active: Active,
    mounts: StepMounts | None = None,
    network: PrivateNetwork | None = None,
) -> SandboxSpec:
    """Say what the runtime has to set up for a command."""
    return SandboxSpec(
        args=op.args,
        environ=(*op.environ, *op.hidden_environ, *(mounts.environ if mounts else ())),
        cwd=op.cwd,
        user=op.user,
        lowers=tuple(lowers),
        upper=active.upper,
        work=active.work,
        tree=active.tree,
        skeleton=active.skeleton,
        hostname=op.hostname,
        hosts=hosts_file(op.hostname, op.add_hosts),
        resolv_conf=resolv_conf(network),
        network=network_for(op.network, network),
        binds=(*_write_programs(op, active), *(mounts.binds if mounts else ())),
        layer_mounts=tuple(mounts.layer_mounts) if mounts else (),
        tmpfs=tuple(mounts.tmpfs) if mounts else (),
        files=tuple(mounts.files) if mounts else (),
        nodes=tuple(mounts.nodes) if mounts else (),
        shm_size=op.shm_size,
        ulimits=tuple(Ulimit(name=name, soft=soft, hard=hard) for name, soft, hard in op.ulimits),
        groups=tuple(mounts.groups) if mounts else (),
        keep_groups=mounts.keep_groups if mounts else False,
        privileged=op.insecure,
    )


def _write_programs(op: RunCommand, active: Active) -> tuple[BindMount, ...]:
    """Write here-documents that are programs beside the snapshot, to be seen under `/dev/pipes`."""
    mounts: list[BindMount] = []
    for name, content in op.files:
        path = active.upper.with_name(f"program-{len(mounts)}")
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        path.chmod(0o755)
        mounts.append(BindMount(source=path, target=f"/dev/pipes/{name}", moves=True))
    return tuple(mounts)


def hosts_file(hostname: str, add_hosts: Sequence[tuple[str, str]]) -> bytes:
    """Write /etc/hosts of a step: the loopback names, its own name, the extra hosts."""
    lines = [
        f"127.0.0.1\tlocalhost {hostname}",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        *(f"{address}\t{name}" for name, address in add_hosts),
    ]
    return ("\n".join(lines) + "\n").encode()


def _execute(
    vertex: Vertex,
    spec: SandboxSpec,
    zygote: Zygote,
    network: PrivateNetwork | None,
    *,
    sink: EventSink,
    on_start: Callable[[Step], None],
    on_ready: Callable[[], None] | None,
) -> tuple[Stub, ...]:
    """Run to the end, telling the sink what is written; return the mount-point stubs that were made.

    *on_ready* is called when the step has opened all that it needs.
    """
    command = " ".join(spec.args)
    tail: deque[bytes] = deque(maxlen=TAIL_LINES)
    out, out_end = os.pipe2(os.O_CLOEXEC)
    err, err_end = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            step = zygote.run(
                spec, stdout=out_end, stderr=err_end, network_namespace=None if network is None else network.fd
            )
        finally:
            os.close(out_end)
            os.close(err_end)
        on_start(step)
        _follow(vertex, {out: 1, err: 2}, tail, sink, None if on_ready is None else (step, on_ready))
        result = step.wait()
    except StepSetupError as error:
        if error.stage == "user":  # as an unknown owner of --chown: nothing was carried out
            raise DockerfileError(
                error.reason, hint="add it to the image in a RUN before, or set USER to a number", span=vertex.span
            ) from error
        raise StepFailedError(
            command=command, status=error.status, output=error.reason.encode(), span=vertex.span, name=vertex.name
        ) from error
    finally:
        os.close(out)
        os.close(err)
    if result.status != 0:
        raise StepFailedError(
            command=command,
            status=result.status,
            output=b"\n".join(tail),
            span=vertex.span,
            name=vertex.name,
            one_owner=is_recorded(),
        )
    return result.stubs


def _follow(
    vertex: Vertex,
    streams: dict[int, Literal[1, 2]],
    tail: deque[bytes],
    sink: EventSink,
    started: tuple[Step, Callable[[], None]] | None,
) -> None:
    poll = select.poll()
    for fd in streams:
        poll.register(fd, select.POLLIN | select.POLLHUP)
    channel = -1 if started is None else started[0].fileno()
    if channel >= 0:
        poll.register(channel, select.POLLIN | select.POLLHUP)
    open_streams = dict(streams)
    unfinished = b""
    while open_streams:
        for fd, _ in poll.poll():
            if started is not None and fd == channel:
                step, on_ready = started
                poll.unregister(channel)
                step.receive()  # it is ready, or will never be
                on_ready()
                started = None
                continue
            data = os.read(fd, READ_SIZE)
            if not data:
                poll.unregister(fd)
                del open_streams[fd]
                continue
            sink(VertexLog(vertex=vertex.digest, stream=streams[fd], data=data, time=time.time()))
            *lines, unfinished = (unfinished + data).split(b"\n")
            tail.extend(lines)
            unfinished = unfinished[-READ_SIZE:]
    if unfinished:
        tail.append(unfinished)
