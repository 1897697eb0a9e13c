"""Mount what a step sees: its root file system, /proc, /sys, the files and directories it is given.

Everything is mounted by descriptor. A *mount descriptor* is what fsmount(2) and open_tree(2) return; it is attached to
a *target descriptor*, which was resolved inside the root, so a name that the image's own symbolic links lead elsewhere
cannot be hit. The *scratch* is a small tmpfs of the step's own for whatever must exist somewhere to be mounted.

Needs Linux 5.12 (mount_setattr); overlays of unprivileged users need 5.11 anyway.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime import syscalls
from runtime.errors import HostUnsupportedError, KernelError, StepSetupError
from runtime.host import GIVE_SUB_IDS
from runtime.ownership import Owners
from runtime.syscalls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLONE,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

INERT: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC

RESTRICTIONS: Final = {"nosuid": MOUNT_ATTR_NOSUID, "nodev": MOUNT_ATTR_NODEV, "noexec": MOUNT_ATTR_NOEXEC}
"""What a bind mount can forbid beside writing, as mount(8) spells it."""

# Docker's masked and read-only paths. Source: moby, daemon/pkg/oci/defaults.go.
_PROC_MASKED: Final = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
_PROC_READ_ONLY: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_SYS_MASKED: Final = ("devices/virtual/powercap", "firmware")

MOST_LAYERS: Final = 500
"""Lower directories that one overlay takes. From the kernel, OVL_MAX_STACK in fs/overlayfs/params.h."""

_LONGEST_VALUE: Final = 255
_SPECIAL: Final = re.compile(r"[\\:,]")
_SCRATCH_SIZE: Final = "size=16m"
_EMPTY_DIRECTORY: Final = "empty"


class BindMount(NamedTuple):
    """A file or directory of this side shown to the step.

    Args:
        source: what to show; trusted, symbolic links in it are followed on this side.
        target: where, absolute inside the root; made if missing.
        read_only: whether the step may only read it, with everything mounted below it.
        inside: path below *source* of what is shown, resolved with *source* as root; empty for all of it.
        restrictions: some of `RESTRICTIONS`, for everything mounted below it too.
        moves: where nothing can be mounted, *source* itself may be moved to *target* for the time of the step; what is
            only read is copied there, and else the mount is refused.
    """

    source: Path
    target: str
    read_only: bool = False
    inside: str = ""
    restrictions: tuple[str, ...] = ()
    moves: bool = False


class LayersMount(NamedTuple):
    """A directory or file out of another image or stage shown to the step.

    Args:
        lowers: the trees of its layers, base first.
        source: path inside them, resolved with them as root.
        target: where, absolute inside the root; made if missing.
        read_only: if not, what the step writes is thrown away.
        upper, work: empty directories on one file system that take what is written until somebody removes them; None
            for memory, of which there is little.
    """

    lowers: tuple[Path, ...]
    source: str
    target: str
    read_only: bool = True
    upper: Path | None = None
    work: Path | None = None


class TmpfsMount(NamedTuple):
    """An empty file system in memory.

    Args:
        target: where, absolute inside the root; made if missing.
        size: its limit in bytes, or None for half of the memory.
        read_only: whether nothing can be written to it.
    """

    target: str
    size: int | None = None
    read_only: bool = False


class FileMount(NamedTuple):
    """A read-only file in memory, such as a secret; it can be executed if its mode says so.

    Args:
        target: where, absolute inside the root; made if missing.
        content: its bytes, which reach no disk.
        mode, uid, gid: of the file.
    """

    target: str
    content: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0

    def __repr__(self) -> str:
        """Leave the content out, which may be a secret."""
        return f"FileMount(target={self.target!r}, mode={self.mode:#o}, uid={self.uid}, gid={self.gid})"


def create_mount(fstype: str, options: Iterable[str] = (), *, attributes: int = 0) -> int:
    """Return the mount descriptor of a new file system.

    Args:
        fstype: as in /proc/filesystems.
        options: `key=value`, or `key` for a flag.
        attributes: MOUNT_ATTR_* of the mount.

    Raises:
        KernelError: with what the file system said.
    """
    context = syscalls.fsopen(fstype)
    try:
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)
            else:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, key)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def clone_mount(dirfd: int, path: str, *, attributes: int = 0, recursive: bool = False) -> int:
    """Return the mount descriptor of a copy of what is seen at *path* (empty: at *dirfd* itself): a bind mount.

    *attributes* are added, with *recursive* also to every mount below.
    """
    depth = AT_RECURSIVE if recursive else 0
    itself = 0 if path else AT_EMPTY_PATH
    mount = syscalls.open_tree(dirfd, path, OPEN_TREE_CLONE | depth | itself)
    if attributes:
        syscalls.mount_setattr(mount, "", AT_EMPTY_PATH | depth, attr_set=attributes)
    return mount


def attach(mount: int, target: int, name: str = "") -> None:
    """Mount the mount descriptor *mount* on the descriptor *target*, or on *name* in that directory."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if name else MOVE_MOUNT_T_EMPTY_PATH)
    syscalls.move_mount(mount, "", target, name, flags)


