"""Files of certs.d, and what they do to connections."""

from __future__ import annotations

import ssl

import pytest

from registry.certificates import ClientPair, HostCertificates, find_certificates
from registry.errors import CertificateInvalidError, NotFoundError, UnreachableError
from registry.hosts import RegistrySettings
from registry.oci.reference import parse_reference
from tests.fakes.certificate_authority import NOW, CertificateAuthority
from tests.fakes.registry_server import FakeRegistry

HOST = "registry.example:5000"


@pytest.fixture(scope="module")
def authority():
    """One authority for all tests."""
    return CertificateAuthority()


@pytest.fixture
def entry(tmp_path):
    """The folder of HOST in certs.d."""
    entry = tmp_path / "certs.d" / HOST
    entry.mkdir(parents=True)
    return entry


def find(entry):
    """Return what certs.d holds for HOST."""
    return find_certificates(HOST, (entry.parent,), now=NOW)


def test_find_certificates_returns_authorities_and_pairs(entry, authority):
    """Authorities are the .crt files, client pairs the .cert files with their .key."""
    (entry / "ca.crt").write_bytes(authority.pem)
    authority.issue(entry / "me.cert", entry / "me.key")

    pair = ClientPair(certificate=entry / "me.cert", key=entry / "me.key")
    assert find(entry) == HostCertificates(authorities=(entry / "ca.crt",), client_pairs=(pair,))


def test_find_certificates_takes_the_first_directory_with_the_host(tmp_path, authority):
    """Only the most wanted directory that has an entry for the host counts."""
    for name in ("second", "third"):
        (tmp_path / name / HOST).mkdir(parents=True)
        (tmp_path / name / HOST / f"{name}.crt").write_bytes(authority.pem)

    found = find_certificates(HOST, [tmp_path / name for name in ("first", "second", "third")], now=NOW)

    assert [file.name for file in found.authorities] == ["second.crt"]


def test_find_certificates_of_another_host_finds_nothing(entry, authority):
    """A host on another port is another host."""
    (entry / "ca.crt").write_bytes(authority.pem)

    assert find_certificates("registry.example", (entry.parent,), now=NOW) == HostCertificates()


def test_find_certificates_names_a_file_that_is_no_certificate(entry):
    """Text that is no certificate is found before any connection."""
    (entry / "ca.crt").write_text("hello")

    with pytest.raises(CertificateInvalidError, match=r"no certificate in PEM form: `.*/ca\.crt`"):
        find(entry)


def test_find_certificates_says_how_to_convert_der(entry, authority):
    """The binary form of a certificate is recognised, with the command that converts it."""
    (entry / "ca.crt").write_bytes(authority.der)

    with pytest.raises(CertificateInvalidError) as caught:
        find(entry)

    assert "openssl x509 -inform der" in caught.value.hint


def test_find_certificates_refuses_a_lone_certificate(entry, authority):
    """A client certificate without its key is a mistake, often an authority with the wrong suffix."""
    authority.issue(entry / "me.cert", entry / "elsewhere")

    with pytest.raises(CertificateInvalidError, match=r"me\.key is missing beside it"):
        find(entry)


def test_find_certificates_refuses_a_foreign_key(entry, authority):
    """A key that belongs to another certificate is found out."""
    authority.issue(entry / "me.cert", entry / "other")
    authority.issue(entry / "other", entry / "me.key")

    with pytest.raises(CertificateInvalidError, match=r"does not belong to me\.cert"):
        find(entry)


@pytest.mark.parametrize(
    ("days", "fault"), [((-9, -2), "expired on"), ((2, 9), "is only valid from")], ids=["expired", "early"]
)
def test_find_certificates_judges_validity(entry, authority, days, fault):
    """A client certificate that is not valid now is named with the date."""
    authority.issue(entry / "me.cert", entry / "me.key", days=days)

    with pytest.raises(CertificateInvalidError, match=fault):
        find(entry)


def test_find_certificates_tolerates_an_expired_authority_in_a_bundle(entry, authority, tmp_path):
    """One authority of a bundle may have expired; a file of nothing else is a mistake."""
    authority.issue(tmp_path / "old", tmp_path / "key", days=(-9, -2))
    old = (tmp_path / "old").read_bytes()
    (entry / "ca.crt").write_bytes(old + authority.pem)
    assert find(entry).authorities

    (entry / "ca.crt").write_bytes(old)
    with pytest.raises(CertificateInvalidError, match="the authority's certificate expired"):
        find(entry)


