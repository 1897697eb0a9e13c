"""The values of `RUN --mount` and `RUN --device`.

A *mount flag* is the text of one `--mount`: comma-separated `key=value` fields, quoted by the rules of CSV. Variables
in it are only known when the step is planned, so parsing keeps the fields and `MountFlag.expand` makes of them a
*mount*: one of five types.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from builder.dockerfile.parser import shorten
from builder.dockerfile.suggest import did_you_mean
from builder.errors import DockerfileError
from registry.value import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.source import Span

Sharing = Literal["shared", "private", "locked"]
"""What a second user of a cache at the same time gets: the same, a copy, or a wait."""


@frozen
class BindMount:
    """Files of another place. *from_* None is the build context. Writes to a writable one are thrown away."""

    target: str
    from_: str | None = None
    source: str = "/"
    readonly: bool = True


@frozen
class CacheMount:
    """A directory that outlives the build. *id* None means its target; *from_* names what it starts with, if anything.

    *mode*, *uid* and *gid* are None when not given; they then are 0755, 0 and 0.
    """

    target: str
    id: str | None = None
    sharing: Sharing = "shared"
    from_: str | None = None
    source: str = "/"
    readonly: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@frozen
class TmpfsMount:
    """An empty file system in memory. *size* is in bytes, None without a limit."""

    target: str
    size: int | None = None
    readonly: bool = False


@frozen
class SecretMount:
    """A secret as a file, as the environment variable *env*, or both. *target* is None when it is no file."""

    id: str
    target: str | None
    env: str | None = None
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@frozen
class SshMount:
    """The socket of an ssh agent. *target* None is the default place."""

    id: str = "default"
    target: str | None = None
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount
"""What a mount flag stands for. Targets are as written: relative ones are below the working directory."""

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARINGS: tuple[Sharing, ...] = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    "type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode", "uid",
    "gid", "env",
)  # fmt: skip
_BARE_KEYS = frozenset({"readonly", "readwrite", "required"})
_ONLY_FOR = {
    "required": ("secret", "ssh"),
    "size": ("tmpfs",),
    "env": ("secret",),
}
_FILE_INFO_TYPES = frozenset({"cache", "secret", "ssh"})
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SIZE = re.compile(r"([0-9]{1,18}+(?:\.[0-9]{1,18}+)?+) ?([kmgtp]?)i?b?", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_MAX_32 = 2**32 - 1
_CSV_FIELD = re.compile(r'"((?:[^"]++|"")*+)"(?=,|\Z)|([^",]*+)(?=,|\Z)')


class MountField(NamedTuple):
    """One `key=value`: the key as written and its official name, the value or None for a key alone."""

    written: str
    key: str
    value: str | None


@frozen
class MountFlag:
    """One `--mount` as written. *from_* is the stage, image or named context it needs, which takes no variables."""

    text: str
    fields: tuple[MountField, ...]
    span: Span = field(repr=False, compare=False)

    @property
    def from_(self) -> str | None:
        """The `from` of the mount, or None."""
        for entry in reversed(self.fields):
            if entry.key == "from":
                return entry.value or None
        return None

    def expand(self, expand: Callable[[str], str]) -> Mount:
        """Return the mount, with *expand* applied to every value but that of `from`.

        Raises:
            DockerfileError: a value is not what its key or the type of the mount allows, or a target lacks.
        """
        values: dict[str, str | None] = {}
        for entry in self.fields:
            if entry.key == "readwrite":
                values.pop("readonly", None)
            elif entry.key == "readonly":
                values.pop("readwrite", None)
            literal = entry.value is None or entry.key == "from"
            values[entry.key] = entry.value if literal else expand(entry.value or "")
        return _Values(self, values).make()


def parse_mount(text: str, span: Span) -> MountFlag:
    """Read one `--mount`. A flag without variables is checked whole, one with them as far as it can be.

    Raises:
        DockerfileError: the CSV is broken, a key is unknown or lacks a value, `from` holds a variable.

    Source: moby/buildkit, instructions/commands_runmount.go; Dockerfile reference, RUN --mount.
    """
    fields = tuple([_parse_field(part, span) for part in split_csv(text, "mounts", span)])
    flag = MountFlag(text=text, fields=fields, span=span)
    if not any(entry.value is not None and re.search(r"[$'\"\\`]", entry.value) for entry in fields):
        flag.expand(lambda value: value)
    return flag


@frozen
class Device:
    """A device by its CDI name."""

    name: str
    required: bool = False


def parse_device(text: str, span: Span) -> Device:
    """Read one `--device`: `name[,required]`, or `name=…,required=…`.

    Raises:
        DockerfileError: the CSV is broken, a key is unknown, the name lacks or is given twice.

    Source: moby/buildkit, instructions/commands_rundevice.go.
    """
    name, required = "", False
    for part in split_csv(text, "devices", span):
        key, equals, value = part.partition("=")
        match key.lower():
            case "required":
                required = _parse_boolean(key, value, span) if equals else True
            case "name" if equals:
                if name:
                    raise DockerfileError(
                        f"device name already set to {shorten(name)}", hint="give one name for each --device", span=span
                    )
                name = value
            case _ if not name:
                name = part
            case other:
                raise DockerfileError(
                    f"unexpected key '{shorten(other)}' in '{shorten(part)}'{did_you_mean(other, ('name', 'required'))}",
                    hint="a device takes a name and required",
                    span=span,
                )
    if not name:
        raise DockerfileError("device without a name", hint="write --device=vendor.com/class=name", span=span)
    return Device(name=name, required=required)


def split_csv(text: str, subject: str, span: Span) -> tuple[str, ...]:
    """Split one record of comma-separated values; a quoted field may hold commas and doubled quotes.

    Raises:
        DockerfileError: a quote stands inside an unquoted field or is not closed.

    Source: RFC 4180, section 2.
    """
    fields: list[str] = []
    position = 0
    while True:
        match = _CSV_FIELD.match(text, position)
        if match is None:
            raise DockerfileError(
                f"failed to parse csv {subject}: misplaced quote in `{shorten(text)}`",
                hint='quote a whole field, `"key=value"`, and double the quotes inside',
                span=span,
            )
        quoted, plain = match.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        if match.end() == len(text):
            return tuple(fields)
        position = match.end() + 1


def _parse_field(text: str, span: Span) -> MountField:
    written, equals, value = text.partition("=")
    key = written.lower()
    key = _ALIASES.get(key, key)
    if not equals and key not in _BARE_KEYS:
        hint = f"write {key}=value" if key in _KEYS else f"known keys are {', '.join(_KEYS)}"
        raise DockerfileError(f"invalid field '{shorten(text)}' must be a key=value pair", hint=hint, span=span)
    if key not in _KEYS:
        raise DockerfileError(
            f"unexpected key '{shorten(written)}' in '{shorten(text)}'{did_you_mean(written, (*_KEYS, *_ALIASES))}",
            hint=f"known keys are {', '.join(_KEYS)}",
            span=span,
        )
    if key == "from" and "$" in value[:-1]:
        raise DockerfileError(
            f"'{key}' doesn't support variable expansion, define alias stage instead",
            hint="add `FROM ${…} AS name` with a global ARG and write from=name",
            span=span,
        )
    return MountField(written, key, value if equals else None)


def _parse_boolean(key: str, value: str, span: Span) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise DockerfileError(f"invalid value for {key}: {shorten(value)}", hint="write true or false", span=span)


class _Values:
    """The expanded values of one mount flag on the way to a mount."""

    def __init__(self, flag: MountFlag, values: dict[str, str | None]) -> None:
        self.flag = flag
        self.values = values
        kind = values.get("type", "bind") or ""
        self.type = kind.lower()
        if self.type not in _TYPES:
            raise self._error(
                f'unsupported mount type "{shorten(kind)}"{did_you_mean(kind, _TYPES)}',
                f"known types are {', '.join(_TYPES)}",
            )

    def make(self) -> Mount:
        self._check_keys()
        match self.type:
            case "bind":
                return BindMount(
                    target=self._required_target(),
                    from_=self.flag.from_,
                    source=self.values.get("source") or "/",
                    readonly=self._readonly(default=True),
                )
            case "cache":
                return CacheMount(
                    target=self._required_target(),
                    id=self.values.get("id") or None,
                    sharing=self._sharing(),
                    from_=self.flag.from_,
                    source=self.values.get("source") or "/",
                    readonly=self._readonly(default=False),
                    mode=self._number("mode", 8),
                    uid=self._number("uid", 10),
                    gid=self._number("gid", 10),
                )
            case "tmpfs":
                return TmpfsMount(
                    target=self._required_target(), size=self._size(), readonly=self._readonly(default=False)
                )
            case "secret":
                return self._secret()
            case _:
                return SshMount(
                    id=self.values.get("id") or "default",
                    target=self._target(),
                    required=self._boolean("required"),
                    mode=self._number_or("mode", 8, 0o600),
                    uid=self._number_or("uid", 10, 0),
                    gid=self._number_or("gid", 10, 0),
                )

    def _secret(self) -> SecretMount:
        identifier, source, target = self.values.get("id"), self.values.get("source"), self._target()
        env = self.values.get("env") or None
        if identifier and source:
            raise self._error("both source and id can't be set", "for secrets, source is another word for id")
        name = identifier or source or (target or "").rstrip("/").rpartition("/")[2]
        if not name:
            raise self._error("invalid secret mount. one of source, target required", "write id=name")
        if target is None and env is None:
            target = f"/run/secrets/{name.rstrip('/').rpartition('/')[2]}"
        return SecretMount(
            id=name,
            target=target,
            env=env,
            required=self._boolean("required"),
            mode=self._number_or("mode", 8, 0o400),
            uid=self._number_or("uid", 10, 0),
            gid=self._number_or("gid", 10, 0),
        )

    def _check_keys(self) -> None:
        for key, types in _ONLY_FOR.items():
            if key in self.values and self.type not in types:
                raise self._error(
                    f"unexpected key '{key}' for mount type '{self.type}'",
                    f"{key} belongs to type={' or '.join(types)}",
                )
        for key in ("mode", "uid", "gid"):
            if key in self.values and self.type not in _FILE_INFO_TYPES:
                raise self._error(f'{key} not allowed for "{self.type}" type mounts', f"remove {key}")
        if self.type == "secret" and self.values.get("from"):
            raise self._error("secret mount should not have a from", "remove from")
        if self.values.get("sharing") and self.type != "cache":
            raise self._error(f"invalid cache sharing set for {self.type} mount", "sharing belongs to type=cache")

    def _target(self) -> str | None:
        target = self.values.get("target") or None
        if target is not None and target.startswith("/") and not _has_name(target):
            raise self._error(f'invalid mount target "{shorten(target)}"', "mount below the root directory")
        return target

    def _required_target(self) -> str:
        target = self._target()
        if target is None:
            raise self._error(f'invalid mount target "": {self.type} mount requires a target', "write target=/path")
        return target

    def _readonly(self, *, default: bool) -> bool:
        if "readonly" in self.values:
            return self._boolean("readonly")
        if "readwrite" in self.values:
            return not self._boolean("readwrite")
        return default

    def _boolean(self, key: str) -> bool:
        if key not in self.values:
            return False
        value = self.values[key]
        return value is None or _parse_boolean(key, value, self.flag.span)

    def _sharing(self) -> Sharing:
        value = self.values.get("sharing") or "shared"
        for sharing in _SHARINGS:
            if sharing == value.lower():
                return sharing
        raise self._error(
            f'unsupported sharing value "{shorten(value)}"{did_you_mean(value, _SHARINGS)}',
            f"known values are {', '.join(_SHARINGS)}",
        )

    def _number_or(self, key: str, base: Literal[8, 10], default: int) -> int:
        number = self._number(key, base)
        return default if number is None else number

    def _number(self, key: str, base: Literal[8, 10]) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        digits = "01234567" if base == 8 else "0123456789"
        number = int(value, base) if value and len(value) <= 24 and not value.strip(digits) else _MAX_32 + 1
        if number > _MAX_32:
            raise self._error(
                f"invalid value {shorten(value)} for {key}",
                "write an octal number" if base == 8 else "write a number; names are not looked up here",
            )
        return number

    def _size(self) -> int | None:
        value = self.values.get("size")
        if value is None:
            return None
        match = _SIZE.fullmatch(value)
        if match is None:
            raise self._error(f"invalid value for size: {shorten(value)}", "write a number with k, m or g")
        unit = 1024 ** _UNITS[match[2].lower()]
        return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit

    def _error(self, message: str, hint: str) -> DockerfileError:
        return DockerfileError(message, hint=hint, span=self.flag.span)


def _has_name(path: str) -> bool:
    """Tell whether an absolute path is something below the root once `.` and `..` are resolved."""
    depth = 0
    for part in path.split("/"):
        if part == "..":
            depth = max(0, depth - 1)
        elif part not in {"", "."}:
            depth += 1
    return depth > 0