def mount_scratch() -> int:
    """Mount the scratch and return its mount descriptor.

    It lies over this process's root, whose paths still lead to what is beneath: so no directory has to exist for it.
    """
    scratch = create_mount("tmpfs", ("mode=0755", _SCRATCH_SIZE))
    syscalls.move_mount(scratch, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH)
    os.mkdir(_EMPTY_DIRECTORY, 0o755, dir_fd=scratch)
    return scratch


def make_target(scratch: int, name: str) -> int:
    """Make a directory in the scratch, and return an O_PATH descriptor of it."""
    os.mkdir(name, 0o755, dir_fd=scratch)
    return syscalls.openat2(scratch, name, os.O_PATH)


def mount_overlay(lowers: Sequence[Path], upper: Path | None, work: Path | None, scratch: int, *, name: str) -> int:
    """Mount an overlay in the scratch and return a descriptor of its root.

    The superblock is `volatile`: nothing the step syncs reaches the disk at that moment. Whoever keeps the upper
    directory syncs it, and no second overlay can be made of the same upper and work directories.

    Args:
        lowers: trees of layers, base first; may be empty.
        upper: directory for what changes; None to keep changes in the scratch.
        work: empty directory on the file system of *upper*; None with it.
        scratch: mount descriptor of the scratch.
        name: of a directory to make in the scratch.

    Raises:
        KernelError: a directory cannot be opened, or the kernel refused.
        HostUnsupportedError: the kernel cannot make an overlay of these directories.
    """
    check_depth(lowers)
    for directory in (name, f"{name}/upper", f"{name}/work", f"{name}/root"):
        os.mkdir(directory, 0o755, dir_fd=scratch)
    opened: list[int] = []
    layers = [name_layer(lower, opened) for lower in reversed(lowers)]
    if not layers:
        opened.append(syscalls.openat2(scratch, _EMPTY_DIRECTORY, os.O_PATH))
        layers = [f"/proc/self/fd/{opened[0]}"]
    if upper is None or work is None:
        changes = [syscalls.openat2(scratch, f"{name}/{part}", os.O_PATH) for part in ("upper", "work")]
    else:
        changes = [open_path(upper, os.O_DIRECTORY), open_path(work, os.O_DIRECTORY)]
    target = syscalls.openat2(scratch, f"{name}/root", os.O_PATH)
    rest = [f"upperdir=/proc/self/fd/{changes[0]}", f"workdir=/proc/self/fd/{changes[1]}", "userxattr", "volatile"]
    try:
        _attach_overlay(layers, rest, target)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        raise HostUnsupportedError(
            "an overlay of these directories",
            error.detail or error.message,
            hint="put the store on a volume or a tmpfs, not on a container's own root file system: --root DIR",
        ) from error
    finally:
        for fd in (*opened, *changes, target):
            os.close(fd)
    return syscalls.openat2(scratch, f"{name}/root", os.O_PATH)


