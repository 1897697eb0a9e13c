"""The attributes of `type=s3`, and where access keys come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.cli.environment import Environment
from builder.cli.s3_options import parse_bucket
from builder.errors import UsageError
from registry.s3 import AccessKey, Bucket

if TYPE_CHECKING:
    from pathlib import Path

CREDENTIALS = """\
[default]
aws_access_key_id = of-default
aws_secret_access_key = s%ecret
[ci]
aws_access_key_id = of-ci
aws_secret_access_key = secret
aws_session_token = token
"""
CONFIG = "[default]\nregion = from-config\n[profile ci]\nregion = of-ci\n"


def parse(home: Path, values: dict[str, str], **variables: str) -> Bucket:
    """Parse attributes in a place with these variables."""
    environment = Environment(variables=variables, cwd=home, home=home)
    return parse_bucket("--cache-to", "TEXT", {"bucket": "b", "region": "r", **values}, environment)


def write_settings(home: Path) -> None:
    """Write the two files of AWS's tools."""
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_text(CREDENTIALS)
    (home / ".aws" / "config").write_text(CONFIG)


def test_attributes_are_those_of_buildkit(tmp_path):
    """Each has its place; names are split by semicolons."""
    values = {
        "prefix": "p/", "blobs_prefix": "x/", "manifests_prefix": "y/", "name": "one;two", "endpoint_url": "http://h",
        "use_path_style": "true", "access_key_id": "id", "secret_access_key": "secret", "session_token": "token",
        "touch_refresh": "1h30m", "upload_parallelism": "8", "disable_accept_encoding": "true",
    }  # fmt: skip

    assert parse(tmp_path, values) == Bucket(
        name="b",
        region="r",
        prefix="p/",
        blobs_prefix="x/",
        manifests_prefix="y/",
        names=("one", "two"),
        endpoint="http://h",
        path_style=True,
        touch_seconds=5400.0,
        parallelism=8,
        access_key=AccessKey(id="id", secret="secret", session_token="token"),
    )


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({}, AccessKey(id="of-default", secret="s%ecret")),
        ({"AWS_PROFILE": "ci"}, AccessKey(id="of-ci", secret="secret", session_token="token")),
        ({"AWS_PROFILE": "nobody"}, None),
        ({"AWS_SHARED_CREDENTIALS_FILE": "elsewhere"}, None),
        (
            {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"},
            AccessKey(id="i", secret="s", session_token="t"),
        ),
        ({"AWS_ACCESS_KEY_ID": "i"}, AccessKey(id="of-default", secret="s%ecret")),
    ],
)
def test_access_key_comes_from_variables_or_files(tmp_path, variables, key):
    """As AWS's own tools look for it; without one the place is known, and says so when it is used."""
    write_settings(tmp_path)

    assert parse(tmp_path, {}, **variables).access_key == key


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({}, "from-config"),
        ({"AWS_PROFILE": "ci"}, "of-ci"),
        ({"AWS_DEFAULT_REGION": "d"}, "d"),
        ({"AWS_REGION": "v"}, "v"),
    ],
)
def test_region_and_bucket_may_be_left_out(tmp_path, variables, region):
    """The bucket comes from its variable, the region from one of two or from the settings."""
    write_settings(tmp_path)

    found = parse(tmp_path, {"region": "", "bucket": ""}, AWS_BUCKET="v", **variables)

    assert (found.name, found.region) == ("v", region)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"bucket": ""}, "a bucket= is missing: `TEXT`"),
        ({"region": ""}, "a region= is missing: `TEXT`"),
        ({"region": "", "access_key_id": "i", "secret_access_key": "s"}, "a region= is missing: `type=s3`"),
        ({"endpoint_url": "minio:9000"}, "endpoint_url is no http or https address: `minio:9000`"),
        ({"use_path_style": "yes"}, "use_path_style is true or false, not `yes`"),
        ({"touch_refresh": "1 day"}, "touch_refresh is no duration: `1 day`"),
        ({"upload_parallelism": "0"}, "upload_parallelism is a number from 1 on, not `0`"),
        ({"access_key_id": "i"}, "access_key_id and secret_access_key need each other"),
    ],
)
def test_mistake_is_explained(tmp_path, values, match):
    """One line says what is wrong, and shows no secret."""
    with pytest.raises(UsageError) as raised:
        parse(tmp_path, values)

    assert raised.value.message == f"option --cache-to: {match}"


def test_settings_that_cannot_be_read_are_an_error(tmp_path):
    """A file that is no ini file is named, its content is not."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("hunter2 without a section\n")

    with pytest.raises(UsageError, match="settings of AWS cannot be read") as raised:
        parse(tmp_path, {})

    assert "hunter2" not in f"{raised.value.message} {raised.value.hint}"
