"""Start steps from a small single-threaded process.

The *zygote* is a child of the inner process, forked before that has threads. It does three things: clone a child into
new namespaces for each request, mostly ahead of it (`spare`), tell when the child has ended, and kill what is left when
the inner process closes it.
Forking a large process with threads would be slow and unsafe; forking this one is neither.

A request is one message on a SOCK_SEQPACKET pair: the network's name, with the descriptors of a *channel*, of the spec
as JSON in memory, of the standard streams, and of the network namespace if the network is `private`. On the channel,
also SOCK_SEQPACKET, come back JSON records:

    {"type": "started"}     with a pidfd of the step, and the signal that ends it; from the zygote
    {"type": "ready"}       the stubs; from the step, just before its command is executed
    {"type": "error"}       why there is no command; from whichever noticed
    {"type": "exit"}        wait status and resources; from the zygote, the last record

The step's end of the channel closes when the command is executed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import select
import signal
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import prctl

from runtime import chroot, network, ownership, reaper, sandbox, seccomp, syscalls
from runtime.errors import HostUnsupportedError, KernelError, SandboxError, StepSetupError
from runtime.spare import LARGEST_REQUEST, MOST_DESCRIPTORS, Spare
from runtime.stubs import Stub

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from runtime.sandbox import SandboxSpec
    from runtime.supervisor.process import Supervision

Isolation = Literal["namespaces", "chroot"]
"""What parts steps from the builder: namespaces of their own, or, where there are none, what runtime.chroot does."""

_LARGEST_RECORD: Final = 1 << 18
_STATUS_OF_SETUP_ERROR: Final = 125
_KIBIBYTE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How a step ended.

    Args:
        status: its exit status, or the negative number of the signal that ended it.
        stubs: what set-up put into the upper directory; for `remove_stubs`.
        user_seconds, system_seconds: processor time of the command and what it waited for, with its set-up.
        max_resident: largest resident memory of one of its processes, in bytes.
    """

    status: int
    stubs: tuple[Stub, ...]
    user_seconds: float
    system_seconds: float
    max_resident: int


