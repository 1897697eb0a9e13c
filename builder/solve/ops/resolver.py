"""The resolver configuration that steps see.

A step on the host's network has the host's. In a private network what listens on the host's loopback is out of reach,
but what connects the network has a *forwarder*: an address that answers DNS by asking the host's first server.

Source: moby, libnetwork/resolvconf; BuildKit, executor/oci/resolvconf.go, which puts public servers in where only
loopback ones are left. The forwarder asks whom the host would ask, which also knows names that are not public.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.networks import PrivateNetwork

RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved names the real servers; used when the ordinary file names only its stub."""


def resolv_conf(network: PrivateNetwork | None, path: Path = RESOLV_CONF) -> bytes:
    """Write /etc/resolv.conf of a step in a private network, or, with None, on the host's or on none.

    Args:
        network: the step's.
        path: of the host's configuration; one that cannot be read counts as empty.
    """
    try:
        text = path.read_bytes()
    except OSError:
        text = b""
    if network is not None:
        return reachable(text, network.helper.resolver.encode(), has_ipv6=network.helper.has_ipv6)
    if _servers(text) == [b"127.0.0.53"]:
        try:
            return SYSTEMD_RESOLV_CONF.read_bytes()
        except OSError:
            return text
    return text


def reachable(text: bytes, forwarder: bytes, *, has_ipv6: bool) -> bytes:
    """Leave the servers out that a private network does not reach, with the forwarder for them.

    Args:
        text: the configuration of the host.
        forwarder: asks the host's first server; it comes first if that is out of reach, else it is not needed.
        has_ipv6: whether the network reaches IPv6 addresses.
    """
    servers = _servers(text)
    kept = [server for server in servers if _is_reachable(server, has_ipv6=has_ipv6)]
    if servers[:1] != kept[:1] or not kept:
        kept.insert(0, forwarder)
    others = [line for line in text.splitlines() if line.split()[:1] != [b"nameserver"]]
    return b"".join(line + b"\n" for line in (*others, *(b"nameserver " + server for server in kept)))


def _servers(text: bytes) -> list[bytes]:
    return [words[1] for line in text.splitlines() if len(words := line.split()) > 1 and words[0] == b"nameserver"]


def _is_reachable(server: bytes, *, has_ipv6: bool) -> bool:
    """Return whether an address is neither of the host's loopback nor of a link that only the host has."""
    if b":" in server:
        return has_ipv6 and not server.lower().startswith((b"::1", b"::ffff:127.", b"fe80:"))
    return not server.startswith((b"127.", b"0.0.0.0"))
