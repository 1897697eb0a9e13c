"""Run a step without namespaces or mounts, as uid 0 of a container: chroot into a tree of its own.

An *attendant* is forked from the zygote for each step. It puts into the tree what a mount would show (`runtime.places`),
forks the step, ends whatever the step leaves running, and takes everything out again. It holds all rights; the step
holds what is listed in `runtime/README.md`, section "Without namespaces".

    zygote ── fork ──> attendant ── fork ──> step
                       subreaper              chroot, fewer capabilities, Landlock, filter, exec

Served: /dev with the nodes every program expects; /dev/stdout and /dev/stderr as pipes to the output; copies of a few
files of /proc as they are when the step starts; an empty /sys. Not served: /proc/self and all else of /proc, /dev/fd,
terminals of its own, the host name, limits of /dev/shm and tmpfs, read-only mounts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import stat
from functools import partial
from typing import TYPE_CHECKING, Final

import prctl

from runtime import capabilities, landlock, mounts, reaper, sandbox, seccomp, syscalls
from runtime.errors import HostUnsupportedError, KernelError, StepSetupError
from runtime.paths import open_in_root
from runtime.places import Places, write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType
    from typing import NoReturn

    from runtime.mounts import BindMount, FileMount, LayersMount
    from runtime.spec import SandboxSpec
    from runtime.stubs import Stub
    from runtime.users import ProcessUser

# Source: OCI runtime-spec, config-linux.md, section "Default Devices".
_NODES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_PROC_FILES: Final = (
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "uptime",
    "version",
    "sys/fs/file-max",
    "sys/kernel/cap_last_cap",
    "sys/kernel/hostname",
    "sys/kernel/ngroups_max",
    "sys/kernel/osrelease",
    "sys/kernel/ostype",
    "sys/kernel/pid_max",
    "sys/kernel/version",
    "sys/vm/overcommit_memory",
)
STEP_CAPABILITIES: Final = capabilities.DEFAULT_CAPABILITIES & ~capabilities.capability_mask(
    (capabilities.CAP_SYS_CHROOT, capabilities.CAP_MKNOD)
)
"""Docker's set without what leads out of a chroot: a second chroot, and nodes of the host's disks.

Holding less than the builder also keeps the step from tracing it, which the kernel allows only to who holds as much.
"""

_NEEDED: Final = {
    "CAP_CHOWN": capabilities.CAP_CHOWN,
    "CAP_DAC_OVERRIDE": capabilities.CAP_DAC_OVERRIDE,
    "CAP_FOWNER": capabilities.CAP_FOWNER,
    "CAP_KILL": capabilities.CAP_KILL,
    "CAP_MKNOD": capabilities.CAP_MKNOD,
    "CAP_SETGID": capabilities.CAP_SETGID,
    "CAP_SETPCAP": capabilities.CAP_SETPCAP,
    "CAP_SETUID": capabilities.CAP_SETUID,
    "CAP_SYS_CHROOT": capabilities.CAP_SYS_CHROOT,
}
_READ_SIZE: Final = 1 << 16
_STATUS_OF_SETUP_ERROR: Final = 125


def find_obstacle(folder: Path) -> str | None:
    """Tell why steps cannot be run by chroot here, in the user's words; None if they can.

    Args:
        folder: a directory on the file system of the trees, where a device node may be made for a moment.
    """
    if os.geteuid() != 0:
        return "the user is not uid 0"
    effective, _, _ = syscalls.capget()
    missing = [name for name, number in _NEEDED.items() if not effective >> number & 1]
    if missing:
        return f"uid 0 lacks {', '.join(missing)}"
    if not os.path.exists("/proc/self/fd"):
        return "/proc is not mounted"
    return _find_node_obstacle(folder)


def _find_node_obstacle(folder: Path) -> str | None:
    node = folder / f"node-{os.urandom(8).hex()}"
    try:
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(*_NODES["null"]))
        try:
            os.close(os.open(node, os.O_WRONLY | os.O_CLOEXEC))
        finally:
            node.unlink()
    except OSError as error:
        return f"device nodes cannot be made or used in `{folder}`: {os.strerror(error.errno or 0)}"
    return None


def give_up_nodes() -> None:
    """Keep this process from making device nodes, so that those in layers are left out as in a user namespace.

    For the builder, after the zygote was forked, which needs the right.
    """
    effective, permitted, _ = syscalls.capget()
    keep = ~capabilities.capability_mask((capabilities.CAP_MKNOD,))
    syscalls.capset(effective=effective & keep, permitted=permitted & keep, inheritable=0)


def attend(
    spec: SandboxSpec,
    streams: tuple[int | None, int, int],
    *,
    report: Callable[[list[Stub]], None],
    refuse: Callable[[BaseException], None],
) -> NoReturn:
    """Run a step and end as it ended; TERM ends it with everything it started. Called in a freshly forked process.

    Args:
        spec: what to set up; it has a tree, and a work directory for what is laid aside.
        streams: descriptors of standard input (None for an empty one), output and error.
        report: called in the step's process when all that is left is to execute the command.
        refuse: called there when that cannot be.

    Raises:
        StepSetupError: the image or the instruction is at fault.
        HostUnsupportedError: it asks for what cannot be had without namespaces.
        KernelError: the kernel refused something.
    """
    signal.signal(signal.SIGTERM, _stop)
    prctl.set_name("pybuild-step")
    prctl.set_pdeathsig(signal.SIGTERM)
    reaper.adopt_orphans()
    if not spec.interactive:
        os.setsid()
    _check(spec)
    if spec.tree is None or spec.work is None:
        raise AssertionError("a step without mounts has a tree")
    places = Places(spec.tree, spec.work)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the zygote kept TERM waiting
        outputs = _put_everything(places, spec, streams)
        user = sandbox.resolve_step_user(places.root, spec.user)
        cwd = places.finder.make_directory(spec.cwd, uid=user.uid, gid=user.gid)
        child = os.fork()
        if child == 0:
            try:
                _become_step(spec, streams, places.root, cwd, user, report)
            except BaseException as error:  # noqa: BLE001 - this process ends here, and the caller is told
                refuse(error)
            finally:
                os._exit(_STATUS_OF_SETUP_ERROR)
        status = _follow(child, outputs)
    except _StoppedError:
        status = -signal.SIGKILL
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        reaper.end_descendants()
        places.restore()
    _end_like(status)


class _StoppedError(Exception):
    """The step is to be ended."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _StoppedError


