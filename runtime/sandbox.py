"""Turn a freshly cloned process into a step: its root, its mounts, its user, its limits, its command.

Runs in the child, process 1 of the step's PID namespace, with every module it needs already loaded: after the root has
changed, nothing of this program's files is reachable, and nothing of the image's files may be loaded into it.

Order: standard streams, mounts, new root, host name, working directory, limits, bounding set, ids, capabilities,
no_new_privs, system call filter, supervisor where only one user id exists, exec.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import stat
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import prctl

from runtime import capabilities, devices, mounts, network, seccomp, stubs, syscalls, terminal, users
from runtime.errors import KernelError, StepSetupError
from runtime.host import GIVE_SUB_IDS
from runtime.spec import DEFAULT_SHM_SIZE, SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from runtime.spec import Ulimit
    from runtime.supervisor.process import Supervision

NAMESPACES: Final = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
"""What every step has of its own from its start; to mounts, and to what its network asks for, it changes over later."""

# From the kernel, include/uapi/asm-generic/resource.h; names as docker's --ulimit spells them.
_LIMITS: Final = {
    "core": 4,
    "cpu": 0,
    "data": 2,
    "fsize": 1,
    "locks": 10,
    "memlock": 8,
    "msgqueue": 12,
    "nice": 13,
    "nofile": 7,
    "nproc": 6,
    "rss": 5,
    "rtprio": 14,
    "rttime": 15,
    "sigpending": 11,
    "stack": 3,
}
_LARGEST_ACCOUNT_FILE: Final = 16 * 1024 * 1024
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
_IGNORED_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGPIPE,
)
UMASK: Final = 0o022
_HEAD_SIZE: Final = 4096  # the program headers of an ELF file follow its header, and the interpreter's name those
_ELF_HEADER_SIZE: Final = 20
_PT_INTERP: Final = 3
# EM_* of elf.h
_ELF_MACHINES: Final = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}


_EXAMPLE: Final = json.dumps(
    SandboxSpec(args=("",), environ=(), lowers=(), upper=None, work=None, hosts=b"", resolv_conf=b"").to_json()
)
"""What `rehearse` reads."""


class Prepared(NamedTuple):
    """What is mounted for a step before it is known: descriptors of the scratch, and of /proc, /dev and /sys in it."""

    scratch: int
    proc: int
    devices: int
    sys: int


def prepare() -> Prepared:
    """Give a process that waits to be a step a mount namespace, and mount in it what is the same for almost all of them.

    Raises:
        KernelError: the kernel refused something.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    scratch = mounts.mount_scratch()
    return Prepared(
        scratch=scratch,
        proc=mounts.mount_proc(mounts.make_target(scratch, "proc"), scratch),
        devices=devices.mount_devices(mounts.make_target(scratch, "dev"), shm_size=DEFAULT_SHM_SIZE),
        sys=mounts.mount_sys(mounts.make_target(scratch, "sys"), scratch),
    )


