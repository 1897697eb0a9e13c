"""Who `USER` means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import StepSetupError
from runtime.users import ProcessUser, parse_group, parse_passwd, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
broken
app:x:1000:1001:App:/home/app:/bin/sh
homeless:x:1500:1500:::
1000:x:7:7::/seven:
"""
GROUP = b"""root:x:0:
app:x:1001:
wheel:x:10:root,app
docker:x:999:app, other
2000:x:8:
"""


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (), "/root"),
        ("root", 0, 0, (10,), "/root"),
        ("0", 0, 0, (10,), "/root"),
        ("app", 1000, 1001, (10, 999), "/home/app"),
        ("app:", 1000, 1001, (10, 999), "/home/app"),
        ("1000", 1000, 1001, (10, 999), "/home/app"),
        ("app:wheel", 1000, 10, (), "/home/app"),
        ("app:12345", 1000, 12345, (), "/home/app"),
        ("app:2000", 1000, 2000, (), "/home/app"),
        ("1000:1000", 1000, 1000, (), "/home/app"),
        ("4242", 4242, 0, (), "/"),
        ("4242:4243", 4242, 4243, (), "/"),
        ("4242:wheel", 4242, 10, (), "/"),
        (":wheel", 0, 10, (), "/root"),
        ("homeless", 1500, 1500, (), "/"),
        ("2147483647", 2147483647, 0, (), "/"),
    ],
)
def test_user_resolves(text, uid, gid, groups, home):
    """Names, ids and their pairs resolve as in Docker."""
    assert resolve_user(text, PASSWD, GROUP) == ProcessUser(uid=uid, gid=gid, groups=groups, home=home)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "unable to find user x: no matching entries in passwd file"),
        ("x:app", "unable to find user x: no matching entries in passwd file"),
        ("app:x", "unable to find group x: no matching entries in group file"),
        ("0:x", "unable to find group x: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647: `2147483648`"),
        ("-1", "uids and gids must be in range 0-2147483647: `-1`"),
        ("0:99999999999", "uids and gids must be in range 0-2147483647: `99999999999`"),
    ],
)
def test_user_that_does_not_exist_is_an_error(text, message):
    """The messages are BuildKit's."""
    with pytest.raises(StepSetupError, match=r"uids|unable") as caught:
        resolve_user(text, PASSWD, GROUP)

    assert (caught.value.stage, caught.value.message) == ("user", message)


def test_user_without_files():
    """Numbers work in an image without passwd and group; names do not."""
    assert resolve_user("5:6", None, None) == ProcessUser(uid=5, gid=6, groups=(), home="/")
    with pytest.raises(StepSetupError, match="unable to find user root"):
        resolve_user("root", None, None)


@given(st.binary(), st.binary(), st.text())
def test_user_of_any_files_resolves_or_is_an_error(passwd, group, text):
    """No bytes in the files make anything but a user or a clear error."""
    try:
        user = resolve_user(text, passwd, group)
    except StepSetupError:
        return
    assert 0 <= user.uid < 2**31


@given(st.binary())
def test_account_files_of_any_bytes_parse(data):
    """Reading is total."""
    assert all(entry.uid >= 0 for entry in parse_passwd(data))
    assert all(entry.gid >= 0 for entry in parse_group(data))