def _check(spec: SandboxSpec) -> None:
    """Refuse what cannot be had without namespaces."""
    if spec.privileged:
        raise _unsupported("steps with all rights", "use --security=sandbox")
    for bind in spec.binds:
        if not bind.read_only and not bind.moves:
            raise _unsupported(
                f"the writable mount of `{bind.source}` on `{bind.target}`", "mount it with :ro, as a copy"
            )


def _unsupported(feature: str, hint: str) -> HostUnsupportedError:
    return HostUnsupportedError(feature, "with the isolation `chroot` nothing can be mounted", hint=hint)


def _put_everything(places: Places, spec: SandboxSpec, streams: tuple[int | None, int, int]) -> dict[int, int]:
    """Put everything into the tree that a mount would show; return the pipes of /dev with where they lead."""
    os.umask(0)
    device = places.put_directory("/dev", 0o755)
    outputs = _fill_devices(device, streams, with_pipes=not spec.interactive)
    proc = places.put_directory("/proc", 0o555)
    _fill_proc(proc)
    os.close(proc)
    os.close(places.put_directory("/sys", 0o555))
    places.put_file("/etc/resolv.conf", spec.resolv_conf)
    places.put_file("/etc/hosts", spec.hosts)
    for target, put in sorted(_further(places, spec), key=lambda item: item[0].rstrip("/").count("/")):
        put(target)
    return outputs


def _further(places: Places, spec: SandboxSpec) -> list[tuple[str, Callable[[str], None]]]:
    """Return where things are put beside the standard set, and how."""
    found: list[tuple[str, Callable[[str], None]]] = []
    for bind in spec.binds:
        if bind.read_only and not bind.moves:
            found.append((bind.target, partial(_copy_bind, places, bind)))
        else:
            found.append((bind.target, partial(places.put_moved, bind.source)))
    found += [(layers.target, partial(_copy_layers, places, layers)) for layers in spec.layer_mounts]
    found += [(tmpfs.target, partial(_put_empty, places)) for tmpfs in spec.tmpfs]
    for file in spec.files:
        found.append((file.target, partial(_put_secret, places, file)))
    return found


def _copy_bind(places: Places, bind: BindMount, target: str) -> None:
    source = mounts.open_source(bind)
    kind = stat.S_IFMT(os.fstat(source).st_mode)
    if kind not in {stat.S_IFREG, stat.S_IFDIR}:
        raise _unsupported(f"the mount of `{bind.source}` on `{target}`", "it is neither a file nor a directory")
    places.put_copy((source,), target)
    os.close(source)


