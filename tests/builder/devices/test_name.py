"""Names of devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.devices.name import DeviceName, is_name, parse_device_name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vendor.com/class", ("vendor.com/class", "")),
        ("vendor.com/class=", ("vendor.com/class", "")),
        ("vendor.com/class=one", ("vendor.com/class", "one")),
        ("vendor.com/class=*", ("vendor.com/class", "*")),
        ("v/c.d_e-f=0:1=x", ("v/c.d_e-f", "0:1=x")),
    ],
)
def test_device_name_is_a_kind_and_a_name(text, parts):
    """What follows the first `=` is looked up as it is."""
    assert parse_device_name(text) == DeviceName(*parts)


@pytest.mark.parametrize(
    "text", ["", "class", "/class", "vendor/", "vendor/a/b", "1v/c", "v/1c", "v-/c", "v/c.", "v /c", "*", "=x", "v/c\n"]
)
def test_device_name_without_a_kind_is_none(text):
    """Vendor and class begin with a letter and end with a letter or digit."""
    assert parse_device_name(text) is None


@pytest.mark.parametrize(("text", "answer"), [("0", True), ("a:b", True), ("", False), ("-a", False), ("a:", False)])
def test_name_of_one_device(text, answer):
    """The name of a device may begin with a digit and hold colons."""
    assert is_name(text) is answer


_names = st.from_regex(r"[A-Za-z]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9])?", fullmatch=True)


@given(vendor=_names, class_=_names, name=st.text(max_size=10))
def test_parse_device_name_inverts_joining(vendor, class_, name):
    """A kind and any word come back from their qualified name."""
    assert parse_device_name(f"{vendor}/{class_}={name}") == DeviceName(f"{vendor}/{class_}", name)


@given(text=st.text(st.sampled_from("ab0/=.-*: \n"), max_size=60) | st.text())
def test_parse_device_name_takes_any_text(text):
    """Any text is a device name, whose parts are the text, or none."""
    parts = parse_device_name(text)

    assert parts is None or "=".join(parts).rstrip("=") == text.rstrip("=")