def become_step(
    spec: SandboxSpec,
    streams: tuple[int | None, int, int],
    report: Callable[[list[stubs.Stub]], None],
    prepared: Prepared,
    owners: Supervision | None = None,
) -> NoReturn:
    """Set everything else up and execute the command.

    This process has left the session of the terminal (`leave_session`), unless the command stays in it.

    Args:
        spec: what to set up.
        streams: descriptors of standard input (None for an empty one), output and error.
        report: called with the stubs that were made, once, when all that is left is to execute the command.
        prepared: what `prepare` has mounted.
        owners: the supervisor that keeps ids, where the namespace has one.

    Raises:
        StepSetupError: the image or the instruction is at fault.
        KernelError: the kernel refused something.
        HostUnsupportedError: the host lacks something.
    """
    if spec.interactive:
        reset_signals()
    os.umask(UMASK)
    set_streams(streams, foreground=spec.foreground)
    network.bring_up(spec.network)
    root, finder = _build_root(spec, prepared)
    user = resolve_step_user(root, spec.user)
    cwd = finder.make_directory(spec.cwd, uid=user.uid, gid=user.gid)
    if spec.upper is None:
        syscalls.mount_setattr(root, "", syscalls.AT_EMPTY_PATH, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    mounts.change_root(root, prepared.scratch)
    os.fchdir(cwd)
    _set_host_name(spec.hostname)
    set_limits(spec.ulimits)
    groups = None if spec.keep_groups else (*user.groups, *spec.groups)
    _drop_rights(user, groups, privileged=spec.privileged, owners=owners)
    report(finder.stubs)
    syscalls.close_range(3, syscalls.LAST_FD, syscalls.CLOSE_RANGE_CLOEXEC)
    execute(spec.args, {"HOME": user.home} | dict(spec.environ))


def leave_session() -> None:
    """Leave the session of the terminal, and undo `ignore_signals`; for a process that waits to be a step.

    The scheduler counts a new session as a group of its own, whose first turn comes after all that is running.
    """
    os.setsid()
    reset_signals()


def rehearse() -> None:
    """Touch much of the memory that `become_step` will, in a process that waits to be a step, and change nothing.

    A page that a process shares with the one it was cloned from is copied when it is first touched, and whatever Python
    looks at it also touches, to count who does.
    """
    SandboxSpec.from_json(json.loads(_EXAMPLE))
    users.resolve_user("", b"root:x:0:0:root:/root:/bin/sh\n", b"root:x:0:\n")


def _set_host_name(name: str) -> None:
    """Name the host, or leave it the name it has where a seccomp filter refuses that, as podman's does by default."""
    try:
        syscalls.sethostname(name.encode(errors="surrogateescape"))
    except KernelError as error:
        if error.errno != errno.EPERM:
            raise


def ignore_signals() -> None:
    """Ignore what the terminal and the user send to a whole process group, and no other signal; for the zygote.

    A signal that is ignored stays so through exec, so a step begins by undoing this.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:  # by Python, or by nohup
            signal.signal(number, signal.SIG_DFL)
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def reset_signals() -> None:
    """Undo `ignore_signals`, and let all signals through."""
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def set_streams(streams: tuple[int | None, int, int], *, foreground: bool) -> None:
    """Make descriptors 0 to 2 of standard input (None for an empty one), output and error.

    Args:
        streams: what they are made of.
        foreground: take the foreground of the terminal that is the standard input.
    """
    source, output, error = streams
    os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) if source is None else source, 0)
    os.dup2(output, 1)
    os.dup2(error, 2)
    if foreground:
        terminal.take(0)


def _build_root(spec: SandboxSpec, prepared: Prepared) -> tuple[int, stubs.TargetFinder]:
    """Mount everything; return the descriptor of the new root, and what knows the stubs that were made in it."""
    scratch = prepared.scratch
    further = _open_mounts(spec, scratch)
    if spec.tree is None:
        lowers = spec.lowers
        if spec.skeleton is not None and len(lowers) < mounts.MOST_LAYERS:
            lowers = (spec.skeleton, *lowers)
        root = mounts.mount_overlay(lowers, spec.upper, spec.work, scratch, name="root")
    else:
        root = mounts.mount_tree(spec.tree, scratch, name="root")
    finder = stubs.TargetFinder(root, spec.tree or spec.upper)
    if spec.privileged:
        mounts.mount_proc(finder.find("/proc", directory=True), scratch, masked=False)
        mounts.mount_unconfined(finder.find("/sys", directory=True), "/sys")
    else:
        mounts.attach(prepared.proc, finder.find("/proc", directory=True))
        mounts.attach(prepared.sys, finder.find("/sys", directory=True))
    if spec.shm_size == DEFAULT_SHM_SIZE:
        mounts.attach(prepared.devices, finder.find("/dev", directory=True))
    else:
        devices.mount_devices(finder.find("/dev", directory=True), shm_size=spec.shm_size)
    mounts.mount_text(finder.find("/etc/resolv.conf", directory=False), scratch, "resolv.conf", spec.resolv_conf)
    mounts.mount_text(finder.find("/etc/hosts", directory=False), scratch, "hosts", spec.hosts)
    finder.note_skeleton()
    for target, mount in sorted(further, key=lambda item: item[0].rstrip("/").count("/")):
        mounts.attach(mount, finder.find(target, directory=mounts.is_directory(mount)))
    return root, finder


def _open_mounts(spec: SandboxSpec, scratch: int) -> list[tuple[str, int]]:
    """Return target and mount descriptor of what is mounted beside the standard set, none of it attached."""
    opened = []
    for bind in spec.binds:
        attributes = syscalls.MOUNT_ATTR_RDONLY if bind.read_only else 0
        for restriction in bind.restrictions:
            attributes |= mounts.RESTRICTIONS[restriction]
        mount = mounts.clone_mount(mounts.open_source(bind), "", attributes=attributes, recursive=True)
        opened.append((bind.target, mount))
    for index, layers in enumerate(spec.layer_mounts):
        tree = mounts.mount_overlay(layers.lowers, layers.upper, layers.work, scratch, name=f"layers-{index}")
        opened.append((layers.target, mounts.clone_out_of(tree, layers)))
    for tmpfs in spec.tmpfs:
        options = ["mode=1777"] if tmpfs.size is None else ["mode=1777", f"size={tmpfs.size}"]
        attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
        attributes |= syscalls.MOUNT_ATTR_RDONLY if tmpfs.read_only else 0
        opened.append((tmpfs.target, mounts.create_mount("tmpfs", options, attributes=attributes)))
    for index, file in enumerate(spec.files):
        opened.append((file.target, mounts.open_file(file, scratch, f"file-{index}")))
    opened.extend((node.target, devices.open_node(node)) for node in spec.nodes)
    return opened


def resolve_step_user(root: int, text: str) -> users.ProcessUser:
    """Return who a step runs as, by the account files below the descriptor *root*.

    Raises:
        StepSetupError: there is no such user, or a file is too large.
    """
    return users.resolve_user(text, _read_account_file(root, "/etc/passwd"), _read_account_file(root, "/etc/group"))


def _read_account_file(root: int, path: str) -> bytes | None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # it may be a FIFO or a device
    try:
        fd = syscalls.openat2(root, path, flags, 0, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS)
    except KernelError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size > _LARGEST_ACCOUNT_FILE:
        raise StepSetupError("user", f"`{path}` of the image is too large: {status.st_size} bytes")
    with open(fd, "rb") as file:
        return file.read(_LARGEST_ACCOUNT_FILE)


def set_limits(limits: Sequence[Ulimit]) -> None:
    """Set the limits of this process.

    Raises:
        StepSetupError: one is unknown, or above what may be granted.
    """
    for limit in limits:
        number = _LIMITS.get(limit.name)
        if number is None:
            raise StepSetupError("ulimit", f"unknown limit: `{limit.name}`", hint=f"one of {', '.join(_LIMITS)}")
        try:
            resource.setrlimit(number, (limit.soft, limit.hard))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "above what this process may grant"
            raise StepSetupError(
                "ulimit", f"cannot set limit `{limit.name}={limit.soft}:{limit.hard}`: {reason}"
            ) from error


def _drop_rights(
    user: users.ProcessUser, groups: Sequence[int] | None, *, privileged: bool, owners: Supervision | None
) -> None:
    """Become *user* with no more than Docker's default rights, for good; with all there are if *privileged*.

    *groups* are its supplementary groups, None for those of this process. With one id only, the process stays that one
    with its groups, and *owners* says that it is the user.
    """
    if not privileged:
        capabilities.limit_bounding_set(capabilities.DEFAULT_CAPABILITIES)
    if owners is None:
        become_user(user, groups)
    if (user.uid == 0 or owners is not None) and not privileged:
        capabilities.hold_only(capabilities.DEFAULT_CAPABILITIES if user.uid == 0 else 0)
    prctl.set_pdeathsig(signal.SIGKILL)  # after the ids, whose change clears it
    if not privileged:
        prctl.set_no_new_privs(1)
        seccomp.load()
    if owners is not None:
        owners.hand_over(user, groups or (), privileged=privileged)


def become_user(user: users.ProcessUser, groups: Sequence[int] | None) -> None:
    """Change the ids of this process for good; *groups* are the supplementary ones, None for those of this process.

    Raises:
        StepSetupError: the user namespace has no place for them.
    """
    try:
        if groups is not None:
            with contextlib.suppress(PermissionError):  # a namespace with one group id cannot change groups
                # The primary group is among them, so that a directory closed to it stays closed (CVE-2022-36109).
                os.setgroups(tuple(dict.fromkeys((user.gid, *groups))))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise StepSetupError(
            "user",
            f"the user namespace of this build has no place for user {user.uid}:{user.gid}",
            hint=GIVE_SUB_IDS,
        ) from error


def execute(args: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by the command.

    Raises:
        StepSetupError: why that cannot be, with the status a shell would give.
    """
    if not args:
        raise StepSetupError("exec", "no command specified")
    refusal: StepSetupError | None = None
    for candidate in _candidates(args[0], environ.get("PATH", "")):
        try:
            os.execve(candidate, list(args), environ)  # noqa: S606 - this is the step's command
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR} and not os.path.lexists(candidate):
                continue
            refusal = refusal or _explain_exec(args[0], candidate, error.errno or 0)
            if error.errno != errno.EACCES:
                break
        except ValueError as error:
            raise StepSetupError("exec", f'exec: "{args[0]}": {error}', status=_NOT_EXECUTABLE) from error
    if refusal:
        raise refusal
    if "/" in args[0]:
        raise StepSetupError("exec", f'exec: "{args[0]}": stat {args[0]}: no such file or directory', status=_NOT_FOUND)
    raise StepSetupError("exec", f'exec: "{args[0]}": executable file not found in $PATH', status=_NOT_FOUND)


