"""Enter the user, mount and PID namespace in which file systems are mounted and steps are run.

The *front* is the process the user started; it stays outside. The *inner process* is its child: uid 0 and process 1 of
the new namespaces. When it ends, the kernel ends every process in them, and with the last process the mounts go.

    front ── clone ──> inner process (pid 1) ──> zygote ──> steps, each pid 1 of a PID namespace of its own
      writes the id maps, forwards signals, waits

Source: user_namespaces(7), pid_namespaces(7), mount_namespaces(7).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from runtime import capabilities, idmap, syscalls
from runtime.errors import HostUnsupportedError, KernelError
from runtime.host import explain_refusal, find_account, host_facts, lack_of_sub_ids

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

Ids = Literal["best", "ranges", "single"]
"""Which ids a namespace shall have."""

_NAMESPACES: Final = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID
_ENDING_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_WATCHED_SIGNALS: Final = _ENDING_SIGNALS | {signal.SIGINT, signal.SIGCHLD}
_SAME_KEY_PRESS_SECONDS: Final = 0.5
_REMINDERS: Final = 10
_REMINDER_SECONDS: Final = 0.5
_STATUS_OF_SIGNAL: Final = 128
_STATUS_OF_BUG: Final = 70


def run_in_namespace(
    body: Callable[[], int], *, ids: Ids = "best", meanwhile: Callable[[], object] | None = None
) -> int:
    """Run *body* as uid 0 and process 1 of new user, mount and PID namespaces; return its exit status.

    A process of uid 0 that may set ids keeps all its ids inside. Any other user gets 0 for the own id and 1 and up for
    the sub-id ranges of /etc/subuid and /etc/subgid; without ranges, only 0 (see `idmap.current_id_map`).

    Standard streams, working directory and environment are those of the caller. All mounts are private to the inside.
    /proc shows the inner processes where the kernel allows a fresh one, else it stays the outer one: only /proc/self
    may be relied on. The interpreter of the inner process ends without its exit handlers.

    Signals: TERM, HUP and QUIT that reach the front are passed on and end the inner process by SystemExit(128 + n)
    raised in its main thread; the second of a kind kills it. An INT from the terminal reaches both by itself; one that
    was sent with kill is passed on. Inside it is KeyboardInterrupt, and a second INT within half a second, such as the
    one passed on after a kill of the whole process group, is taken for the same one. If the front dies, so does the
    inner process.

    Args:
        body: what to do inside; an exception that leaves it is printed by sys.excepthook and gives status 70.
        ids: `best` takes what can be had: the own id alone without ranges, and where the helpers fail; `ranges` wants
            several ids, `single` takes the own one alone.
        meanwhile: done inside before *body*, while the ids are mapped: there are none yet, and so no right to read what
            is closed to this user.

    Returns:
        The status of *body*, or 128 + n if signal n killed the inner process.

    Raises:
        HostUnsupportedError: the host gives no user namespace, or not the ids this user is entitled to.
        AssertionError: this process has several threads.
    """
    assert threading.active_count() == 1, "namespaces are entered before any thread exists"  # noqa: S101 - our bug
    _flush_streams()  # or the child would write what is buffered a second time
    old_handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, there would be no status to wait for
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED_SIGNALS)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    failure_reader, failure_writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = syscalls.clone(_NAMESPACES)
        except KernelError as error:
            os.close(failure_writer)
            raise explain_refusal(error.errno or 0, host_facts()) from error
        if pid == 0:
            os.close(writer)
            os.close(failure_reader)
            _be_inner_process(body, reader, failure_writer, meanwhile)
        os.close(failure_writer)
        try:
            _map_ids(pid, ids)
            os.write(writer, b"+")
            if failure := os.read(failure_reader, 16):
                raise explain_refusal(int(failure), host_facts())
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        return _wait_for(pid)
    finally:
        for fd in (reader, writer, failure_reader):
            os.close(fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        signal.signal(signal.SIGCHLD, old_handler)


def run_in_place(body: Callable[[], int]) -> int:
    """Run *body* in this process, for places without namespaces; return its exit status.

    TERM, HUP and QUIT end it by SystemExit(128 + n), INT by KeyboardInterrupt, as in the inner process; the handlers
    are put back at the end. The working directory, ids and environment are as they are.
    """
    watched = (*sorted(_ENDING_SIGNALS), signal.SIGINT)
    before = [(number, signal.getsignal(number)) for number in watched]
    for number in _ENDING_SIGNALS:
        signal.signal(number, _exit_by_signal)
    signal.signal(signal.SIGINT, _interrupt_once())
    try:
        return _run_body(body)
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _wait_for(pid: int) -> int:
    """Pass signals on to *pid* until it ends; return its exit status.

    Python handles a signal between two statements, so one that arrives just before a blocking system call would wait for
    that call to end. After a signal the inner process is therefore reminded a few times: CONT interrupts the call
    and does nothing else.
    """
    passed_on: set[int] = set()
    reminders = 0
    while True:
        if reminders:
            received = signal.sigtimedwait(_WATCHED_SIGNALS, _REMINDER_SECONDS)
        else:
            received = signal.sigwaitinfo(_WATCHED_SIGNALS)
        if received is None:
            os.kill(pid, signal.SIGCONT)
            reminders -= 1
            continue
        if received.si_signo == signal.SIGCHLD:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else _STATUS_OF_SIGNAL - code
            continue
        reminders = _REMINDERS
        if received.si_signo in _ENDING_SIGNALS:
            os.kill(pid, signal.SIGKILL if received.si_signo in passed_on else received.si_signo)
            passed_on.add(received.si_signo)
        elif received.si_code <= 0:  # from a process; the terminal's are the kernel's own (SI_KERNEL)
            os.kill(pid, signal.SIGINT)


def _map_ids(pid: int, ids: Ids) -> None:
    uid, gid = os.geteuid(), os.getegid()
    effective, _, _ = syscalls.capget()
    needed = capabilities.capability_mask((capabilities.CAP_SETUID, capabilities.CAP_SETGID))
    if uid == 0 and effective & needed == needed and ids != "single":
        _map_directly(
            pid,
            uid_map=idmap.identity_map(idmap.current_id_map("uid")),
            gid_map=idmap.identity_map(idmap.current_id_map("gid")),
        )
        return
    owners = _owner_names(uid)
    uid_ranges = idmap.read_sub_ids(Path("/etc/subuid"), owners)
    gid_ranges = idmap.read_sub_ids(Path("/etc/subgid"), owners)
    has_ranges = bool(uid_ranges and gid_ranges)
    if ids == "ranges" and not has_ranges:
        raise lack_of_sub_ids(uid)
    if ids != "single" and has_ranges:
        uid_map, gid_map = idmap.sub_id_map(uid, uid_ranges), idmap.sub_id_map(gid, gid_ranges)
        try:
            idmap.run_map_helpers(pid, [("uid", uid_map), ("gid", gid_map)])
        except HostUnsupportedError:
            if ids == "ranges" or _is_mapped(pid):
                raise
        else:
            return
    with contextlib.suppress(OSError):  # the map below says better what is wrong
        idmap.deny_setgroups(pid)
    _map_directly(pid, uid_map=idmap.sub_id_map(uid, ()), gid_map=idmap.sub_id_map(gid, ()))


def _is_mapped(pid: int) -> bool:
    """Tell whether a map was written; the kernel takes one only."""
    return any(Path(f"/proc/{pid}/{kind}_map").read_text(encoding="ascii") for kind in ("uid", "gid"))


def _owner_names(uid: int) -> frozenset[str]:
    name = find_account(uid)
    return frozenset({str(uid)} if name is None else {str(uid), name})


def _map_directly(pid: int, *, uid_map: idmap.IdMap, gid_map: idmap.IdMap) -> None:
    try:
        idmap.write_map(pid, "uid", uid_map)
        idmap.write_map(pid, "gid", gid_map)
    except OSError as error:
        raise HostUnsupportedError(
            "ids in a user namespace",
            f"the kernel refused the id map: {error.strerror}",
            hint="give the container CAP_SETUID, CAP_SETGID and CAP_SETFCAP, or run as another user than root"
            if os.geteuid() == 0
            else None,
        ) from error


def _be_inner_process(
    body: Callable[[], int], reader: int, failure_writer: int, meanwhile: Callable[[], object] | None
) -> None:
    """Become uid 0, bind the own life to the front's, and run *body*. Never returns."""
    status = _STATUS_OF_BUG
    gc.freeze()  # or each collection touches, and so copies, all that is shared with the front
    try:
        if meanwhile is not None:
            meanwhile()
        if os.read(reader, 1) == b"+":  # nothing: the front gave up or died
            try:
                _enter(reader)
            except OSError as error:  # AppArmor lets a namespace be made, but nothing be mounted in it
                os.write(failure_writer, b"%d" % (error.errno or 0))
                os._exit(_STATUS_OF_BUG)
            os.close(failure_writer)
            status = _run_body(body)
    except SystemExit as stop:  # a signal between two statements of this function
        status = _exit_code(stop)
    except BaseException:  # noqa: BLE001 - this process ends here, whatever happened
        sys.excepthook(*sys.exc_info())
    finally:
        _flush_streams()
        os._exit(status)


