"""Give a step its /dev: a tmpfs with the few nodes every program expects, each bound from the host.

Nodes cannot be made in a user namespace, and need not be: binding the host's is as good.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime import mounts
from runtime.errors import KernelError, StepSetupError
from runtime.syscalls import AT_FDCWD, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY

if TYPE_CHECKING:
    from pathlib import Path

# Source: OCI runtime-spec, config-linux.md, section "Default Devices".
_NODES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS: Final = {
    "core": "/proc/kcore",
    "fd": "/proc/self/fd",
    "ptmx": "pts/ptmx",
    "stderr": "/proc/self/fd/2",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
}
_DEV_SIZE: Final = "size=64k"
_NODE_ATTRIBUTES: Final = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC


class DeviceNode(NamedTuple):
    """A further node of this side that a step is given, with the owner and mode it has here.

    Args:
        source: the node; trusted, but the last part of it is no symbolic link.
        target: where, absolute inside the root; made if missing.
        format: its S_IFMT: S_IFCHR, S_IFBLK or S_IFIFO.
        major, minor: its number; 0 and 0 for a FIFO.
    """

    source: Path
    target: str
    format: int
    major: int = 0
    minor: int = 0


def mount_devices(target: int, *, shm_size: int) -> int:
    """Mount /dev on *target*, with pts, shm of at most *shm_size* bytes, and mqueue.

    A node that the host lacks is left out. Returns the mount descriptor of /dev.

    Raises:
        KernelError: the kernel refused a mount.
    """
    device = mounts.create_mount("tmpfs", ("mode=0755", _DEV_SIZE), attributes=MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    mounts.attach(device, target)
    for name in _NODES:
        try:
            # Read-only for the inode: where the step is the host's root, its chmod would be one of the host's node.
            node = mounts.clone_mount(AT_FDCWD, f"/dev/{name}", attributes=_NODE_ATTRIBUTES)
        except KernelError:
            continue
        os.mknod(name, stat.S_IFREG | 0o666, dir_fd=device)
        mounts.attach(node, device, name)
    for name, link in _LINKS.items():
        os.symlink(link, name, dir_fd=device)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, 0o755, dir_fd=device)
    terminals = mounts.create_mount(
        "devpts", ("ptmxmode=0666", "mode=0620"), attributes=MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
    )
    mounts.attach(terminals, device, "pts")
    inert = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    shared = mounts.create_mount("tmpfs", ("mode=1777", f"size={shm_size}"), attributes=inert)
    mounts.attach(shared, device, "shm")
    mounts.attach(mounts.create_mount("mqueue", attributes=inert), device, "mqueue")
    return device


def open_node(node: DeviceNode) -> int:
    """Return the mount descriptor of a node: read-only for its inode, which keeps nobody from writing to the device.

    Raises:
        StepSetupError: there is another node by now, or none.
    """
    try:
        source = mounts.open_path(node.source, os.O_NOFOLLOW)
    except KernelError as error:
        raise StepSetupError("mount", f"cannot open `{node.source}`: {os.strerror(error.errno or 0)}") from error
    status = os.fstat(source)
    number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if stat.S_IFMT(status.st_mode) != node.format or number != (node.major, node.minor):
        raise StepSetupError("mount", f"another device by now than when the build began: `{node.source}`")
    return mounts.clone_mount(source, "", attributes=_NODE_ATTRIBUTES)
