"""Reading WWW-Authenticate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.challenge import Challenge, parse_challenges

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push"'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ()),
        ("Basic", (Challenge("basic"),)),
        ('Basic realm="a, b"', (Challenge("basic", {"realm": "a, b"}),)),
        ('BASIC Realm = "a\\"b"', (Challenge("basic", {"realm": 'a"b'}),)),
        (
            HUB,
            (
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/x:pull,push",
                    },
                ),
            ),
        ),
        (
            'Bearer realm="r", service=s, Basic realm="q"',
            (Challenge("bearer", {"realm": "r", "service": "s"}), Challenge("basic", {"realm": "q"})),
        ),
        ('Negotiate, Basic realm="q"', (Challenge("negotiate"), Challenge("basic", {"realm": "q"}))),
        (
            'Negotiate YWJj/+==, Basic realm="q"',
            (Challenge("negotiate"), Challenge("basic", {"realm": "q"})),
        ),
        ('Bearer realm="r",, error="insufficient_scope"', (Challenge("bearer", {"realm": "r", "error": "insufficient_scope"}),)),
        ('Basic realm="unfinished', (Challenge("basic"),)),
    ],
)  # fmt: skip
def test_parse_challenges_reads_what_servers_send(value, expected):
    """One or several challenges are read, with quoted strings, odd case and odd spacing."""
    assert parse_challenges(value) == expected


@given(st.text(max_size=80))
def test_parse_challenges_ends_on_any_text(value):
    """Whatever a server sends, reading it ends without an error."""
    parse_challenges(value)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
        min_size=1,
        max_size=4,
    )
)
def test_parse_challenges_reads_back_quoted_strings(parameters):
    """Parameters written as quoted strings are read back as they were."""
    quoted = {name: text.replace("\\", "\\\\").replace('"', '\\"') for name, text in parameters.items()}
    value = "Bearer " + ", ".join(f'{name}="{text}"' for name, text in quoted.items())

    assert parse_challenges(value) == (Challenge("bearer", parameters),)
