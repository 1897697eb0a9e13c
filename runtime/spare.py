"""A process cloned ahead of the step it will be, so that the step need not wait for that.

Cloning takes about a millisecond, the pages of memory that the new process copies when it first touches them another
one or two, and so does mounting /proc, /dev and /sys. All that is spent while the step before still runs. A spare has
the process, host name, IPC and mount namespaces of its step; what it has to share of a network it joins when it is used.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Final, Self

import prctl

from runtime import sandbox, syscalls
from runtime.errors import SandboxError
from runtime.supervisor.process import Supervision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    Become = Callable[[bytes, list[int], sandbox.Prepared | SandboxError, Supervision | None], NoReturn]
    """Carries out a request, given with its descriptors, in the spare; what is prepared may be why it could not be."""

LARGEST_REQUEST: Final = 64
MOST_DESCRIPTORS: Final = 6  # channel, spec, output, error output, input, network namespace

_STATUS_UNUSED: Final = 125  # of a process that was never asked for, or could not wait; not one of success


class Spare:
    """A process that waits for the request of a step. Made by `clone`, used once or ended.

    Attributes:
        pid: of the process.
        owners: the supervisor of its step, where owners are recorded.
    """

    def __init__(self, pid: int, request: socket.socket, owners: Supervision | None) -> None:
        self.pid = pid
        self.owners = owners
        self._request = request

    @classmethod
    def clone(cls, become: Become, *, is_recorded: bool, has_terminal: bool = False) -> Self:
        """Clone one, which goes on in *become* when it is used.

        Args:
            become: what it goes on in.
            is_recorded: whether owners are recorded, so that its step has a supervisor.
            has_terminal: whether it stays in the session of the terminal.

        Raises:
            KernelError: the kernel refused.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        owners = Supervision() if is_recorded else None
        try:
            pid = syscalls.clone(sandbox.NAMESPACES)
        except BaseException:
            ours.close()
            theirs.close()
            if owners is not None:
                owners.release()
                owners.end()
            raise
        if pid == 0:
            ours.close()
            _wait(theirs, become, owners, has_terminal=has_terminal)
        theirs.close()
        if owners is not None:
            owners.release()
        return cls(pid, ours, owners)

    def use(self, request: bytes, descriptors: Sequence[int]) -> None:
        """Make it the step of a request; the descriptors stay the caller's.

        Raises:
            SandboxError: it has died, and is ended.
        """
        try:
            socket.send_fds(self._request, [request], descriptors)
        except OSError as error:
            self.end()
            raise SandboxError("the process that was to be the step has died") from error
        self._request.close()

    def end(self) -> None:
        """End it unused."""
        self._request.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        if self.owners is not None:
            self.owners.end()


def _wait(request_socket: socket.socket, become: Become, owners: Supervision | None, *, has_terminal: bool) -> NoReturn:
    try:
        prctl.set_pdeathsig(signal.SIGKILL)  # nobody else knows of it
        if not has_terminal:
            sandbox.leave_session()
        prepared = _prepare()
        sandbox.rehearse()
        request, descriptors, _, _ = socket.recv_fds(request_socket, LARGEST_REQUEST, MOST_DESCRIPTORS)
        request_socket.close()
        if request:
            become(request, descriptors, prepared, owners)
    finally:
        os._exit(_STATUS_UNUSED)


def _prepare() -> sandbox.Prepared | SandboxError:
    try:
        return sandbox.prepare()
    except SandboxError as error:
        return error
