"""TLS certificates of `certs.d`: who vouches for a registry, and who we are to it.

    certs.d/
        registry.example:5000/     a host as written in references
            *.crt                  authorities that vouch for it, besides those of the system
            NAME.cert, NAME.key    a client certificate and its key

Everything is checked before the first connection, so that a wrong file is named instead of a failed handshake.

Source: containers-certs.d(5); docker's "Verify repository client with certificates".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from registry.errors import CertificateInvalidError
from registry.value import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography.x509 import Certificate


@frozen
class ClientPair:
    """A client certificate (chain) and its key, both PEM files."""

    certificate: Path
    key: Path


@frozen
class HostCertificates:
    """What certs.d holds for one host; *authorities* are PEM files."""

    authorities: tuple[Path, ...] = ()
    client_pairs: tuple[ClientPair, ...] = ()


def find_certificates(host: str, directories: Sequence[Path], *, now: datetime) -> HostCertificates:
    """Return the certificates for a host from the first of *directories* that has an entry for it, checked.

    Args:
        host: `host[:port]` as written in references.
        directories: certs.d directories, most wanted first; they need not exist.
        now: an aware time, to judge validity by.

    Raises:
        CertificateInvalidError: a file cannot be read or parsed, is not valid now, lacks its other half, or the key
            belongs to another certificate.
    """
    for directory in directories:
        entry = directory / host
        try:
            names = sorted(os.listdir(entry))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise CertificateInvalidError(str(entry), f"it cannot be read ({error.strerror})") from error
        authorities = tuple(entry / name for name in names if name.endswith(".crt"))
        for file in authorities:
            _check_authorities(file, now)
        return HostCertificates(authorities=authorities, client_pairs=_pair(entry, names, now))
    return HostCertificates()


def _pair(entry: Path, names: Sequence[str], now: datetime) -> tuple[ClientPair, ...]:
    pairs: list[ClientPair] = []
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if suffix not in {"cert", "key"}:
            continue
        other = stem + dot + ("key" if suffix == "cert" else "cert")
        if other not in names:
            hint = "authorities end in .crt; .cert and .key are a client's and come in pairs"
            raise CertificateInvalidError(str(entry / name), f"{other} is missing beside it", hint=hint)
        if suffix == "cert":
            pair = ClientPair(certificate=entry / name, key=entry / other)
            _check_pair(pair, now)
            pairs.append(pair)
    return tuple(pairs)


def _check_authorities(file: Path, now: datetime) -> None:
    certificates = _read_certificates(file)
    # Bundles of authorities often carry one that has run out; only a file of nothing else is a mistake.
    faults = [_find_time_fault(certificate, now) for certificate in certificates]
    if all(fault is not None for fault in faults):
        raise CertificateInvalidError(str(file), f"the authority's certificate {faults[0]}")


def _check_pair(pair: ClientPair, now: datetime) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key  # noqa: PLC0415

    leaf = _read_certificates(pair.certificate)[0]
    fault = _find_time_fault(leaf, now)
    if fault is not None:
        raise CertificateInvalidError(str(pair.certificate), f"the client certificate {fault}")
    try:
        key = load_pem_private_key(_read(pair.key), password=None)
    except TypeError as error:
        raise CertificateInvalidError(
            str(pair.key),
            "the key is protected by a passphrase, which nobody can be asked for",
            hint=f"write it without one: openssl pkey -in {pair.key} -out NEW.key",
        ) from error
    except Exception as error:  # cryptography raises ValueError, UnsupportedAlgorithm and its own internal error here
        raise CertificateInvalidError(str(pair.key), "it holds no private key in PEM form") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise CertificateInvalidError(str(pair.key), f"the key does not belong to {pair.certificate.name}")


def _read_certificates(file: Path) -> list[Certificate]:
    from cryptography import x509  # noqa: PLC0415

    data = _read(file)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        hint = None
        if data[:1] == b"\x30":  # the tag of an ASN.1 sequence
            hint = f"convert it to PEM: openssl x509 -inform der -in {file} -out NEW{file.suffix}"
        raise CertificateInvalidError(str(file), "it holds no certificate in PEM form", hint=hint) from error


def _find_time_fault(certificate: Certificate, now: datetime) -> str | None:
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"is only valid from {certificate.not_valid_before_utc:%Y-%m-%d}"
    return None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateInvalidError(str(file), f"it cannot be read ({error.strerror})") from error
