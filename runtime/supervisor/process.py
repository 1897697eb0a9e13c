"""Answer the calls of a step that concern owners, where only one user id exists.

A *supervisor* is a process beside a step, forked from the zygote for it. The step's calls about owners, devices and ids
(`calls`) stop until the supervisor has answered each: carried out by it, answered with what was recorded
(`runtime.ownership`), or handed back to the kernel.

Who a thread acts as (`credentials`) has to pass to what it clones and executes, at the moment of that. The kernel has
one number that does so and that others may set: the timer slack. 50,000 ns, its default, plus n stands for the nth
credentials that were seen in the step.

What it may touch: it enters the mount namespace of the step, whose root is then its only one, and follows the path that
a call names there, from the caller's own working directory or descriptor. What it then acts on is the descriptor it
got, after asking whether the caller still waits; so who swaps names meanwhile gets another file of the same root, never
one of another. It is outside of the step's PID namespace, cannot be traced by it, holds neither files nor memory of
worth, and is limited to the rights it needs.

Source: seccomp_unotify(2), seccomp(2), linux/include/uapi/linux/seccomp.h, proc(5).
"""

from __future__ import annotations

import array  # noqa: F401 - socket's calls that pass descriptors load it, and nothing may be loaded in the step
import contextlib
import errno
import fcntl
import gc
import json
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, Final

import prctl

from runtime import capabilities, seccomp, syscalls
from runtime.errors import SandboxError
from runtime.supervisor import calls
from runtime.supervisor.callers import PATH_MAX, SLACK, Callers
from runtime.supervisor.credentials import Credentials, all_of
from runtime.supervisor.files import FileCalls
from runtime.supervisor.ids import IdCalls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from runtime.supervisor.files import Handler
    from runtime.users import ProcessUser

# From the kernel, include/uapi/linux/seccomp.h
_NOTIF_RECV: Final = 0xC050_2100
_NOTIF_SEND: Final = 0xC018_2101
_NOTIF_SET_FLAGS: Final = 0x4008_2104
_FD_SYNC_WAKE_UP: Final = 1
_FLAG_CONTINUE: Final = 1
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")  # id, pid, flags; number, architecture, instruction, arguments
_RESPONSE: Final = struct.Struct("=QqiI")
_NO_NOTIFICATION: Final = bytes(_NOTIFICATION.size)

_KEPT_CAPABILITIES: Final = capabilities.capability_mask(
    (
        capabilities.CAP_CHOWN,
        capabilities.CAP_DAC_OVERRIDE,
        capabilities.CAP_FOWNER,
        capabilities.CAP_FSETID,
        capabilities.CAP_SETFCAP,
        capabilities.CAP_SYS_CHROOT,
        capabilities.CAP_SYS_NICE,
        capabilities.CAP_SYS_PTRACE,
    )
)
_READY: Final = b"+"


class Supervision:
    """The supervisor of a step that is about to start, as the zygote sees it; a context manager.

    Attributes:
        pid, pidfd: of the supervisor. Whoever ends the step ends it with `end`.
    """

    def __init__(self) -> None:
        """Fork the supervisor."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            _be_supervisor(theirs)
        theirs.close()
        self.pidfd = os.pidfd_open(self.pid)

    def hand_over(self, user: ProcessUser, groups: Sequence[int], *, privileged: bool) -> None:
        """Put this thread, that of the step, under the supervisor; called last before it executes its command.

        Args:
            user: whom the step begins as.
            groups: its supplementary groups.
            privileged: whether it keeps the right to mount.

        Raises:
            HostUnsupportedError: the kernel has no listener for it.
            SandboxError: the supervisor cannot do its work, and why.
        """
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        prctl.set_timerslack(SLACK)
        own = sorted({user.gid, *groups})
        text = json.dumps([user.uid, user.gid, own, privileged]).encode()
        listener = seccomp.load_supervised()
        socket.send_fds(self._ours, [text], [listener, namespace])
        os.close(listener)
        os.close(namespace)
        answer = self._ours.recv(PATH_MAX)
        self._ours.close()
        if answer != _READY:
            raise SandboxError(f"owners cannot be recorded: {answer.decode(errors='replace') or 'no answer'}")

    def release(self) -> None:
        """Let go of the step's side, in the process that is not the step."""
        self._ours.close()

    def end(self) -> bool:
        """End the supervisor: nothing of the step is changed by it afterwards. Tell whether it was at work until now.

        The signal is one that nobody else sends, so its death by that proves that it lived.
        """
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGUSR1)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status) in {0, -signal.SIGUSR1}


