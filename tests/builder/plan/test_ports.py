"""Ports of EXPOSE; the table is what BuildKit 0.25 made of each word."""

from __future__ import annotations

import re

import pytest

from builder.errors import DockerfileError
from builder.plan.ports import parse_ports
from builder.source import SourceFile, Span

SPAN = Span(source=SourceFile("Dockerfile", "FROM scratch\nEXPOSE x"), line=2, end_line=2)


@pytest.mark.parametrize(
    ("word", "ports"),
    [
        ("80", ["80/tcp"]),
        ("80/", ["80/tcp"]),
        ("80/UDP", ["80/udp"]),
        ("0-2", ["0/tcp", "1/tcp", "2/tcp"]),
        ("000080", ["80/tcp"]),
        (":80", ["80/tcp"]),
        ("::80", ["80/tcp"]),
        ("80:90/udp", ["90/udp"]),
        ("80-81:80", ["80/tcp"]),
        ("80-81:90-91", ["90/tcp", "91/tcp"]),
        ("1.2.3.4::80", ["80/tcp"]),
        ("1.2.3.4:80-81:90-91", ["90/tcp", "91/tcp"]),
        ("[::1]:80:80", ["80/tcp"]),
        ("::1:80:80", ["80/tcp"]),
    ],
)
def test_port_is_read(word, ports):
    """What stands before the port of the container is dropped."""
    assert parse_ports(word, SPAN) == ports


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("x:80:80", "invalid IP address: x"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("a:80", "invalid hostPort: a"),
        ("1.2.3.4:80", "invalid hostPort: 1.2.3.4"),
        ("99999:80", "invalid hostPort: 99999"),
        ("80/udp:90", "invalid hostPort: 80/udp"),
        ("90-80:1", "invalid hostPort: 90-80"),
        ("/tcp", 'invalid port: "/tcp": no port specified'),
        ("80:", 'invalid port: "80:": no port specified'),
        ("80/tcp/x", 'invalid port: "80/tcp/x": invalid proto: tcp/x'),
        ("80-", "invalid containerPort: 80-"),
        ("8:65536", "invalid containerPort: 65536"),
        ("80-81-82", "invalid containerPort: 80-81-82"),
        ("9" * 5000, "invalid containerPort: 999"),
        ("80:90-91", "invalid ranges specified for container and host Ports: 90-91 and 80"),
    ],
)
def test_what_is_no_port_is_told(word, message):
    """The part that is wrong is named as BuildKit names it."""
    with pytest.raises(DockerfileError, match=re.escape(message)):
        parse_ports(word, SPAN)
