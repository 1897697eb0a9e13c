"""Which secret is sent where."""

import pytest

from builder.context.authorization import Authorizations
from builder.errors import UsageError


def known(**secrets):
    """Make authorizations of some secrets; `_` in their names stands for itself."""
    return Authorizations({name: value.encode() for name, value in secrets.items()}.get)


def test_header_wins_over_token_and_host_over_no_host():
    """The more exact secret counts."""
    names = ("GIT_AUTH_HEADER.h", "GIT_AUTH_TOKEN.h", "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN")
    for count in range(len(names)):
        left = known(**dict.fromkeys(names[count:], "t"), **{"GIT_AUTH_TOKEN.other": "t"})
        found = left.for_repository("https://h/x.git")
        assert found.startswith("Basic ") is names[count].startswith("GIT_AUTH_TOKEN")
    assert known(**{"GIT_AUTH_TOKEN.other": "t"}).for_repository("https://h/x.git") == ""


@pytest.mark.parametrize("url", ["http://example.com/x.git", "ssh://git@h/x.git", "git@h:x.git", "git://h/x.git"])
def test_secret_is_not_sent_in_the_clear(url):
    """Only https, and this machine, get secrets."""
    secrets = known(GIT_AUTH_TOKEN="t", **{"HTTP_AUTH_TOKEN_example.com": "t"})

    assert secrets.for_repository(url) == ""
    assert secrets.for_file(url) == ""


def test_port_may_be_left_out():
    """A secret for a host is one for all its ports; with a port it is for that one."""
    assert known(HTTP_AUTH_TOKEN_h="t").for_file("https://H:8443/f") == "Bearer t"
    assert known(**{"HTTP_AUTH_TOKEN_h:8443": "t"}).for_file("https://h:8443/f") == "Bearer t"
    assert known(**{"HTTP_AUTH_TOKEN_h:8443": "t"}).for_file("https://h/f") == ""


@pytest.mark.parametrize("value", ["a\nb: c", "a\rb", "\x00", "\u00e4"])
def test_secret_that_is_no_header_is_refused(value):
    """A secret cannot bring further headers with it, and is not shown."""
    with pytest.raises(UsageError, match="not one line of ASCII: `GIT_AUTH_TOKEN`"):
        known(GIT_AUTH_TOKEN=value).for_repository("https://h/x.git")