def _be_supervisor(channel: socket.socket) -> NoReturn:
    """Wait for the step to hand itself over, and answer its calls until the zygote ends this process.

    Ends by itself with status 0 only if the step has ended before it began.
    """
    status = 1
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _close_all_but(channel.fileno(), proc)
        data, descriptors, _, _ = socket.recv_fds(channel, PATH_MAX * 4, 2)
        if not data:
            status = 0
        else:
            prctl.set_name("pybuild-owners")
            try:
                supervisor = _enter(proc, descriptors, data)
            except OSError as error:
                channel.send(f"{type(error).__name__} {error}".encode())
            else:
                channel.send(_READY)
                channel.close()
                supervisor.serve()
    except BaseException:  # noqa: BLE001 - no traceback: to show lines, it would read files of the image
        status = 2
    finally:
        os._exit(status)


def _close_all_but(*kept: int) -> None:
    first = 3
    for fd in sorted(kept):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first, syscalls.LAST_FD)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _enter(proc: int, descriptors: Sequence[int], data: bytes) -> Supervisor:
    """Enter the step's mount namespace, and give up what is not needed any more."""
    listener, namespace = descriptors
    uid, gid, groups, privileged = json.loads(data)
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    os.close(namespace)
    os.umask(0)
    with contextlib.suppress(OSError):  # Linux 6.6: the caller and this process take turns on one processor
        fcntl.ioctl(listener, _NOTIF_SET_FLAGS, _FD_SYNC_WAKE_UP)
    begin = Credentials(all_of(uid), all_of(gid), tuple(groups))
    supervisor = Supervisor(listener, proc, begin, privileged=privileged)
    capabilities.hold_only(_KEPT_CAPABILITIES)
    gc.enable()
    return supervisor


class Supervisor:
    """Answers the calls that arrive at one listener.

    Args:
        listener: of the step.
        proc: a /proc of the own PID namespace, or of one around it; becomes the working directory.
        begin: whom the step begins as.
        privileged: whether its processes may have mount namespaces of their own.
    """

    def __init__(self, listener: int, proc: int, begin: Credentials, *, privileged: bool = False) -> None:
        self._listener = listener
        self._callers = Callers(listener, proc, begin, may_have_roots=privileged)
        self._files = FileCalls(self._callers, listener)
        self._handlers = _by_number({**self._files.handlers(), **IdCalls(self._callers).handlers()})

    def serve(self) -> NoReturn:
        """Answer until the process is killed."""
        listener, ioctl, unpack, pack = self._listener, fcntl.ioctl, _NOTIFICATION.unpack, _RESPONSE.pack
        handlers, callers, files = self._handlers, self._callers, self._files
        translate = callers.translate_pid
        buffer = bytearray(_NOTIFICATION.size)
        while True:
            buffer[:] = _NO_NOTIFICATION
            try:
                ioctl(listener, _NOTIF_RECV, buffer)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EINTR}:  # the caller died before it was heard
                    continue
                raise
            identity, pid, _, number, architecture, _, *arguments = unpack(buffer)
            callers.call = identity
            value: int | None
            failure = 0
            try:
                seen_as = pid if translate is None else translate(pid)
                value = None if seen_as is None else handlers[architecture, number](seen_as, arguments)
            except OSError as error:
                value, failure = 0, -(error.errno or errno.EIO)
            if files.is_answered:
                files.is_answered = False
                continue
            try:
                if value is None:
                    ioctl(listener, _NOTIF_SEND, pack(identity, 0, 0, _FLAG_CONTINUE))
                else:
                    ioctl(listener, _NOTIF_SEND, pack(identity, value, failure, 0))
            except OSError as error:
                if error.errno != errno.ENOENT:  # the caller was killed meanwhile
                    raise


def _by_number(by_name: Mapping[str, Handler]) -> dict[tuple[int, int], Handler]:
    """Return what answers which number of which table of this machine."""
    handlers = {}
    for table in calls.TABLES[syscalls.MACHINE]:
        column = calls.COLUMNS[table.audit]
        for name, numbers in calls.CALLS.items():
            number = numbers[column]
            if number is not None:
                handlers[table.audit, number] = by_name[name]
    return handlers
