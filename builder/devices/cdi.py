"""One file of the Container Device Interface: what a container needs to be given with some devices.

*edits* are what a container gets: variables, device nodes, mounts, groups. A file has edits for each of its *devices* and
*shared* ones, which come with every one of them. What pybuild cannot give, hooks above all, is kept as text to tell of.

    {"cdiVersion": "0.6.0", "kind": "vendor.com/class", "annotations": {…},
     "containerEdits": {…},
     "devices": [{"name": "one", "annotations": {…}, "containerEdits": {
         "env": ["NAME=VALUE"], "deviceNodes": [{"path": …, "hostPath": …, "type": "c", "major": …, "minor": …,
         "permissions": "rw"}], "mounts": [{"hostPath": …, "containerPath": …, "options": ["ro"]}],
         "additionalGIDs": [44], "hooks": […], "intelRdt": {…}, "netDevices": […]}}]}

Source: Container Device Interface, SPEC.md and specs-go/config.go; pkg/cdi/container-edits.go for what is valid.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING, Any, Final, Literal

from builder.devices.name import is_kind, is_name
from builder.errors import DeviceFileError
from registry.errors import ManifestInvalidError
from registry.oci.canonical_json import Fields, decode_json
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NodeType = Literal["b", "c", "p"]
"""Block device, character device, FIFO."""

MountOption = Literal["ro", "nosuid", "nodev", "noexec"]
"""What a mount may be told to forbid."""

VERSIONS: Final = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
"""The versions of the interface that this module knows. Source: CDI, specs-go/version.go."""

LARGEST_FILE: Final = 1 << 20
"""Bytes of the largest file that is read."""

_SUBJECT: Final = "device file"
_LARGEST_ID: Final = 2**32 - 2
_NODE_TYPES: Final[Mapping[str, NodeType]] = {"b": "b", "c": "c", "u": "c", "p": "p"}
_OPTIONS: Final[tuple[MountOption, ...]] = ("ro", "nosuid", "nodev", "noexec")
_UNDO: Final[Mapping[str, MountOption]] = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec"}
# A step has mounts of its own, so nothing propagates; times of access are nobody's business in a build.
_IGNORED_OPTIONS: Final = frozenset({
    "bind", "rbind", "defaults", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable",
    "runbindable", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
    "nostrictatime",
})  # fmt: skip
_BIND_TYPES: Final = frozenset({"", "bind", "none"})
_HOOKS: Final = frozenset({"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"})


@frozen
class DeviceNode:
    """A node that a container is given.

    *path* is where, clean and absolute; *host_path* the node of this machine it is. *type* and *number*, major and
    minor, are None where the file leaves them to the node. *permissions* are some of r, w and m.
    """

    path: str
    host_path: str
    type: NodeType | None = None
    number: tuple[int, int] | None = None
    permissions: str = "rwm"


@frozen
class DeviceMount:
    """A file or directory of this machine, *host_path*, that a container is shown at *path*, clean and absolute."""

    path: str
    host_path: str
    options: frozenset[MountOption] = frozenset()


@frozen
class Edits:
    """What a container gets. *left_out* names what belongs to it and cannot be given, in words."""

    environ: tuple[tuple[str, str], ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[DeviceMount, ...] = ()
    groups: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()


@frozen
class Device:
    """A device: its qualified *name*, its edits, the *shared* ones of its *file*, the annotations of both."""

    name: str
    edits: Edits
    shared: Edits
    file: Path
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The part of the name before the `=`."""
        return self.name.partition("=")[0]


def read_devices(file: Path) -> tuple[Device, ...]:
    """Read one file, JSON or YAML by its name, and return its devices in their order.

    Raises:
        DeviceFileError: it cannot be read, or breaks the specification.
    """
    try:
        return tuple(_devices(_decode(file, _read(file)), file))
    except OSError as error:
        raise DeviceFileError(file, os.strerror(error.errno or 0).lower()) from error
    except ManifestInvalidError as error:
        raise DeviceFileError(file, error.reason, path=error.path) from error


def _read(file: Path) -> bytes:
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # it may be a FIFO
    with open(fd, "rb") as opened:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise DeviceFileError(file, "not a file")
        data = opened.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise DeviceFileError(file, f"larger than {LARGEST_FILE} bytes")
    return data


def _decode(file: Path, data: bytes) -> Any:
    if file.suffix == ".json":
        return decode_json(data, subject=_SUBJECT)
    import yaml  # noqa: PLC0415  (only with a YAML file)

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where the C library was there to build it
    try:
        return yaml.load(data, Loader=loader)  # noqa: S506  (both are the safe loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DeviceFileError(file, f"not YAML, {error.problem or error.context}{where}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeviceFileError(file, f"not YAML, {first}") from error


def _devices(value: object, file: Path) -> Iterator[Device]:
    fields = Fields(value, subject=_SUBJECT)
    version = fields.require_text("cdiVersion")
    if version.removeprefix("v") not in VERSIONS:
        raise fields.error("cdiVersion", f"unknown version {version}, known are {VERSIONS[0]} to {VERSIONS[-1]}")
    kind = fields.require_text("kind")
    if not is_kind(kind):
        raise fields.error("kind", f"not of the form vendor.com/class, {kind}")
    annotations = _take_annotations(fields)
    shared_fields = fields.take_object("containerEdits")
    shared = Edits() if shared_fields is None else _edits(shared_fields)
    names: set[str] = set()
    for path, item in fields.take_values("devices"):
        device = Fields(item, subject=_SUBJECT, path=path)
        name = device.require_text("name")
        if not is_name(name):
            raise device.error("name", f"not a name of a device, {name}")
        if name in names:
            raise device.error("name", f"a second device of the name {name}")
        names.add(name)
        own = {**annotations, **_take_annotations(device)}
        edits = device.take_object("containerEdits")
        if edits is None or not edits.rest():
            raise device.error("containerEdits", "required field is missing")
        yield Device(name=f"{kind}={name}", edits=_edits(edits), shared=shared, file=file, annotations=own)
    if not names:
        raise fields.error("devices", "required field is missing")


