"""EXPOSE: port specifications.

Source: docker/go-connections, nat/nat.go, ParsePortSpec; the messages are those of BuildKit 0.25.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import DockerfileError

if TYPE_CHECKING:
    from builder.source import Span

_RANGE = r"([0-9]+)(?:-([0-9]+))?"
_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65535
_MAX_DIGITS = 100


def parse_ports(word: str, span: Span) -> list[str]:
    """Read `[[address:]host:]port[-port][/protocol]`; return `80/tcp` for each port.

    What stands before the port is checked and dropped.

    Raises:
        DockerfileError: it is no port.
    """
    *address, host, container = ["", *word.split(":")]
    written, _, protocol = container.partition("/")
    if not written:
        raise _error(f'invalid port: "{word}": no port specified', span)
    if (protocol.lower() or "tcp") not in _PROTOCOLS:
        raise _error(f'invalid port: "{word}": invalid proto: {protocol}', span)
    _check_address(":".join(address[1:]), span)
    ports = _read_range(written)
    if ports is None:
        raise _error(f"invalid containerPort: {written}", span)
    hosts = _read_range(host) if host else ports
    if hosts is None:
        raise _error(f"invalid hostPort: {host}", span)
    if len(ports) > 1 and len(hosts) != len(ports):
        raise _error(f"invalid ranges specified for container and host Ports: {written} and {host}", span)
    return [f"{port}/{protocol.lower() or 'tcp'}" for port in ports]


def _read_range(text: str) -> range | None:
    match = re.fullmatch(_RANGE, text)
    if match is None or len(text) > _MAX_DIGITS:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if first <= last <= _MAX_PORT else None


def _check_address(text: str, span: Span) -> None:
    if not text:
        return
    from ipaddress import ip_address  # noqa: PLC0415  hardly anyone writes an address

    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise _error(f"invalid IP address: {text}", span) from None


def _error(message: str, span: Span) -> DockerfileError:
    return DockerfileError(message, hint="write a port or a range, such as 80, 53/udp or 8000-8010", span=span)