def _candidates(name: str, search_path: str) -> list[str]:
    if "/" in name:
        return [name]
    return [f"{directory}/{name}" for directory in search_path.split(":") if directory and name]


def _explain_exec(name: str, path: str, number: int) -> StepSetupError:
    """Return why execve(2) of *path* failed with errno *number*, as far as the file tells."""
    match number:
        case errno.EACCES:
            return StepSetupError("exec", f'exec: "{name}": permission denied', status=_NOT_EXECUTABLE)
        case errno.ENOENT:
            return _explain_interpreter(name, path)
        case errno.ENOEXEC:
            return StepSetupError(
                "exec", f"exec {path}: exec format error: {_file_format(path)}", status=_NOT_EXECUTABLE
            )
        case _:
            return StepSetupError("exec", f"exec {path}: {os.strerror(number).lower()}", status=_NOT_EXECUTABLE)


def _explain_interpreter(name: str, path: str) -> StepSetupError:
    interpreter = _interpreter(path)
    if interpreter.endswith("\r"):
        return StepSetupError(
            "exec",
            f"exec {path}: its first line names `{interpreter[:-1]}` followed by a carriage return",
            status=_NOT_FOUND,
            hint="save the script with Unix line endings: dos2unix, or `*.sh text eol=lf` in .gitattributes",
        )
    if interpreter:
        return StepSetupError(
            "exec", f"exec {path}: its interpreter `{interpreter}` is not in the image", status=_NOT_FOUND
        )
    return StepSetupError("exec", f'exec: "{name}": no such file or directory', status=_NOT_FOUND)


def _interpreter(path: str) -> str:
    """Return the program that the kernel needs to run the script or ELF file *path*, empty if it names none."""
    head = _head(path)
    if head.startswith(b"#!"):
        line = head[2:].split(b"\n", 1)[0].strip(b" \t")
        return line.split(b" ")[0].split(b"\t")[0].decode(errors="replace")
    if head[:5] != b"\x7fELF\x02":
        return ""
    with contextlib.suppress(struct.error):
        offset, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        for index in range(count):
            kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", head, offset + index * size)
            if kind == _PT_INTERP:
                return head[start : start + length].rstrip(b"\0").decode(errors="replace")
    return ""


def _file_format(path: str) -> str:
    head = _head(path)
    if head.startswith(b"\x7fELF") and len(head) >= _ELF_HEADER_SIZE:
        number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")  # ELFDATA2MSB
        machine = _ELF_MACHINES.get(number, f"machine {number}")
        return f"it is a program for {machine}, this machine is {syscalls.MACHINE}"
    if head.startswith(b"#!"):
        return "the program in its first line is not one this machine can run"
    return "it is neither a program nor a script that begins with `#!`" if head else "it is empty"


def _head(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # executable, but not readable
        return b""
    return os.read(fd, _HEAD_SIZE)
