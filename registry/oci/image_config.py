"""The image config: how to run the image, what its layers unpack to, and how it came about.

The digest of this document is the image id. It is patched, never modelled away: fields that are not known here
survive reading and writing. Time stamps stay text, as a base image's must come out as they went in.

Written as BuildKit does: top-level keys in alphabetical order, inside `config` the order of Go's type, and only
fields that say something. Go reads an empty array as absent, so `[]` becomes None here.

Source: image-spec, config.md; docker-image-spec, spec/v1.3 for Healthcheck, OnBuild and Shell.
"""

from __future__ import annotations

from registry.oci.canonical_json import Fields, decode_json, encode_json, set_present
from registry.oci.platform import Platform
from registry.value import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from registry.oci.digest import Digest


@frozen
class History:
    """What made one layer, or, with *empty_layer*, what changed nothing but the config. *created* is RFC 3339."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@frozen
class HealthCheck:
    """How to tell that a container is well. *test* starts with NONE, CMD or CMD-SHELL; 0 means the runtime's default."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@frozen
class ImageConfig:
    """The config of one platform's image.

    *env* holds `NAME=value`. *diff_ids* and *history* are base first. *entrypoint*, *cmd* and *shell* are argument
    vectors, None where unset. *exposed_ports* are `port/protocol`, *volumes* paths. *extra* holds unknown top-level
    fields, *config_extra* unknown ones in `config`, as decoded JSON.
    """

    platform: Platform
    created: str | None = None
    author: str | None = None
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_directory: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str | None = None
    shell: tuple[str, ...] | None = None
    healthcheck: HealthCheck | None = None
    on_build: tuple[str, ...] = ()
    args_escaped: bool = False
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    config_extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, data: bytes, *, subject: str) -> ImageConfig:
        """Read a config; null counts as absent everywhere.

        Raises:
            ManifestInvalidError: not JSON, a value of the wrong shape, or a root filesystem not made of layers.
        """
        fields = Fields(decode_json(data, subject=subject), subject=subject)
        platform = Platform(
            fields.take_text("os") or "",
            fields.take_text("architecture") or "",
            fields.take_text("variant") or "",
            fields.take_text("os.version") or "",
        )
        run = fields.take_object("config") or Fields({}, subject=subject)
        return cls(
            platform=platform,
            created=fields.take_text("created") or None,
            author=fields.take_text("author") or None,
            env=run.take_texts("Env") or (),
            entrypoint=run.take_texts("Entrypoint") or None,
            cmd=run.take_texts("Cmd") or None,
            working_directory=run.take_text("WorkingDir") or "",
            user=run.take_text("User") or "",
            labels=run.take_mapping("Labels"),
            exposed_ports=run.take_names("ExposedPorts"),
            volumes=run.take_names("Volumes"),
            stop_signal=run.take_text("StopSignal") or None,
            shell=run.take_texts("Shell") or None,
            healthcheck=_take_healthcheck(run),
            on_build=run.take_texts("OnBuild") or (),
            args_escaped=run.take_boolean("ArgsEscaped"),
            diff_ids=_take_diff_ids(fields),
            history=tuple(
                _history_from_json(Fields(item, subject=subject, path=path))
                for path, item in fields.take_values("history")
            ),
            extra=fields.rest(),
            config_extra=run.rest(),
        )

    def to_bytes(self) -> bytes:
        """Return the document; equal configs give equal bytes."""
        value: dict[str, Any] = {
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
        }
        fields = {
            "author": self.author,
            "config": self._run_to_json(),
            "created": self.created,
            "history": [_history_to_json(entry) for entry in self.history],
            "os.version": self.platform.os_version,
            "variant": self.platform.variant,
        }
        set_present(value, fields)
        return encode_json(dict(sorted({**self.extra, **value}.items())))

    def _run_to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {}
        fields: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in sorted(self.exposed_ports)},
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint or ()),
            "Cmd": list(self.cmd or ()),
            "Volumes": {path: {} for path in sorted(self.volumes)},
            "WorkingDir": self.working_directory,
            "Labels": dict(sorted(self.labels.items())),
            "StopSignal": self.stop_signal,
            "ArgsEscaped": self.args_escaped,
            "Healthcheck": None if self.healthcheck is None else _healthcheck_to_json(self.healthcheck),
            "OnBuild": list(self.on_build),
            "Shell": list(self.shell or ()),
        }
        set_present(value, fields)
        return {**value, **{name: item for name, item in self.config_extra.items() if name not in fields}}


def _take_diff_ids(fields: Fields) -> tuple[Digest, ...]:
    rootfs = fields.take_object("rootfs")
    if rootfs is None:
        return ()
    if (rootfs.take_text("type") or "layers") != "layers":
        raise rootfs.error("type", "the only type there is is `layers`")
    return rootfs.take_digests("diff_ids")


def _take_healthcheck(run: Fields) -> HealthCheck | None:
    fields = run.take_object("Healthcheck")
    if fields is None:
        return None
    check = HealthCheck(
        test=fields.take_texts("Test") or (),
        interval_ns=fields.take_integer("Interval") or 0,
        timeout_ns=fields.take_integer("Timeout") or 0,
        start_period_ns=fields.take_integer("StartPeriod") or 0,
        start_interval_ns=fields.take_integer("StartInterval") or 0,
        retries=fields.take_integer("Retries") or 0,
    )
    # An empty object says nothing, and is not written again.
    return None if check == HealthCheck() else check


def _healthcheck_to_json(check: HealthCheck) -> dict[str, Any]:
    value: dict[str, Any] = {}
    fields = {
        "Test": list(check.test),
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
        "Retries": check.retries,
    }
    set_present(value, fields)
    return value


def _history_from_json(fields: Fields) -> History:
    return History(
        created=fields.take_text("created") or None,
        created_by=fields.take_text("created_by") or None,
        author=fields.take_text("author") or None,
        comment=fields.take_text("comment") or None,
        empty_layer=fields.take_boolean("empty_layer"),
        extra=fields.rest(),
    )


def _history_to_json(entry: History) -> dict[str, Any]:
    value: dict[str, Any] = {}
    fields = {
        "created": entry.created,
        "created_by": entry.created_by,
        "author": entry.author,
        "comment": entry.comment,
        "empty_layer": entry.empty_layer,
    }
    set_present(value, fields)
    return {**value, **{name: item for name, item in entry.extra.items() if name not in fields}}