def _flush_streams() -> None:
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if the descriptor was closed at start
        with contextlib.suppress(OSError, ValueError):  # a closed pipe, a closed stream
            stream.flush()


def _enter(reader: int) -> None:
    import prctl  # noqa: PLC0415 - a compiled module that the front does without

    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    prctl.set_dumpable(1)  # changing ids made /proc/self unreadable to this process
    prctl.set_pdeathsig(signal.SIGKILL)  # after the ids, whose change clears it
    if _has_hung_up(reader):  # the front died before its death could have been signalled
        os._exit(_STATUS_OF_SIGNAL + signal.SIGKILL)
    os.close(reader)
    prctl.set_name("pybuild-inner")
    for number in _ENDING_SIGNALS:  # process 1 is not ended by signals that it does not handle
        signal.signal(number, _exit_by_signal)
    signal.signal(signal.SIGINT, _interrupt_once())
    signal.signal(signal.SIGCONT, _be_reminded)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    with contextlib.suppress(KernelError):  # refused where parts of the outer /proc are hidden: most containers
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)


def _has_hung_up(reader: int) -> bool:
    import select  # noqa: PLC0415 - needed once, inside

    poller = select.poll()
    poller.register(reader, 0)
    return bool(poller.poll(0))


def _exit_by_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_STATUS_OF_SIGNAL + number)


def _be_reminded(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that a handler is there lets the signal interrupt a system call."""


def _interrupt_once() -> Callable[[int, FrameType | None], None]:
    last = -_SAME_KEY_PRESS_SECONDS

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SAME_KEY_PRESS_SECONDS:
            last = now
            raise KeyboardInterrupt

    return interrupt


def _run_body(body: Callable[[], int]) -> int:
    try:
        return body() & 0xFF
    except SystemExit as stop:
        return _exit_code(stop)
    except KeyboardInterrupt:
        return _STATUS_OF_SIGNAL + signal.SIGINT


def _exit_code(stop: SystemExit) -> int:
    match stop.code:
        case None:
            return 0
        case int(code):
            return code & 0xFF
        case text:
            sys.stderr.write(f"{text}\n")
            return 1
