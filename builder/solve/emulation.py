"""Whether this machine executes the programs of another platform: natively, or through binfmt_misc.

Source: Linux, Documentation/admin-guide/binfmt-misc.rst; elf(5) for the header; the numbers of machines are those of
`linux/elf-em.h`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.errors import EmulationMissingError
from builder.plan.graph import RunCommand
from registry.oci.platform import Platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builder.plan.graph import Vertex

BINFMT_FOLDER: Final = Path("/proc/sys/fs/binfmt_misc")
"""Where the kernel lists its handlers, if it has any."""

_MACHINES: Final = {
    "386": (1, "little", 3),
    "amd64": (2, "little", 62),
    "arm": (1, "little", 40),
    "arm64": (2, "little", 183),
    "loong64": (2, "little", 258),
    "mips": (1, "big", 8),
    "mipsle": (1, "little", 8),
    "mips64": (2, "big", 8),
    "mips64le": (2, "little", 8),
    "ppc64le": (2, "little", 21),
    "ppc64": (2, "big", 21),
    "riscv64": (2, "little", 243),
    "s390x": (2, "big", 22),
}
"""ELF class, byte order and machine of an architecture."""

_EXECUTABLE: Final = 2


def check_emulation(vertices: Iterable[Vertex], host: Platform, *, folder: Path = BINFMT_FOLDER) -> None:
    """Refuse steps for a platform that nothing here executes, before anything runs.

    Args:
        vertices: what is left to do.
        host: the platform of this machine.
        folder: where handlers are listed.

    Raises:
        EmulationMissingError: there is no handler, or one that does not work inside an image.
    """
    checked: set[str] = set()
    for vertex in vertices:
        if not isinstance(vertex.op, RunCommand) or not vertex.op.platform or vertex.op.platform in checked:
            continue
        checked.add(vertex.op.platform)
        platform = parse_platform(vertex.op.platform)
        if is_native(platform, host) or has_handler(platform.architecture, folder):
            continue
        error = EmulationMissingError(
            f"this machine, {host}, cannot run commands for {platform}: `{vertex.text}`",
            hint="let an administrator install qemu-user-static and binfmt-support (Debian, Ubuntu), build on such a "
            "machine, or run the command in a stage FROM --platform=$BUILDPLATFORM",
            span=vertex.span,
        )
        raise error


def is_native(platform: Platform, host: Platform) -> bool:
    """Tell whether *host* executes programs of *platform* by itself."""
    return platform.architecture == host.architecture or platform.matches(host)


def has_handler(architecture: str, folder: Path = BINFMT_FOLDER) -> bool:
    """Tell whether the kernel has an interpreter for an architecture that works in every root file system."""
    header = _elf_header(architecture)
    if header is None:
        return False
    try:
        names = os.listdir(folder)
        if "status" in names and (folder / "status").read_text().strip() != "enabled":
            return False
        return any(_fits(folder / name, header) for name in names if name not in {"register", "status"})
    except OSError:
        return False


def _elf_header(architecture: str) -> bytes | None:
    machine = _MACHINES.get(architecture)
    if machine is None:
        return None
    size, order, number = machine
    data = 1 if order == "little" else 2
    numbers = b"".join(part.to_bytes(2, "little" if data == 1 else "big") for part in (_EXECUTABLE, number))
    return b"\x7fELF" + bytes([size, data, 1]) + bytes(9) + numbers


def _fits(handler: Path, header: bytes) -> bool:
    """Tell whether a handler is on, takes *header*, and was opened when it was registered (flag F)."""
    try:
        lines = handler.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    fields = dict(line.partition(" ")[::2] for line in lines)
    if lines[:1] != ["enabled"] or "F" not in fields.get("flags:", "") or "magic" not in fields:
        return False
    offset = int(fields.get("offset", "0"))
    magic = bytes.fromhex(fields["magic"])
    mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
    part = header[offset : offset + len(magic)].ljust(len(magic), b"\0")
    return all(byte & keep == wanted & keep for byte, keep, wanted in zip(part, mask, magic, strict=False))