def name_layer(layer: Path, opened: list[int]) -> str:
    """Return what a mount option calls a layer: its path, or if that will not do a descriptor, which is added to *opened*.

    A value is shorter than 256 bytes, and colons, commas and backslashes mean something in some of the options.
    """
    path = os.fspath(layer)
    if len(os.fsencode(path)) < _LONGEST_VALUE and not _SPECIAL.search(path):
        return path
    opened.append(open_path(layer, os.O_DIRECTORY))
    return f"/proc/self/fd/{opened[-1]}"


def check_depth(lowers: Sequence[Path]) -> None:
    """Refuse a chain that no overlay shows; the kernel would speak of symbolic links.

    Raises:
        HostUnsupportedError: it is too long.
    """
    if len(lowers) > MOST_LAYERS:
        raise HostUnsupportedError(
            f"a file system of {len(lowers)} layers",
            f"its kernel stacks at most {MOST_LAYERS}",
            hint="join RUN steps, or begin a new stage: FROM scratch, then COPY --from=STAGE / /",
        )


def mount_tree(tree: Path, scratch: int, *, name: str) -> int:
    """Bind a directory in the scratch, to be written to, and return a descriptor of its root.

    Args:
        tree: shows all a step is to see.
        scratch: mount descriptor of the scratch.
        name: of a directory to make in the scratch.

    Raises:
        KernelError: the kernel refused.
    """
    target = make_target(scratch, name)
    mount = clone_mount(AT_FDCWD, os.fspath(tree))
    attach(mount, target)
    return mount


def _attach_overlay(layers: Sequence[str], rest: Sequence[str], target: int) -> None:
    try:
        attach(create_mount("overlay", [*(f"lowerdir+={layer}" for layer in layers), *rest]), target)
    except KernelError as error:
        if error.errno != errno.EINVAL or "lowerdir+" not in error.subject:
            raise
        # Before Linux 6.7 layers cannot be given one by one, and all of them have to fit into a page.
        opened = [open_path(layer, os.O_DIRECTORY) for layer in layers]
        try:
            lowers = ":".join(f"/proc/self/fd/{fd}" for fd in opened)
            options = ",".join((f"lowerdir={lowers}", *rest))
            syscalls.mount("overlay", f"/proc/self/fd/{target}", "overlay", 0, options)
        finally:
            for fd in opened:
                os.close(fd)


