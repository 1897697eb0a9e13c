"""The resolver configuration of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.solve.ops.resolver import reachable, resolv_conf

if TYPE_CHECKING:
    from pathlib import Path

FORWARDER = "10.0.2.3"


@pytest.mark.parametrize(
    ("servers", "has_ipv6", "expected"),
    [
        ("192.0.2.1 192.0.2.2", False, "192.0.2.1 192.0.2.2"),
        ("127.0.0.53", False, FORWARDER),
        ("127.0.0.1 192.0.2.1", False, f"{FORWARDER} 192.0.2.1"),
        ("192.0.2.1 127.0.0.1", False, "192.0.2.1"),
        ("::1", True, FORWARDER),
        ("0.0.0.0", False, FORWARDER),
        ("fe80::1%eth0", True, FORWARDER),
        ("2001:db8::1", True, "2001:db8::1"),
        ("2001:db8::1 192.0.2.1", False, f"{FORWARDER} 192.0.2.1"),
        ("", False, FORWARDER),
    ],
)
def test_private_network_has_the_servers_it_reaches(servers: str, has_ipv6: bool, expected: str) -> None:
    """Servers on the loopback or a link of the host are left out, and the forwarder stands for the first."""
    text = "".join(f"nameserver {server}\n" for server in servers.split()).encode()

    written = reachable(text, FORWARDER.encode(), has_ipv6=has_ipv6).decode()

    assert written == "".join(f"nameserver {server}\n" for server in expected.split())


def test_private_network_keeps_search_and_options() -> None:
    """What is not about servers stays as it was."""
    text = b"# mine\nsearch a.example\n nameserver  127.0.0.1\noptions ndots:2"

    written = reachable(text, b"10.0.2.3", has_ipv6=False)

    assert written == b"# mine\nsearch a.example\noptions ndots:2\nnameserver 10.0.2.3\n"


def test_network_of_the_host_has_its_configuration(tmp_path: Path) -> None:
    """A step on the host's network sees the host's file, loopback servers and all; one that is missing is empty."""
    (tmp_path / "resolv.conf").write_bytes(b"nameserver 127.0.0.1\noptions edns0\n")

    assert resolv_conf(None, tmp_path / "resolv.conf") == b"nameserver 127.0.0.1\noptions edns0\n"
    assert resolv_conf(None, tmp_path / "missing") == b""
