"""The values of RUN --mount and --device."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile import mounts
from builder.dockerfile.mounts import Device, parse_device, parse_mount, split_csv
from builder.dockerfile.words import expand
from builder.errors import DockerfileError
from builder.source import SourceFile, Span

TABLE = Path(__file__).parents[2] / "conformance" / "dockerfiles" / "mounts.json"
CASES: list[dict[str, Any]] = json.loads(TABLE.read_text())
SPAN = Span(source=SourceFile("Dockerfile", "RUN --mount"), line=1, end_line=1, column=5, end_column=11)


def cases(key: str) -> pytest.MarkDecorator:
    """Take the cases of the table that have *key*."""
    return pytest.mark.parametrize("case", [case for case in CASES if key in case], ids=lambda case: case["id"])


@cases("mount")
def test_mount_expands_to_its_type(case: dict[str, Any]) -> None:
    """Every type takes its keys and fills in its defaults."""
    name, values = case["mount"]
    environment = case.get("env", {})
    mount = parse_mount(case["text"], SPAN).expand(lambda value: expand(value, environment.get).text)

    assert mount == getattr(mounts, name)(**values)


@cases("error")
def test_mount_is_refused_while_parsing(case: dict[str, Any]) -> None:
    """What is wrong without any variable is said at the flag."""
    with pytest.raises(DockerfileError, match=re.escape(case["error"])) as caught:
        parse_mount(case["text"], SPAN)

    assert caught.value.span == SPAN
    assert caught.value.hint


@cases("expand_error")
def test_mount_is_refused_while_expanding(case: dict[str, Any]) -> None:
    """What variables make wrong is said at the flag too."""
    flag = parse_mount(case["text"], SPAN)
    with pytest.raises(DockerfileError, match=re.escape(case["expand_error"])) as caught:
        flag.expand(lambda value: expand(value, case["env"].get).text)

    assert caught.value.span == SPAN


def test_from_is_known_before_expansion() -> None:
    """The stages a RUN needs are known without an environment."""
    assert parse_mount("type=cache,target=$X,from=build", SPAN).from_ == "build"
    assert parse_mount("target=$X", SPAN).from_ is None


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("vendor.com/class", Device(name="vendor.com/class")),
        ("vendor.com/class=*,required", Device(name="vendor.com/class=*", required=True)),
        ("name=x,required=false", Device(name="x")),
        ("required=true,vendor.com/class=one", Device(name="vendor.com/class=one", required=True)),
    ],
    ids=["class", "all of a class, required", "by key", "required first"],
)
def test_device_is_a_name_and_perhaps_required(text: str, device: Device) -> None:
    """The name is the first field without a known key."""
    assert parse_device(text, SPAN) == device


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b", "unexpected key 'b' in 'b'"),
        ("a,requird=1", "did you mean required"),
        ("name=a,name=b", "device name already set to a"),
        ("", "device without a name"),
        ("a,required=x", "invalid value for required: x"),
    ],
    ids=["two names", "misspelled", "name twice", "empty", "boolean"],
)
def test_device_is_refused(text: str, message: str) -> None:
    """A device has one name and one other key."""
    with pytest.raises(DockerfileError, match=re.escape(message)):
        parse_device(text, SPAN)


@given(fields=st.lists(st.text(max_size=10), min_size=1, max_size=5))
def test_split_csv_inverts_quoting(fields: list[str]) -> None:
    """Fields that are quoted and joined come back."""
    joined = ",".join('"' + field.replace('"', '""') + '"' for field in fields)

    assert split_csv(joined, "mounts", SPAN) == tuple(fields)


keys = st.sampled_from(
    ["type", "from", "src", "dst", "ro", "rw", "id", "sharing", "required", "size", "mode", "uid", "env", "x"]
)
words = st.sampled_from(
    ["cache", "secret", "ssh", "tmpfs", "bind", "/x", "1", "true", "locked", "$a", '"', "", "777", "1.5g"]
)
flags = st.lists(keys | st.builds("{}={}".format, keys, words), max_size=5).map(",".join) | st.text()


@given(text=flags)
def test_parse_mount_raises_nothing_but_dockerfile_errors(text: str) -> None:
    """Any text is a mount or is refused at the flag."""
    for parse in (lambda: parse_mount(text, SPAN).expand(lambda value: value), lambda: parse_device(text, SPAN)):
        error = None
        try:
            parse()
        except DockerfileError as caught:
            error = caught
        assert error is None or error.span == SPAN
