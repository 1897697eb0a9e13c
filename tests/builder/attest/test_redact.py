"""What a provenance keeps to itself."""

import pytest

from builder.attest.redact import redact_json, redact_text, redact_value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://user:word@host/x", "https://xxxxx@host/x"),
        ("https://TOKEN@host/x", "https://xxxxx@host/x"),
        ("HTTPS://user:w@rd@host/x", "HTTPS://xxxxx@host/x"),
        (
            "RUN wget http://a:b@h:8080/c && git clone ssh://c:d@h/e",
            "RUN wget http://xxxxx@h:8080/c && git clone ssh://xxxxx@h/e",
        ),
        ('"https://a:b@h"', '"https://xxxxx@h"'),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host?mail=a@b", "https://host?mail=a@b"),
        ("git@github.com:a/b", "git@github.com:a/b"),
        ("https://host one@two", "https://host one@two"),
    ],
)
def test_address_loses_its_user(text, told):
    """User and password go, whatever the scheme and wherever it stands; what only looks like them stays."""
    assert redact_text(text) == told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("VERSION", "1.2", "1.2"),
        ("API_TOKEN", "abc", "xxxxx"),
        ("db_password", "abc", "xxxxx"),
        ("API_TOKEN", "", ""),
        ("PUBLIC_KEY", "abc", "abc"),
        ("HTTP_PROXY", "user:word@proxy:3128", "proxy:3128"),
        ("https_proxy", "http://user:word@proxy:3128", "http://xxxxx@proxy:3128"),
        ("MIRROR", "https://user:word@mirror/", "https://xxxxx@mirror/"),
    ],
)
def test_value_is_told_by_its_name(name, value, told):
    """A name that says it holds a secret hides the value; a proxy may have no scheme."""
    assert redact_value(name, value) == told


def test_every_text_of_a_document_is_looked_at():
    """Lists and objects are gone through; names of fields and other values stay."""
    address = "https://a:b@h/"

    assert redact_json({address: [{"x": address, "n": 1}, None, (address,)]}) == {
        address: [{"x": "https://xxxxx@h/", "n": 1}, None, ["https://xxxxx@h/"]]
    }
