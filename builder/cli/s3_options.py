"""`type=s3` of `--cache-from` and `--cache-to`: the attributes of BuildKit, and access keys from where AWS's tools have them.

Source: BuildKit, cache/remotecache/s3/s3.go; AWS CLI, User Guide, sections Environment variables and Configuration and
credential file settings.
"""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from builder.cli.option_values import parse_duration, parse_switch
from builder.errors import UsageError
from registry.s3 import AccessKey, Bucket

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.cli.environment import Environment

PLACE_KEYS: Final = (
    "bucket", "region", "prefix", "blobs_prefix", "manifests_prefix", "name", "endpoint_url", "use_path_style",
    "access_key_id", "secret_access_key", "session_token", "disable_accept_encoding", "touch_refresh",
    "upload_parallelism",
)  # fmt: skip
"""What says where the cache is, alike for both options. Nothing follows from *disable_accept_encoding*: that header is
never signed."""


def parse_bucket(option: str, text: str, values: Mapping[str, str], environment: Environment) -> Bucket:
    """Return the place that the attributes of one option name.

    Args:
        option: for messages.
        text: as given, for messages, which do not show it where it holds a secret.
        values: its attributes.
        environment: has the variables and files of AWS's tools.

    Raises:
        UsageError: bucket or region are missing, or a value cannot be.
    """
    variables = environment.variables
    settings = _AwsSettings(environment)
    name = values.get("bucket") or variables.get("AWS_BUCKET")
    if not name:
        hint = "write it like type=s3,bucket=NAME,region=REGION, or set AWS_BUCKET"
        raise UsageError(f"option {option}: a bucket= is missing: `{_shown(text, values)}`", hint=hint)
    endpoint = values.get("endpoint_url", "")
    if endpoint and (urlsplit(endpoint).scheme not in {"http", "https"} or not urlsplit(endpoint).netloc):
        raise UsageError(f"option {option}: endpoint_url is no http or https address: `{endpoint}`")
    region = values.get("region") or settings.region()
    if not region:
        hint = "add region=, or set AWS_REGION"
        raise UsageError(f"option {option}: a region= is missing: `{_shown(text, values)}`", hint=hint)
    return Bucket(
        name=name,
        region=region,
        prefix=values.get("prefix", ""),
        blobs_prefix=values.get("blobs_prefix", "blobs/"),
        manifests_prefix=values.get("manifests_prefix", "manifests/"),
        names=tuple(part for part in values.get("name", "").split(";") if part) or ("pybuild",),
        endpoint=endpoint,
        path_style=parse_switch(option, "use_path_style", values),
        touch_seconds=parse_duration(option, "touch_refresh", values, default=24 * 3600.0),
        parallelism=_parse_count(option, "upload_parallelism", values, default=4),
        access_key=_given_key(option, values) or settings.access_key(),
    )


def _parse_count(option: str, key: str, values: Mapping[str, str], *, default: int) -> int:
    text = values.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1000):
        raise UsageError(f"option {option}: {key} is a number from 1 on, not `{text}`")
    return int(text)


def _given_key(option: str, values: Mapping[str, str]) -> AccessKey | None:
    key_id, secret = values.get("access_key_id"), values.get("secret_access_key")
    if bool(key_id) is not bool(secret):
        raise UsageError(f"option {option}: access_key_id and secret_access_key need each other")
    if not key_id or not secret:
        return None
    return AccessKey(id=key_id, secret=secret, session_token=values.get("session_token", ""))


def _shown(text: str, values: Mapping[str, str]) -> str:
    return "type=s3" if "secret_access_key" in values or "session_token" in values else text


class _AwsSettings:
    """What the variables and files of AWS's tools say; the files are read when they are asked."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._variables = environment.variables
        self._profile = self._variables.get("AWS_PROFILE") or "default"

    def access_key(self) -> AccessKey | None:
        """Find an access key: in the variables, then in the file of credentials, then in that of settings."""
        found = _access_key({name.lower(): value for name, value in self._variables.items()})
        if found is not None:
            return found
        return _access_key(self._read("credentials")) or _access_key(self._read("config"))

    def region(self) -> str:
        """Find the region; the empty text if nothing names one."""
        variables = self._variables
        return (
            variables.get("AWS_REGION")
            or variables.get("AWS_DEFAULT_REGION")
            or self._read("config").get("region")
            or self._read("credentials").get("region", "")
        )

    def _read(self, name: str) -> Mapping[str, str]:
        """Read the section of the profile in one of the two files; nothing if there is none."""
        path = self._path(name)
        if path is None:
            return {}
        parser = configparser.RawConfigParser(default_section="")
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            raise UsageError(f"settings of AWS cannot be read: `{path}`", hint="check the file") from error
        for section in (self._profile, f"profile {self._profile}"):
            if parser.has_section(section):
                return dict(parser.items(section))
        return {}

    def _path(self, name: str) -> Path | None:
        variable = {"credentials": "AWS_SHARED_CREDENTIALS_FILE", "config": "AWS_CONFIG_FILE"}[name]
        if named := self._variables.get(variable):
            return self._environment.path(named)
        home = self._environment.home
        return None if home is None else home / ".aws" / name


def _access_key(values: Mapping[str, str]) -> AccessKey | None:
    key_id, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    if not key_id or not secret:
        return None
    return AccessKey(id=key_id, secret=secret, session_token=values.get("aws_session_token", ""))