def clone_out_of(tree: int, mount: LayersMount) -> int:
    """Return the mount descriptor of what *mount* shows of *tree*, the root of its layers.

    Raises:
        StepSetupError: there is no such file.
    """
    try:
        source = syscalls.openat2(tree, mount.source, os.O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except KernelError as error:
        raise StepSetupError(
            "mount", f"cannot mount `{mount.source}` on `{mount.target}`: {os.strerror(error.errno or 0)}"
        ) from error
    return clone_mount(source, "", attributes=MOUNT_ATTR_RDONLY if mount.read_only else 0)


def open_path(path: Path | str, flags: int = 0) -> int:
    """Return an O_PATH descriptor of *path* on this side.

    Raises:
        KernelError: it cannot be opened.
    """
    return syscalls.openat2(AT_FDCWD, os.fspath(path), os.O_PATH | flags)


def mount_proc(target: int, scratch: int, *, masked: bool = True) -> int:
    """Mount /proc for this PID namespace on *target*, with Docker's masked and read-only paths if *masked*.

    Returns the mount descriptor.

    Where the kernel refuses a fresh one, because the outer one is partly hidden, the outer one is shown: /proc/self is
    right, other numbers are those of the outer PID namespace.
    """
    try:
        proc = create_mount("proc", attributes=INERT)
    except KernelError:
        proc = clone_mount(AT_FDCWD, "/proc", attributes=INERT, recursive=True)
    attach(proc, target)
    if not masked:
        return proc
    _mask(proc, _PROC_MASKED, scratch)
    for name in _PROC_READ_ONLY:
        path = _find_beneath(proc, name)
        if path is not None:
            attach(clone_mount(path, "", attributes=MOUNT_ATTR_RDONLY, recursive=True), path)
    return proc


def mount_unconfined(target: int, path: str) -> None:
    """Show *path* of this side on *target* as it is, with everything below it."""
    attach(clone_mount(AT_FDCWD, path, recursive=True), target)


def mount_sys(target: int, scratch: int) -> int:
    """Show the outer /sys on *target*, read-only with everything below it; return the mount descriptor."""
    sys = clone_mount(AT_FDCWD, "/sys", attributes=MOUNT_ATTR_RDONLY | INERT, recursive=True)
    attach(sys, target)
    _mask(sys, _SYS_MASKED, scratch)
    return sys


def change_root(root: int, scratch: int) -> None:
    """Make the mount whose root is *root*, and which lies in the scratch, the root of this mount namespace.

    What was the root, with the scratch and everything else, is detached. The working directory is the new root.

    Source: pivot_root(2), section Notes.
    """
    os.fchdir(root)
    # Beside the old root instead of over it, so that both go at once: for each unmounting the kernel waits for all
    # processors, up to a millisecond.
    syscalls.move_mount(scratch, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH)
    syscalls.pivot_root(".", ".")
    # The old root is now mounted over the new one.
    syscalls.umount2(".", syscalls.MNT_DETACH)


def mount_text(target: int, scratch: int, name: str, content: bytes) -> None:
    """Mount a read-only file of *content* on *target*; it lies in the scratch under *name*."""
    _write_file(scratch, name, content, mode=0o644)
    attach(clone_mount(scratch, name, attributes=MOUNT_ATTR_RDONLY | INERT), target)


def open_file(mount: FileMount, scratch: int, name: str) -> int:
    """Return the mount descriptor of the file *mount* describes; it lies in the scratch under *name*.

    Raises:
        StepSetupError: the user namespace has no place for its owner.
    """
    _write_file(scratch, name, mount.content, mode=0o400)
    try:
        Owners.here().give(name, mount.uid, mount.gid, dir_fd=scratch)
    except OSError as error:
        raise unmapped_owner(mount.target, mount.uid, mount.gid) from error
    os.chmod(name, mount.mode, dir_fd=scratch)
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    if not mount.mode & 0o111:
        attributes |= MOUNT_ATTR_NOEXEC
    return clone_mount(scratch, name, attributes=attributes)


def unmapped_owner(target: str, uid: int, gid: int) -> StepSetupError:
    """Return the error for a mount on *target* that should belong to an id outside the user namespace."""
    return StepSetupError(
        "mount",
        f"the user namespace of this build has no place for the owner {uid}:{gid} of `{target}`",
        hint=GIVE_SUB_IDS,
    )


def _write_file(directory: int, name: str, content: bytes, *, mode: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=directory)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.close(fd)


def is_directory(fd: int) -> bool:
    """Return whether *fd*, of any kind, stands for a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def open_source(mount: BindMount) -> int:
    """Return a descriptor of what *mount* shows.

    Raises:
        StepSetupError: there is no such file.
    """
    try:
        source = open_path(mount.source)
        if not mount.inside:
            return source
        return syscalls.openat2(source, mount.inside, os.O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except KernelError as error:
        raise StepSetupError(
            "mount",
            f"cannot mount `{mount.inside or mount.source}` on `{mount.target}`: {os.strerror(error.errno or 0)}",
        ) from error


def _mask(mount: int, names: Iterable[str], scratch: int) -> None:
    for name in names:
        path = _find_beneath(mount, name)
        if path is None:
            continue
        if is_directory(path):
            attach(clone_mount(scratch, _EMPTY_DIRECTORY, attributes=MOUNT_ATTR_RDONLY | INERT), path)
        else:
            attach(clone_mount(AT_FDCWD, "/dev/null", attributes=MOUNT_ATTR_RDONLY), path)


def _find_beneath(mount: int, name: str) -> int | None:
    try:
        return syscalls.openat2(mount, name, os.O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except KernelError:  # this kernel has no such file, or the outer container hides it
        return None
