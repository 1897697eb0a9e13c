"""Give a step its /dev: a tmpfs with the few nodes every program expects, each bound from the host.

Nodes cannot be made in a user namespace, and need not be: binding the host's is as good.
"""

from __future__ import annotations

import os
from typing import Final

from runtime import mounts
from runtime.errors import KernelError
from runtime.syscalls import AT_FDCWD, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY

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


def mount_devices(target: int, *, shm_size: int) -> None:
    """Mount /dev on *target*, with pts, shm of at most *shm_size* bytes, and mqueue.

    A node that the host lacks is left out.

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
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=device))
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
