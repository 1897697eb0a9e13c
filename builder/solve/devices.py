"""`RUN --device`: which devices a step may have, and what it is given for them.

The catalog of devices is read once, before the namespace is entered, and only for a plan that asks for some. Nothing of
the machine is shown to a step that no device file names, so a Dockerfile cannot name a path of the machine.

Source: spec, section 1.10; moby/buildkit, solver/llbsolver/vertex.go, ValidateEntitlements.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.devices.catalog import read_catalog
from builder.errors import DeviceMissingError, DeviceUnusableError, DockerfileError
from builder.events import Warned
from builder.plan.graph import RunCommand
from registry.value import frozen
from runtime.devices import DeviceNode
from runtime.mounts import BindMount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builder.devices import cdi
    from builder.devices.catalog import DeviceCatalog
    from builder.dockerfile.mounts import Device
    from builder.events import EventSink
    from builder.plan.graph import Vertex
    from builder.request import DeviceRules
    from builder.solve.ops.mounts import StepMounts

AUTO_ALLOW_ANNOTATION: Final = "org.mobyproject.buildkit.device.autoallow"
"""Says of a device that every build may have it."""

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FORMATS: Final = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "p": stat.S_IFIFO}
_RESTRICTIONS: Final = ("nosuid", "nodev", "noexec")


@frozen
class StepDevices:
    """What a step is given for its devices.

    *keep_groups* says that only the supplementary groups of the user who builds open one of the nodes. *warnings* tell
    what the step is not given, each a message.
    """

    environ: tuple[tuple[str, str], ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    binds: tuple[BindMount, ...] = ()
    groups: tuple[int, ...] = ()
    keep_groups: bool = False
    warnings: tuple[str, ...] = ()


class Devices:
    """The devices of one build. Refuses what is not allowed as soon as it is made.

    Args:
        rules: what is allowed, and where devices are described.
        vertices: the plan.
        sink: takes warnings.

    Raises:
        DockerfileError: a step asks for a device of this machine that is not allowed.
    """

    def __init__(self, rules: DeviceRules, vertices: Iterable[Vertex], sink: EventSink) -> None:
        self._catalog = read_catalog(rules.folders)
        self._sink = sink
        self._prepared: dict[tuple[Device, ...], StepDevices] = {}
        if not rules.all:
            granted = {device.name for grant in rules.grants for device in self._catalog.find(grant.name)}
            for vertex in _with_devices(vertices):
                _check_allowed(vertex, self._catalog, granted)

    def check(self, vertices: Iterable[Vertex]) -> None:
        """Refuse steps that are left to run and cannot be given their devices.

        Raises:
            DeviceMissingError: a device that is required is not described.
            DeviceUnusableError: one is described as this machine does not have it, or as pybuild cannot give it.
        """
        for vertex in _with_devices(vertices):
            self._prepare(vertex)

    def give(self, vertex: Vertex, ready: StepMounts) -> None:
        """Add to *ready* what a step gets for its devices, telling the sink what it does not get.

        It comes last, so its variables count more than others of the same names.
        """
        prepared = self._prepare(vertex)
        for message in prepared.warnings:
            span = vertex.span
            location = f"{span.source.name}:{span.line}" if span else ""
            self._sink(Warned(vertex=vertex.digest, message=message, location=location, time=time.time()))
        ready.environ += prepared.environ
        ready.binds += prepared.binds
        ready.nodes += prepared.nodes
        ready.groups += prepared.groups
        ready.keep_groups = prepared.keep_groups

    def _prepare(self, vertex: Vertex) -> StepDevices:
        wanted = vertex.op.devices if isinstance(vertex.op, RunCommand) else ()
        if wanted not in self._prepared:
            warnings: list[str] = []
            found: dict[str, cdi.Device] = {}
            for device in wanted:
                matching = self._catalog.find(device.name)
                found.update((match.name, match) for match in matching)
                if not matching and device.required:
                    raise _missing(device.name, self._catalog, vertex)
                if not matching:
                    warnings.append(f"optional device is not registered, the step runs without it: `{device.name}`")
                    warnings.extend(self._catalog.problems)
            self._prepared[wanted] = _combine(tuple(found.values()), warnings, vertex)
        return self._prepared[wanted]


def _with_devices(vertices: Iterable[Vertex]) -> Iterator[Vertex]:
    return (vertex for vertex in vertices if isinstance(vertex.op, RunCommand) and vertex.op.devices)


def _check_allowed(vertex: Vertex, catalog: DeviceCatalog, granted: set[str]) -> None:
    wanted = vertex.op.devices if isinstance(vertex.op, RunCommand) else ()
    found = [match for device in wanted for match in catalog.find(device.name)]
    forbidden = dict.fromkeys(
        device.name
        for device in found
        if device.name not in granted and device.annotations.get(AUTO_ALLOW_ANNOTATION) not in _TRUE
    )
    if forbidden:
        several = "devices {} are" if len(forbidden) > 1 else "device {} is"
        raise DockerfileError(
            f"{several.format(', '.join(forbidden))} requested by the build but not allowed",
            hint="if you trust this Dockerfile, build with " + " ".join(f"--allow device={name}" for name in forbidden),
            span=vertex.span,
        )


def _missing(name: str, catalog: DeviceCatalog, vertex: Vertex) -> DeviceMissingError:
    near = catalog.find_near(name)
    suggestion = f" (did you mean {near}?)" if near else ""
    searched = f"device files are searched in {', '.join(map(str, catalog.folders))}"
    known = f"; they describe {', '.join(catalog.devices)}" if catalog.devices else ", and describe nothing"
    problems = "".join(f"; {problem}" for problem in catalog.problems)
    return DeviceMissingError(
        f"required device is not registered{suggestion}: `{name}`",
        hint=f"{searched}{known}{problems}",
        span=vertex.span,
    )


def _combine(devices: tuple[cdi.Device, ...], warnings: list[str], vertex: Vertex) -> StepDevices:
    """Join the edits of devices: those a file shares come before those of its first device.

    Source: Container Device Interface, pkg/cdi/cache.go, InjectDevices; pkg/cdi/container-edits.go, Apply.
    """
    all_edits: list[tuple[cdi.Device, cdi.Edits]] = []
    files: set[Path] = set()
    for device in devices:
        if device.file not in files:
            files.add(device.file)
            all_edits.append((device, device.shared))
        all_edits.append((device, device.edits))
        left_out = tuple(dict.fromkeys((*device.shared.left_out, *device.edits.left_out)))
        if left_out:
            warnings.append(f"device {device.name} is given without {', '.join(left_out)}")
    nodes: dict[str, DeviceNode] = {}
    keep_groups = False
    for device, edits in all_edits:
        for described in edits.nodes:
            node, needs_groups = _node(described, device, vertex)
            nodes[node.target] = node
            keep_groups = keep_groups or needs_groups
    return StepDevices(
        environ=tuple(variable for _, edits in all_edits for variable in edits.environ),
        nodes=tuple(nodes.values()),
        binds=tuple(_bind(mount, device, vertex) for device, edits in all_edits for mount in edits.mounts),
        groups=tuple(dict.fromkeys(group for _, edits in all_edits for group in edits.groups)),
        keep_groups=keep_groups,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _node(described: cdi.DeviceNode, device: cdi.Device, vertex: Vertex) -> tuple[DeviceNode, bool]:
    """Find a node on this machine; return with it whether only a supplementary group of this process opens it."""
    path = described.host_path
    try:
        status = os.lstat(path)
    except OSError as error:
        raise _unusable(device, f"`{path}` of this machine: {os.strerror(error.errno or 0).lower()}", vertex) from error
    kind = stat.S_IFMT(status.st_mode)
    if kind not in _FORMATS.values():
        raise _unusable(device, f"no device node: `{path}`", vertex)
    number = (0, 0) if kind == stat.S_IFIFO else (os.major(status.st_rdev), os.minor(status.st_rdev))
    if described.type is not None and _FORMATS[described.type] != kind:
        raise _unusable(device, f"not of the type that its file says, {described.type}: `{path}`", vertex)
    if described.number is not None and described.number != number:
        said = ":".join(map(str, described.number))
        raise _unusable(device, f"not of the number that its file says, {said}: `{path}`", vertex)
    if not {"r", "w"} <= set(described.permissions):
        # Only a device cgroup could tell reading from writing, and those belong to root.
        allowed = described.permissions or "none"
        raise _unusable(device, f"its file limits the permissions to {allowed}, which needs root: `{path}`", vertex)
    group_bits, other_bits = status.st_mode >> 3 & 0o6, status.st_mode & 0o6
    needs_groups = bool(group_bits & ~other_bits) and _is_supplementary(status.st_gid)
    return (
        DeviceNode(source=Path(path), target=described.path, format=kind, major=number[0], minor=number[1]),
        needs_groups,
    )


def _is_supplementary(gid: int) -> bool:
    """Return whether a group opens things for this process that its user and primary group do not."""
    return os.geteuid() != 0 and gid != os.getegid() and gid in os.getgroups()


def _bind(mount: cdi.DeviceMount, device: cdi.Device, vertex: Vertex) -> BindMount:
    try:
        os.stat(mount.host_path)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise _unusable(device, f"`{mount.host_path}` of this machine: {reason}", vertex) from error
    return BindMount(
        source=Path(mount.host_path),
        target=mount.path,
        read_only="ro" in mount.options,
        restrictions=tuple(word for word in _RESTRICTIONS if word in mount.options),
    )


def _unusable(device: cdi.Device, reason: str, vertex: Vertex) -> DeviceUnusableError:
    return DeviceUnusableError(
        f"device {device.name} cannot be given, {reason}",
        hint=f"make its file anew, or correct it: {device.file}",
        span=vertex.span,
    )
