"""Start steps from a small single-threaded process.

The *zygote* is a child of the inner process, forked before that has threads; `starter` is what it does. Forking a large
process with threads would be slow and unsafe; forking this one is neither.

A request is one message on a SOCK_SEQPACKET pair: the network's name, and further words, `terminal` for a step that stays
in the session of the terminal, `last` if none is expected after it; with the descriptors of a *channel*, of the spec as
JSON in memory, of the standard streams, and of the network namespace if the network is `private`. On the channel, also
SOCK_SEQPACKET, come back JSON records:

    {"type": "started"}     with a pidfd of the step, and the signal that ends it; from the zygote
    {"type": "ready"}       the stubs; from the step, just before its command is executed
    {"type": "error"}       why there is no command; from whichever noticed
    {"type": "exit"}        wait status and resources; from the zygote, the last record

The step's end of the channel closes when the command is executed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from runtime import syscalls
from runtime.errors import HostUnsupportedError, KernelError, SandboxError, StepSetupError
from runtime.stubs import Stub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.spec import SandboxSpec

Isolation = Literal["namespaces", "chroot"]
"""What parts steps from the builder: namespaces of their own, or, where there are none, what runtime.chroot does."""

_LARGEST_RECORD: Final = 1 << 18
_STATUS_OF_BUG: Final = 70


class StepResult(NamedTuple):
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
        self._coming: Iterator[int] = iter(())

    @property
    def isolation(self) -> Isolation:
        """What parts the steps from this process."""
        return self._isolation

    def start(self) -> None:
        """Fork the zygote. The sooner, the smaller it stays, and the faster each step starts.

        It loads by itself what only it needs, while this process goes on.

        Raises:
            HostUnsupportedError: steps cannot be confined on this machine.
            AssertionError: this process has several threads, or the zygote was started before.
        """
        assert threading.active_count() == 1, "the zygote is forked before any thread exists"  # noqa: S101 - our bug
        assert self._control is None, "the zygote is started once"  # noqa: S101 - our bug
        syscalls.check_machine()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # What the inner process mounts from now on is for itself, and no process that waits shall keep it mounted.
        pid = os.fork() if self._isolation == "chroot" else syscalls.clone(syscalls.CLONE_NEWNS)
        if pid == 0:
            try:
                gc.disable()  # a collection would touch, and so copy, every page here and in every child
                syscalls.close_range(3, theirs.fileno() - 1)
                syscalls.close_range(theirs.fileno() + 1, syscalls.LAST_FD)
                from runtime.starter import serve  # noqa: PLC0415 - here, while the inner process does other things

                serve(theirs, self._isolation)
            finally:
                os._exit(_STATUS_OF_BUG)
        theirs.close()
        self._control, self._pid = ours, pid

    def expect(self, steps: int) -> None:
        """Say how many steps will be asked for, so that no process is kept ready for one more. If more are, they wait for it."""
        self._coming = iter(range(steps - 1, -1, -1))  # whose end many threads can ask for

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
            is_last = next(self._coming, None) == 0
            words = [spec.network, *(["terminal"] if spec.interactive else []), *(["last"] if is_last else [])]
            try:
                socket.send_fds(self._control, [" ".join(words).encode()], [theirs.fileno(), memory.fileno(), *streams])
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
