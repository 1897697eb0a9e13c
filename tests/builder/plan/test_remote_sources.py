"""Addresses in ADD: what may be shown of them."""

import pytest

from builder.plan.remote_sources import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ADD https://user:word@host/x /", "ADD https://xxxxx@host/x /"),
        ("ADD http://user:w@rd@host/x /", "ADD http://xxxxx@host/x /"),
        ("ADD https://host/x?a=b@c /", "ADD https://host/x?a=b@c /"),
        ("ADD https://host a@b /", "ADD https://host a@b /"),
    ],
)
def test_address_is_shown_without_its_user(text, shown):
    """User and password go, also a password with an @ in it, of which the rest used to stay."""
    assert redact(text) == shown
