"""Proxies, redaction, and the words for failed connections."""

from __future__ import annotations

import gc
import os
import ssl
from pathlib import Path

import pytest

from registry.errors import ProtocolError, UnreachableError
from registry.hosts import Mirror, RegistryRule, RegistrySettings
from registry.oci.reference import parse_reference
from registry.transport import find_proxy, redact_url
from tests.fakes.certificate_authority import CertificateAuthority
from tests.fakes.random_image import make_image
from tests.fakes.registry_server import FakeRegistry, Fault

PROXY = "http://proxy.corp:3128"


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://a.io/", {}, None),
        ("https://a.io/", {"https_proxy": PROXY}, PROXY),
        ("https://a.io/", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://a.io/", {"http_proxy": PROXY}, None),
        ("https://a.io/", {"all_proxy": PROXY}, PROXY),
        ("https://a.io/", {"https_proxy": "proxy.corp:3128"}, PROXY),
        ("https://a.io/", {"https_proxy": PROXY, "no_proxy": "a.io"}, None),
        ("https://b.a.io/", {"https_proxy": PROXY, "no_proxy": "a.io"}, None),
        ("https://b.a.io/", {"https_proxy": PROXY, "NO_PROXY": "x.io, .a.io"}, None),
        ("https://ba.io/", {"https_proxy": PROXY, "no_proxy": "a.io"}, PROXY),
        ("https://a.io:5000/", {"https_proxy": PROXY, "no_proxy": "a.io:5000"}, None),
        ("https://a.io/", {"https_proxy": PROXY, "no_proxy": "a.io:5000"}, PROXY),
        ("https://10.1.2.3/", {"https_proxy": PROXY, "no_proxy": "10.0.0.0/8"}, None),
        ("https://11.1.2.3/", {"https_proxy": PROXY, "no_proxy": "10.0.0.0/8"}, PROXY),
        ("https://[fd00::1]:5000/", {"https_proxy": PROXY, "no_proxy": "fd00::/8"}, None),
        ("https://a.io/", {"https_proxy": PROXY, "no_proxy": "*"}, None),
        ("http://localhost:5000/", {"http_proxy": PROXY}, None),
    ],
)
def test_find_proxy_follows_the_environment(url, environment, expected):
    """Proxies and their exceptions are found as other container tools find them."""
    assert find_proxy(url, environment) == expected


def test_client_goes_through_the_proxy(rig):
    """A registry behind a proxy is asked for at the proxy, by its full address."""
    with FakeRegistry() as proxy:
        settings = RegistrySettings(insecure_hosts=frozenset({"registry.invalid:80"}))
        client = rig.client(settings, http_proxy=proxy.url, https_proxy="http://127.0.0.1:1")
        proxy.faults.append(Fault(method="HEAD", status=404))

        with pytest.raises(Exception, match=r"not found on registry\.invalid:80"):
            client.resolve(parse_reference("registry.invalid:80/app:1"))

    assert proxy.seen("HEAD")[0].path == "http://registry.invalid:80/v2/app/manifests/1"


def test_client_names_a_dead_proxy_without_its_password(rig):
    """A proxy that is not there is named, and its password is not."""
    client = rig.client(https_proxy="http://user:canary@127.0.0.1:1")

    with pytest.raises(UnreachableError, match=r"the proxy 127\.0\.0\.1:1 does not let us through") as caught:
        client.resolve(parse_reference("registry.invalid/app:1"))

    assert "canary" not in str(caught.value)


def test_redact_url_keeps_only_where():
    """What may be secret in an address is left out."""
    assert redact_url("https://u:p@a.io:5/b/c?X-Amz-Signature=canary#f") == "https://a.io:5/b/c"


def test_client_names_an_unknown_host(rig):
    """A registry whose name nobody knows is an error that says so."""
    with pytest.raises(UnreachableError, match=r"its name .*: `no-such-host\.invalid`"):
        rig.client().resolve(parse_reference("no-such-host.invalid/app:1"))

    assert not rig.pauses


