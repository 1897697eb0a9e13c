"""What the zygote does: start the steps that the inner process asks for (`zygote`, where the messages are listed).

It does three things: clone a child into new namespaces for each request, mostly ahead of it (`spare`), tell when the
child has ended, and kill what is left when the inner process closes it.

Only the zygote loads this module and what it needs: so the inner process stays small, and does other things meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import prctl

from runtime import network, ownership, reaper, sandbox, seccomp
from runtime.errors import HostUnsupportedError, KernelError, SandboxError, StepSetupError
from runtime.spare import LARGEST_REQUEST, MOST_DESCRIPTORS, Spare
from runtime.spec import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from runtime.stubs import Stub
    from runtime.supervisor.process import Supervision
    from runtime.zygote import Isolation

_STATUS_OF_SETUP_ERROR: Final = 125
_KIBIBYTE: Final = 1024


def serve(control: socket.socket, isolation: Isolation) -> NoReturn:
    """Be the zygote until the inner process closes its end.

    Args:
        control: where requests come from.
        isolation: what parts the steps from the inner process.
    """
    prctl.set_name("pybuild-zygote")
    seccomp.compile_filters(supervised=isolation != "chroot" and ownership.is_recorded())
    if isolation == "chroot":
        from runtime import chroot  # noqa: F401, PLC0415 - for `_be_attendant`, which loads nothing any more

        reaper.adopt_orphans()  # of an attendant that was killed
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until a new attendant can take it
    sandbox.ignore_signals()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    poller = select.poll()
    poller.register(control, select.POLLIN)
    starter = _Starter(isolation)
    running: dict[int, _Running] = {}  # by pidfd
    supervised: dict[int, int] = {}  # pidfd of a supervisor to that of its step
    while True:
        starter.look_ahead()
        for fd, _ in poller.poll():
            if fd in supervised:
                poller.unregister(fd)
                _end_unsupervised(supervised.pop(fd), running)
                continue
            if fd != control.fileno():
                if fd not in running:  # reaped in this round, after its supervisor was seen
                    continue
                poller.unregister(fd)
                step = running.pop(fd)
                if step.owners is not None and supervised.pop(step.owners.pidfd, None) is not None:
                    poller.unregister(step.owners.pidfd)
                _reap(fd, step)
                if isolation == "chroot":
                    reaper.end_descendants({step.pid for step in running.values()})
                continue
            request, descriptors, _, _ = socket.recv_fds(control, LARGEST_REQUEST, MOST_DESCRIPTORS)
            if not request:
                starter.close()
                for pidfd, step in running.items():
                    signal.pidfd_send_signal(pidfd, _ending_signal(isolation))
                    os.waitpid(step.pid, 0)
                    if step.owners is not None:
                        step.owners.end()
                if isolation == "chroot":
                    reaper.end_descendants()
                os._exit(0)
            channel = socket.socket(fileno=descriptors[0])
            try:
                started = starter.start(request, descriptors, channel)
            finally:
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
            if started is not None:
                pidfd, step = started
                running[pidfd] = step
                poller.register(pidfd, select.POLLIN)
                if step.owners is not None:
                    supervised[step.owners.pidfd] = pidfd
                    poller.register(step.owners.pidfd, select.POLLIN)


class _Running(NamedTuple):
    """A step: its pid, its channel, and its supervisor where owners are recorded."""

    pid: int
    channel: socket.socket
    owners: Supervision | None


def _ending_signal(isolation: Isolation) -> signal.Signals:
    """Return what ends the child of a request with all that it started: an attendant wants to do that itself."""
    return signal.SIGTERM if isolation == "chroot" else signal.SIGKILL


class _Starter:
    """Makes the child of each request: out of a spare, or without namespaces by a fork."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._is_recorded = isolation != "chroot" and ownership.is_recorded()
        self._spare: Spare | None = None
        self._is_last = False

    def look_ahead(self) -> None:
        """Have a spare for the next request, if one is expected. If there can be none now, that request tells why."""
        if self._isolation != "chroot" and self._spare is None and not self._is_last:
            with contextlib.suppress(SandboxError, OSError):
                self._spare = self._clone()

    def start(self, request: bytes, descriptors: list[int], channel: socket.socket) -> tuple[int, _Running] | None:
        """Start the child of a request; return its pidfd and what is kept of it, or None if that failed."""
        owners = None
        try:
            if self._isolation == "chroot":
                pid = os.fork()
                if pid == 0:
                    _be_attendant(descriptors)
            else:
                wishes = _Wishes.parse(request)
                self._is_last = wishes.is_last
                spare = self._take(wishes)
                spare.use(request, descriptors)
                pid, owners = spare.pid, spare.owners
        except (SandboxError, ImportError) as error:
            _send(channel, _encode_error(error))
            _send(channel, {"type": "exit", "status": _STATUS_OF_SETUP_ERROR, "user": 0, "system": 0, "resident": 0})
            channel.close()
            return None
        pidfd = os.pidfd_open(pid)
        with contextlib.suppress(OSError):  # nobody waits for this step any more
            record = {"type": "started", "signal": _ending_signal(self._isolation)}
            socket.send_fds(channel, [json.dumps(record).encode()], [pidfd])
        return pidfd, _Running(pid=pid, channel=channel, owners=owners)

    def close(self) -> None:
        """End the spare."""
        if self._spare is not None:
            self._spare.end()
            self._spare = None

    def _take(self, wishes: _Wishes) -> Spare:
        if network.prepare(wishes.network):
            self.close()  # it lacks what has been loaded
        if wishes.has_terminal:
            return self._clone(has_terminal=True)
        spare, self._spare = self._spare or self._clone(), None
        return spare

    def _clone(self, *, has_terminal: bool = False) -> Spare:
        return Spare.clone(_be_step, is_recorded=self._is_recorded, has_terminal=has_terminal)