def test_find_certificates_refuses_a_protected_key(entry, authority):
    """A key with a passphrase cannot be used, because nobody is there to type it."""
    authority.issue(entry / "me.cert", entry / "me.key", passphrase=b"x")

    with pytest.raises(CertificateInvalidError, match="protected by a passphrase"):
        find(entry)


def test_find_certificates_refuses_a_broken_key(entry, authority):
    """A key file with other text in it is named."""
    authority.issue(entry / "me.cert", entry / "me.key")
    (entry / "me.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")

    with pytest.raises(CertificateInvalidError, match="no private key in PEM form"):
        find(entry)


@pytest.fixture
def server_context(tmp_path, authority):
    """TLS for a server on 127.0.0.1, signed by the authority."""
    authority.issue(tmp_path / "server.pem", tmp_path / "server.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    return context


def settings_for(tmp_path, registry, **options):
    """Return settings with the certs.d of this test."""
    return RegistrySettings(certificate_directories=(tmp_path / "certs.d",), **options)


def ask(rig, registry, settings):
    """Send one request."""
    rig.client(settings).resolve(parse_reference(f"{registry.address}/app:1"))


def test_client_trusts_the_authority_of_certs_d(rig, tmp_path, authority, server_context):
    """A registry whose authority lies in certs.d is trusted."""
    with FakeRegistry(tls=server_context) as registry:
        entry = tmp_path / "certs.d" / registry.address
        entry.mkdir(parents=True)
        (entry / "ca.crt").write_bytes(authority.pem)

        with pytest.raises(NotFoundError):
            ask(rig, registry, settings_for(tmp_path, registry))


def test_client_refuses_an_authority_nobody_named(rig, tmp_path, server_context):
    """A registry with a certificate of an unknown authority is refused, and the hint says where it could go."""
    with FakeRegistry(tls=server_context) as registry:
        entry = tmp_path / "certs.d" / registry.address
        entry.mkdir(parents=True)
        (entry / "ca.crt").write_bytes(CertificateAuthority().pem)

        with pytest.raises(UnreachableError, match="TLS certificate is not trusted") as caught:
            ask(rig, registry, settings_for(tmp_path, registry))

    assert f"certs.d/{registry.address}/ca.crt" in caught.value.hint
    assert not registry.requests


def test_client_takes_any_certificate_of_an_insecure_host(rig, tmp_path, server_context):
    """An insecure registry is spoken to by TLS without a look at its certificate."""
    with FakeRegistry(tls=server_context) as registry, pytest.raises(NotFoundError):
        ask(rig, registry, settings_for(tmp_path, registry, insecure_hosts=frozenset({registry.address})))


def test_client_shows_its_own_certificate(rig, tmp_path, authority, server_context):
    """A registry that wants a client certificate gets the one of certs.d."""
    authority_file = tmp_path / "ca.pem"
    authority_file.write_bytes(authority.pem)
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(authority_file)
    with FakeRegistry(tls=server_context) as registry:
        entry = tmp_path / "certs.d" / registry.address
        entry.mkdir(parents=True)
        (entry / "ca.crt").write_bytes(authority.pem)
        authority.issue(entry / "me.cert", entry / "me.key")

        with pytest.raises(NotFoundError):
            ask(rig, registry, settings_for(tmp_path, registry))


def test_client_reads_the_bundle_of_the_environment(rig, tmp_path, authority, server_context):
    """SSL_CERT_FILE names the authorities instead of the system's, also for hosts that certs.d knows."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.pem)
    with FakeRegistry(tls=server_context) as registry:
        (tmp_path / "certs.d" / registry.address).mkdir(parents=True)
        client = rig.client(settings_for(tmp_path, registry), SSL_CERT_FILE=str(bundle))

        with pytest.raises(NotFoundError):
            client.resolve(parse_reference(f"{registry.address}/app:1"))


def test_client_names_a_bundle_that_is_not_there(rig):
    """A wrong SSL_CERT_FILE is named, not answered with a failed handshake."""
    client = rig.client(SSL_CERT_FILE="/nowhere.pem")

    with pytest.raises(CertificateInvalidError, match="SSL_CERT_FILE"):
        client.resolve(parse_reference("registry.invalid/app:1"))


def test_bundle_is_not_read_where_nobody_is_vouched_for(rig, server_context):
    """This machine is trusted without it, unless certs.d says otherwise."""
    with FakeRegistry(tls=server_context) as registry:
        client = rig.client(SSL_CERT_FILE="/nowhere.pem")

        with pytest.raises(NotFoundError):
            client.resolve(parse_reference(f"{registry.address}/app:1"))