def test_client_speaks_plain_http_on_loopback_only_after_tls(rig, fake):
    """A registry of this machine that does not speak TLS is spoken to in plain HTTP, and asked once."""
    client = rig.client()
    for tag in "12":
        with pytest.raises(Exception, match="not found"):
            client.resolve(parse_reference(f"{fake.address}/app:{tag}"))

    assert fake.count("GET", "/v2/$") == 1


def test_client_refuses_a_redirect_down_from_tls(rig, tmp_path):
    """From https, nobody sends us to plain http."""
    authority = CertificateAuthority()
    authority.issue(tmp_path / "server.pem", tmp_path / "server.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with FakeRegistry(tls=context) as registry:
        elsewhere = {"Location": "http://elsewhere.example/v2/app/manifests/1?token=canary"}
        registry.faults.append(Fault(method="HEAD", status=307, headers=elsewhere))

        with pytest.raises(ProtocolError, match="from https to elsewhere") as caught:
            rig.client().resolve(parse_reference(f"{registry.address}/app:1"))

    assert "canary" not in str(caught.value)


def test_client_sends_its_name_and_no_cookies(rig, fake):
    """Requests carry a user agent and ask for bytes as they are; cookies are not kept."""
    fake.faults.append(Fault(method="HEAD", status=503, headers={"Set-Cookie": "a=b; Path=/"}))

    with pytest.raises(Exception, match="not found"):
        rig.client().resolve(parse_reference(f"{fake.address}/app:1"))

    headers = fake.seen("HEAD")[1].headers
    assert headers["User-Agent"].startswith("pybuild/")
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers


def test_insecure_mirror_is_spoken_to_in_plain_http(rig, fake):
    """A mirror may be insecure where its origin is not."""
    fake.add_manifest("app", "1", "application/vnd.oci.image.manifest.v1+json", b"{}")
    mirror = Mirror(location=fake.address, insecure=True)
    rule = RegistryRule(prefix="registry.invalid", location="registry.invalid", mirrors=(mirror,))

    client = rig.client(RegistrySettings(rules=(rule,)))

    assert client.resolve(parse_reference("registry.invalid/app:1")).size == 2


def test_client_takes_a_tls_server_for_what_it_is(rig, fake):
    """A server that answers 400 to plain HTTP, as TLS servers do, is not spoken to in plain HTTP."""
    fake.faults.append(Fault(path="/v2/$", status=400))

    with pytest.raises(UnreachableError, match="it does not speak TLS"):
        rig.client().resolve(parse_reference(f"{fake.address}/app:1"))


@pytest.mark.parametrize("location", ["http://[", "http://127.0.0.1:99999/x", "ftp://a.io/x"])
def test_client_refuses_a_redirect_to_nonsense(rig, fake, location):
    """A Location that is no address is an error of the registry, not of this program."""
    fake.faults.append(Fault(method="HEAD", status=307, headers={"Location": location}))

    with pytest.raises(ProtocolError, match="it sends us"):
        rig.client().resolve(parse_reference(f"{fake.address}/app:1"))


def test_client_refuses_a_port_that_cannot_be(rig):
    """A port beyond the last one is named as such."""
    with pytest.raises(UnreachableError, match=r"no port has that number: `a\.io:99999`"):
        rig.client().resolve(parse_reference("a.io:99999/app:1"))


def test_closed_client_has_no_connection_left(fake, rig, source, target):
    """None waits for the garbage collection: the process may fork before it comes, and then closes what it does not own."""
    image = make_image(source)
    for blob in (image.manifest.config, *image.manifest.layers):
        fake.add_blob("app", source.read_bytes(blob.digest, limit=1 << 30))
    fake.add_manifest("app", "1", image.descriptor.media_type, image.manifest.to_bytes())
    client = rig.client()

    def connections():
        """Count this process's sockets that are connected to the fake."""
        port = int(fake.address.rpartition(":")[2])
        remote = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        inodes = {fields[9] for fields in remote if fields[2].endswith(f":{port:04X}")}
        own = {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
        return sum(f"socket:[{inode}]" in own for inode in inodes)

    gc.disable()
    try:
        client.pull(parse_reference(f"{fake.address}/app:1"), None, target)
        kept = connections()
        client.close()
        left = connections()
    finally:
        gc.enable()

    assert kept > 0
    assert left == 0