def _copy_layers(places: Places, layers: LayersMount, target: str) -> None:
    """Copy what layers show at a path; a path that leads through links from one layer to another is not found."""
    opened = []
    for lower in layers.lowers:
        root = mounts.open_path(lower, os.O_DIRECTORY)
        with contextlib.suppress(KernelError):
            opened.append(open_in_root(root, layers.source, os.O_PATH))
        os.close(root)
    if not opened:
        raise StepSetupError("mount", f"cannot mount `{layers.source}` on `{target}`: {os.strerror(errno.ENOENT)}")
    places.put_copy(opened, target)
    for fd in opened:
        os.close(fd)


def _put_empty(places: Places, target: str) -> None:
    os.close(places.put_directory(target, 0o1777))


def _put_secret(places: Places, file: FileMount, target: str) -> None:
    places.put_file(target, file.content, mode=file.mode, uid=file.uid, gid=file.gid)


def _fill_devices(device: int, streams: tuple[int | None, int, int], *, with_pipes: bool) -> dict[int, int]:
    for name, numbers in _NODES.items():
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(*numbers), dir_fd=device)
    os.symlink("null", "stdin", dir_fd=device)
    os.mkdir("shm", 0o777, dir_fd=device)
    os.chmod("shm", 0o1777, dir_fd=device)  # noqa: S103 - as /tmp
    os.mkdir("mqueue", 0o755, dir_fd=device)
    outputs: dict[int, int] = {}
    if with_pipes:  # a terminal is written to directly
        for name, stream in (("stdout", streams[1]), ("stderr", streams[2])):
            os.mkfifo(name, 0o666, dir_fd=device)
            # Open for writing, too: so there is never an end of file, and no writer waits for a reader.
            outputs[os.open(name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=device)] = stream
    return outputs


def _fill_proc(proc: int) -> None:
    for name in _PROC_FILES:
        try:
            with open(f"/proc/{name}", "rb") as file:
                content = file.read()
        except OSError:  # this kernel has no such file, or the container hides it
            continue
        *folders, base = name.encode().split(b"/")
        folder = b"/".join(folders)
        if folder:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folders[0], 0o555, dir_fd=proc)
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o555, dir_fd=proc)
        parent = os.open(folder or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
        write_file(parent, base, content, mode=0o444)
        os.close(parent)


def _become_step(
    spec: SandboxSpec,
    streams: tuple[int | None, int, int],
    root: int,
    cwd: int,
    user: ProcessUser,
    report: Callable[[list[Stub]], None],
) -> NoReturn:
    sandbox.reset_signals()
    if not spec.interactive:
        os.setsid()  # another one than the attendant's, which a step must not be able to signal as a group
    os.umask(sandbox.UMASK)
    sandbox.set_streams(streams, foreground=spec.foreground)
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(cwd)
    sandbox.set_limits(spec.ulimits)
    _, permitted, _ = syscalls.capget()
    keep = STEP_CAPABILITIES & permitted
    capabilities.limit_bounding_set(keep)
    sandbox.become_user(user, None if spec.keep_groups else (*user.groups, *spec.groups))
    capabilities.hold_only(0 if user.uid else keep)
    prctl.set_pdeathsig(signal.SIGKILL)  # after the ids, whose change clears it
    prctl.set_no_new_privs(1)
    landlock.confine(root)
    seccomp.load(only_unix_sockets=spec.network == "none")
    report([])
    syscalls.close_range(3, syscalls.LAST_FD, syscalls.CLOSE_RANGE_CLOEXEC)
    sandbox.execute(spec.args, {"HOME": user.home} | dict(spec.environ))


def _follow(child: int, outputs: dict[int, int]) -> int:
    """Pass on what is written to the pipes of /dev until *child* has ended and nothing that it started lives."""
    ended = os.pidfd_open(child)
    poller = select.poll()
    for fd in (ended, *outputs):
        poller.register(fd, select.POLLIN)
    ready: list[int] = []
    while ended not in ready:
        ready = [fd for fd, _ in poller.poll()]
        for fd in ready:
            if fd != ended:
                _pass_on(fd, outputs[fd])
    _, status = os.waitpid(child, 0)
    os.close(ended)
    reaper.end_descendants()
    for fd, stream in outputs.items():
        while _pass_on(fd, stream):
            pass
        os.close(fd)
    return os.waitstatus_to_exitcode(status)


def _pass_on(source: int, target: int) -> bool:
    """Write once what can be read without waiting; False if that is nothing."""
    try:
        view = memoryview(os.read(source, _READ_SIZE))
    except BlockingIOError:
        return False
    with contextlib.suppress(OSError):  # nobody reads the output of this step any more
        while view:
            view = view[os.write(target, view) :]
    return True


def _end_like(status: int) -> NoReturn:
    """End this process with a status, or by the signal that a negative one stands for."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):  # KILL and STOP have no handlers
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)