class _Wishes(NamedTuple):
    """What a request says before its spec is read: the network, whether the step has the terminal, whether it is the last."""

    network: network.Network
    has_terminal: bool
    is_last: bool

    @classmethod
    def parse(cls, request: bytes) -> Self:
        """Read the words of a request."""
        name, *words = request.split()
        wanted: network.Network = "host"
        match name:
            case b"none":
                wanted = "none"
            case b"private":
                wanted = "private"
            case _:
                pass
        return cls(network=wanted, has_terminal=b"terminal" in words, is_last=b"last" in words)


def _end_unsupervised(pidfd: int, running: Mapping[int, _Running]) -> None:
    """Kill a step whose supervisor has died: what it does from now on would be recorded wrongly."""
    if pidfd in running:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _reap(pidfd: int, step: _Running) -> None:
    _, status, usage = os.wait4(step.pid, 0)
    os.close(pidfd)
    if step.owners is not None and not step.owners.end():
        _send(step.channel, _encode_error(SandboxError("the process that keeps the owners of files has died")))
    record = {
        "type": "exit",
        "status": os.waitstatus_to_exitcode(status),
        "user": usage.ru_utime,
        "system": usage.ru_stime,
        "resident": usage.ru_maxrss * _KIBIBYTE,
    }
    _send(step.channel, record)
    step.channel.close()


def _be_step(
    request: bytes,
    descriptors: list[int],
    prepared: sandbox.Prepared | SandboxError,
    owners: Supervision | None,
) -> NoReturn:
    """Become the requested step, or say why not."""
    channel = socket.socket(fileno=descriptors[0])
    wanted = _Wishes.parse(request).network
    try:
        if isinstance(prepared, SandboxError):
            raise prepared
        network.enter(wanted, descriptors.pop() if wanted == "private" else -1)
        spec, streams = _read_request(descriptors)
        sandbox.become_step(spec, streams, lambda stubs: _send(channel, _ready(stubs)), prepared, owners)
    except BaseException as error:  # noqa: BLE001 - this process ends here, and the caller is told
        _send(channel, _encode_error(error))
    finally:
        os._exit(_STATUS_OF_SETUP_ERROR)


def _be_attendant(descriptors: list[int]) -> NoReturn:
    """Become what attends to the requested step where there are no namespaces, or say why not."""
    from runtime import chroot  # noqa: PLC0415 - loaded by `serve`

    channel = socket.socket(fileno=descriptors[0])
    try:
        spec, streams = _read_request(descriptors)
        chroot.attend(
            spec,
            streams,
            report=lambda stubs: _send(channel, _ready(stubs)),
            refuse=lambda error: _send(channel, _encode_error(error)),
        )
    except BaseException as error:  # noqa: BLE001 - as above
        _send(channel, _encode_error(error))
    finally:
        os._exit(_STATUS_OF_SETUP_ERROR)


def _read_request(descriptors: list[int]) -> tuple[SandboxSpec, tuple[int | None, int, int]]:
    """Return what a request asks for, and its standard streams."""
    _, spec_fd, output, error_output, *source = descriptors
    spec = SandboxSpec.from_json(json.loads(os.pread(spec_fd, os.fstat(spec_fd).st_size, 0)))
    return spec, (source[0] if source else None, output, error_output)


def _ready(stubs: list[Stub]) -> dict[str, Any]:
    return {
        "type": "ready",
        "stubs": [{**stub._asdict(), "path": stub.path.decode("latin-1")} for stub in stubs],
    }


def _send(channel: socket.socket, record: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody waits for this step any more
        channel.send(json.dumps(record).encode())


def _encode_error(error: BaseException) -> dict[str, Any]:
    match error:
        case StepSetupError():
            values = {"stage": error.stage, "reason": error.reason, "status": error.status, "hint": error.hint}
        case KernelError():
            values = {
                "call": error.call,
                "errno": error.errno,
                "subject": error.subject,
                "detail": error.detail,
                "hint": error.hint,
            }
        case HostUnsupportedError():
            values = {"feature": error.feature, "reason": error.reason, "hint": error.hint}
        case SandboxError():
            values = {"message": error.message, "hint": error.hint}
        case OSError():
            return _encode_error(
                KernelError("set-up of the step", error.errno or 0, subject=os.fsdecode(error.filename or ""))
            )
        case _:
            # No traceback: to show source lines, it would read files of the image by the names of ours.
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
            return {"type": "error", "class": "", "message": f"{type(error).__name__}: {error} at {place}"}
    return {"type": "error", "class": type(error).__name__, **values}