def _take_annotations(fields: Fields) -> dict[str, str]:
    """Take an object of texts; the truth values and numbers that YAML makes of unquoted ones are texts again."""
    value = fields.take_value("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fields.error("annotations", "expected an object")
    texts: dict[str, str] = {}
    for name, item in value.items():
        match item:
            case bool():
                texts[str(name)] = "true" if item else "false"
            case str() | int() | float():
                texts[str(name)] = str(item)
            case _:
                raise fields.error(f"annotations.{name}", "expected a string")
    return texts


def _edits(fields: Fields) -> Edits:
    return Edits(
        environ=tuple(_variables(fields)),
        nodes=tuple(
            _node(Fields(item, subject=_SUBJECT, path=path)) for path, item in fields.take_values("deviceNodes")
        ),
        mounts=tuple(_mount(Fields(item, subject=_SUBJECT, path=path)) for path, item in fields.take_values("mounts")),
        groups=tuple(_groups(fields)),
        left_out=tuple(dict.fromkeys(_left_out(fields))),
    )


def _variables(fields: Fields) -> Iterator[tuple[str, str]]:
    for position, text in enumerate(fields.take_texts("env") or ()):
        name, equals, value = text.partition("=")
        if not name or not equals or not _is_given(text):
            raise fields.error(f"env[{position}]", "expected NAME=VALUE")
        yield name, value


def _node(fields: Fields) -> DeviceNode:
    path = _take_path(fields, "path")
    host_path = _take_path(fields, "hostPath", default=path)
    word = fields.take_text("type") or ""
    if word and word not in _NODE_TYPES:
        raise fields.error("type", f"expected one of {', '.join(_NODE_TYPES)}, found {word}")
    major, minor = fields.take_integer("major", minimum=0), fields.take_integer("minor", minimum=0)
    permissions = fields.take_text("permissions") or "rwm"
    if permissions != "none" and permissions.strip("rwm"):
        raise fields.error("permissions", f"expected some of r, w and m, found {permissions}")
    return DeviceNode(
        path=path,
        host_path=host_path,
        type=_NODE_TYPES.get(word),
        number=(major, minor or 0) if major else None,
        permissions="" if permissions == "none" else permissions,
    )


def _mount(fields: Fields) -> DeviceMount:
    host_path, path = _take_path(fields, "hostPath"), _take_path(fields, "containerPath")
    kind = fields.take_text("type") or ""
    if kind not in _BIND_TYPES:
        raise fields.error("type", f"a mount of something else than files of the machine, {kind}")
    options: set[MountOption] = set()
    for position, option in enumerate(fields.take_texts("options") or ()):
        # rro and its like reach the mounts below too, which everything does here.
        plain = option if option in _UNDO or option in _OPTIONS else option.removeprefix("r")
        for known in _OPTIONS:
            if plain == known:
                options.add(known)
        if plain in _UNDO:
            options.discard(_UNDO[plain])
        elif plain not in _OPTIONS and option not in _IGNORED_OPTIONS:
            raise fields.error(f"options[{position}]", f"unknown mount option, {option}")
    return DeviceMount(path=path, host_path=host_path, options=frozenset(options))


def _take_path(fields: Fields, name: str, *, default: str | None = None) -> str:
    """Take an absolute path below the root directory, and return it clean."""
    text = fields.take_text(name) or default
    if not text:
        raise fields.error(name, "required field is missing")
    clean = "/" + posixpath.normpath(text).lstrip("/")
    if not text.startswith("/") or clean == "/" or not _is_given(text):
        raise fields.error(name, f"expected an absolute path below the root directory, found {text!a}")
    return clean


def _is_given(text: str) -> bool:
    """Return whether the kernel can be given *text*: no zero byte, no half of a character of UTF-16."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _groups(fields: Fields) -> Iterator[int]:
    for path, item in fields.take_values("additionalGIDs"):
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= _LARGEST_ID:
            raise ManifestInvalidError(subject=_SUBJECT, path=path, reason="expected a group id")
        if item:  # Source: CDI, pkg/cdi/container-edits.go, Apply: root's group is never added
            yield item


def _left_out(fields: Fields) -> Iterator[str]:
    """Name the edits that are not carried out; the rest of *fields* is among them, so it has to be taken before."""
    for path, item in fields.take_values("hooks"):
        hook = Fields(item, subject=_SUBJECT, path=path)
        when, program = hook.require_text("hookName"), _take_path(hook, "path")
        if when not in _HOOKS:
            raise hook.error("hookName", f"unknown hook {when}")
        # The first word after the name of the program says what it does: `nvidia-cdi-hook update-ldcache`.
        words = [str(word) for _, word in hook.take_values("args")][1:2]
        yield f"its {when} hook `{' '.join((posixpath.basename(program), *words))}`"
    for path, item in fields.take_values("netDevices"):
        device = Fields(item, subject=_SUBJECT, path=path)
        yield f"the network interface `{device.require_text('hostInterfaceName')}`"
    if fields.take_object("intelRdt") is not None:
        yield "its share of the processor's cache (`intelRdt`)"
    yield from (f"`{name}`, which pybuild does not know" for name in fields.rest())