class Step:
    """A started step. Made by `Zygote.run`. One thread waits, any may kill."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pidfd = -1
        self._ending_signal = signal.SIGKILL
        self._lock = threading.Lock()
        self._stubs: tuple[Stub, ...] = ()
        self._error: SandboxError | None = None
        self._result: StepResult | None = None
        while self.receive() not in {"started", "exit"}:
            pass

    def fileno(self) -> int:
        """Return the descriptor that can be read when there is a record to `receive`; -1 once the step has ended."""
        return self._channel.fileno()

    def wait(self) -> StepResult:
        """Return how the step ended, once it has; the same when called again.

        Raises:
            StepSetupError: the image or the instruction is at fault; no command was executed.
            KernelError: the kernel refused a part of the set-up.
            HostUnsupportedError: the host lacks something that the step needs.
            SandboxError: the zygote died.
        """
        while self._result is None:
            self.receive()
        if self._error is not None:
            raise self._error
        return self._result

    def kill(self) -> None:
        """Kill the step with everything it started. Nothing happens if it has ended."""
        with self._lock:
            if self._pidfd >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, self._ending_signal)

    def end(self) -> None:
        """Kill the step, and return when nothing of it runs any more, so that its files can be removed."""
        self.kill()
        with contextlib.suppress(SandboxError):
            self.wait()

    def receive(self) -> str:
        """Take in the next record and return its type; a channel that ends without one counts as an exit.

        For the thread that waits, before the type was `exit`.
        """
        data, descriptors, _, _ = socket.recv_fds(self._channel, _LARGEST_RECORD, 1)
        if not data:
            self._error = self._error or SandboxError("the process that starts steps has died")
            data = json.dumps({"type": "exit", "status": 0, "user": 0, "system": 0, "resident": 0}).encode()
        record: dict[str, Any] = json.loads(data)
        match record["type"]:
            case "started":
                (self._pidfd,) = descriptors
                self._ending_signal = signal.Signals(record["signal"])
            case "ready":
                self._stubs = tuple(
                    Stub(**{**stub, "path": stub["path"].encode("latin-1")}) for stub in record["stubs"]
                )
            case "error":
                self._error = self._error or _decode_error(record)  # the first one knows most
            case "exit":
                self._finish(record)
            case other:
                self._error = SandboxError(f"the process that starts steps says what nobody understands: `{other}`")
        return str(record["type"])

    def _finish(self, record: Mapping[str, Any]) -> None:
        self._result = StepResult(
            status=record["status"],
            stubs=self._stubs,
            user_seconds=record["user"],
            system_seconds=record["system"],
            max_resident=record["resident"],
        )
        self._channel.close()
        with self._lock:
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1


class Zygote:
    """Starts steps. One for each inner process; every method but `start` may be called by any thread.

    Args:
        isolation: what parts the steps from this process.
    """

    def __init__(self, isolation: Isolation = "namespaces") -> None:
        self._isolation: Isolation = isolation
        self._control: socket.socket | None = None
        self._pid = 0

    @property
    def isolation(self) -> Isolation:
        """What parts the steps from this process."""
        return self._isolation

    def start(self) -> None:
        """Fork the zygote. The sooner, the smaller it stays, and the faster each step starts.

        Raises:
            HostUnsupportedError: steps cannot be confined on this machine.
            AssertionError: this process has several threads, or the zygote was started before.
        """
        assert threading.active_count() == 1, "the zygote is forked before any thread exists"  # noqa: S101 - our bug
        assert self._control is None, "the zygote is started once"  # noqa: S101 - our bug
        seccomp.compile_filters(supervised=self._isolation != "chroot" and ownership.is_recorded())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # What the inner process mounts from now on is for itself, and no process that waits shall keep it mounted.
        pid = os.fork() if self._isolation == "chroot" else syscalls.clone(syscalls.CLONE_NEWNS)
        if pid == 0:
            try:
                ours.close()
                _serve(theirs, self._isolation)
            finally:
                os._exit(_STATUS_OF_SETUP_ERROR)
        theirs.close()
        self._control, self._pid = ours, pid

    def run(
        self,
        spec: SandboxSpec,
        *,
        stdin: int | None = None,
        stdout: int,
        stderr: int,
        network_namespace: int | None = None,
    ) -> Step:
        """Start a step. What is wrong with it, `Step.wait` says.

        The descriptors stay the caller's; the step has copies. An upper and a work directory are used once.

        Args:
            spec: what to run.
            stdin: standard input, None for an empty one.
            stdout: where its output goes.
            stderr: where its error output goes.
            network_namespace: what a step whose network is `private` joins, None for others.

        Raises:
            SandboxError: the zygote is not running.
            AssertionError: a private network without a namespace, or the other way round.
        """
        assert (spec.network == "private") == (network_namespace is not None), "one without the other"  # noqa: S101 - our bug
        if self._control is None:
            raise SandboxError("the process that starts steps is not running")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.memfd_create("pybuild-step", os.MFD_CLOEXEC), "wb", buffering=0) as memory:
            memory.write(
                json.dumps(spec.to_json()).encode("ascii")
            )  # at once: json.dump encodes piece by piece in Python
            streams = [fd for fd in (stdout, stderr, stdin, network_namespace) if fd is not None]
            try:
                socket.send_fds(self._control, [spec.network.encode()], [theirs.fileno(), memory.fileno(), *streams])
            except OSError as error:
                ours.close()
                raise SandboxError(f"the process that starts steps does not answer: {error.strerror}") from error
        return Step(ours)

    def close(self) -> None:
        """Kill the steps that still run, and end the zygote. Idempotent."""
        if self._control is not None:
            self._control.close()
            self._control = None
            os.waitpid(self._pid, 0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _serve(control: socket.socket, isolation: Isolation) -> NoReturn:
    """Be the zygote until the inner process closes its end."""
    prctl.set_name("pybuild-zygote")
    if isolation == "chroot":
        reaper.adopt_orphans()  # of an attendant that was killed
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until a new attendant can take it
    sandbox.ignore_signals()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    syscalls.close_range(3, control.fileno() - 1)
    syscalls.close_range(control.fileno() + 1, 0xFFFF_FFFF)
    gc.collect()
    gc.freeze()  # a collection would touch, and so copy, every page in every child
    gc.disable()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
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

    def look_ahead(self) -> None:
        """Have a spare for the next request. If there can be none now, that request tells why."""
        if self._isolation != "chroot" and self._spare is None:
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
                spare = self._take(_wanted_network(request))
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

    def _take(self, wanted: network.Network) -> Spare:
        if network.prepare(wanted):
            self.close()  # it lacks what has been loaded
        spare, self._spare = self._spare or self._clone(), None
        return spare

    def _clone(self) -> Spare:
        return Spare.clone(_be_step, is_recorded=self._is_recorded)


def _wanted_network(request: bytes) -> network.Network:
    """Return what the child of a request does about its network before it knows the step."""
    match request:
        case b"none":
            return "none"
        case b"private":
            return "private"
        case _:
            return "host"


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
    wanted = _wanted_network(request)
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


def _read_request(descriptors: list[int]) -> tuple[sandbox.SandboxSpec, tuple[int | None, int, int]]:
    """Return what a request asks for, and its standard streams."""
    _, spec_fd, output, error_output, *source = descriptors
    spec = sandbox.SandboxSpec.from_json(json.loads(os.pread(spec_fd, os.fstat(spec_fd).st_size, 0)))
    return spec, (source[0] if source else None, output, error_output)


def _ready(stubs: list[Stub]) -> dict[str, Any]:
    return {
        "type": "ready",
        "stubs": [{**dataclasses.asdict(stub), "path": stub.path.decode("latin-1")} for stub in stubs],
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


def _decode_error(record: Mapping[str, Any]) -> SandboxError:
    values = {key: value for key, value in record.items() if key not in {"type", "class"}}
    match record["class"]:
        case "StepSetupError":
            return StepSetupError(values["stage"], values["reason"], status=values["status"], hint=values["hint"])
        case "KernelError":
            return KernelError(
                values["call"], values["errno"], subject=values["subject"], detail=values["detail"], hint=values["hint"]
            )
        case "HostUnsupportedError":
            return HostUnsupportedError(values["feature"], values["reason"], hint=values["hint"])
        case "SandboxError":
            return SandboxError(values["message"], hint=values["hint"])
        case _:
            return SandboxError(f"the set-up of the step failed: {values['message']}")
