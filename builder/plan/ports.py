"""EXPOSE: port specifications.

Source: docker/go-connections, nat/nat.go, ParsePortSpec.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import DockerfileError

if TYPE_CHECKING:
    from builder.source import Span

_PORTS = re.compile(r"(?:.*:)?(\d{1,5})(?:-(\d{1,5}))?(?:/([A-Za-z]+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65535


def parse_ports(word: str, span: Span) -> list[str]:
    """Read `port[-port][/protocol]`, an address and host port before it dropped; return `80/tcp` for each port.

    Raises:
        DockerfileError: it is no port.
    """
    match = _PORTS.fullmatch(word)
    if match is None:
        raise _invalid(word, span)
    first, last, protocol = match.groups()
    start, end = int(first), int(last or first)
    name = (protocol or "tcp").lower()
    if name not in _PROTOCOLS or start > end or end > _MAX_PORT:
        raise _invalid(word, span)
    return [f"{port}/{name}" for port in range(start, end + 1)]


def _invalid(word: str, span: Span) -> DockerfileError:
    return DockerfileError(
        f"invalid containerPort: {word}", hint="write a port or a range, such as 80, 53/udp or 8000-8010", span=span
    )
