"""The devices of this machine, by the files in its device folders.

A *device folder* holds files of the Container Device Interface, `*.json` and `*.yaml`. Of two files in different folders
that describe one device, the later folder's counts; in one folder neither does. A file that cannot be used is a *problem*,
which leaves the others in use.

Source: Container Device Interface, SPEC.md; pkg/cdi/cache.go, refresh; pkg/cdi/spec-dirs.go.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from builder.devices.cdi import read_devices
from builder.devices.name import parse_device_name
from builder.dockerfile.suggest import nearest
from builder.errors import DeviceFileError
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.devices.cdi import Device

CLASS_ANNOTATION: Final = "org.mobyproject.buildkit.device.class"
"""Names the class of a device: a word that stands for all devices of its kind with the same one."""

_SUFFIXES: Final = (".json", ".yaml")


@frozen
class DeviceCatalog:
    """Devices by qualified name, in the order of the names, and the problems, each a message."""

    folders: tuple[Path, ...] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def find(self, name: str) -> tuple[Device, ...]:
        """Return the devices that a device name stands for, none if there is no such device.

        Source: moby/buildkit, solver/llbsolver/cdidevices/manager.go, parseDevice.
        """
        parts = parse_device_name(name)
        if parts is None:
            return ()
        of_kind = [device for device in self.devices.values() if device.kind == parts.kind]
        if not parts.name:
            return tuple(of_kind[:1])
        if parts.name == "*":
            return tuple(of_kind)
        if name in self.devices:
            return (self.devices[name],)
        return tuple(device for device in of_kind if device.annotations.get(CLASS_ANNOTATION) == parts.name)

    def find_near(self, name: str) -> str | None:
        """Return the device name that was probably meant by one that stands for nothing."""
        kinds = dict.fromkeys(device.kind for device in self.devices.values())
        return nearest(name, (*self.devices, *kinds) if "=" in name else (*kinds, *self.devices))


def read_catalog(folders: Sequence[Path]) -> DeviceCatalog:
    """Read the files of some folders, the one that counts most last; a folder that is not there is empty."""
    found: dict[str, tuple[int, Device]] = {}
    conflicts: dict[str, int] = {}
    problems: list[str] = []
    for priority, folder in enumerate(folders):
        for file in _list_files(folder, problems):
            try:
                devices = read_devices(file)
            except DeviceFileError as error:
                problems.append(error.message)
                continue
            for device in devices:
                known = found.get(device.name)
                if known is not None and known[0] == priority:
                    problems.append(f"device {device.name} is described twice: `{known[1].file}`, `{file}`")
                    conflicts[device.name] = priority
                else:
                    found[device.name] = (priority, device)
    usable = {name: device for name, (priority, device) in found.items() if conflicts.get(name) != priority}
    return DeviceCatalog(folders=tuple(folders), devices=dict(sorted(usable.items())), problems=tuple(problems))


def _list_files(folder: Path, problems: list[str]) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problems.append(f"device folder `{folder}` cannot be read, {os.strerror(error.errno or 0).lower()}")
        return []
    problems.extend(
        f"device file `{folder / name}` is not read, its name has to end in .yaml"
        for name in names
        if name.endswith(".yml")
    )
    return [folder / name for name in names if name.endswith(_SUFFIXES) and not (folder / name).is_dir()]
