"""Certificates for tests: an authority, and what it signs for a server and for a client."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def authority(folder: Path) -> Authority:
    """A new authority, whose certificate is `ca.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("ca", key)
        .issuer_name(_name("ca"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key)


def server_certificate(folder: Path, by: Authority) -> None:
    """`server.pem` and `server.key`, for 127.0.0.1 and localhost."""
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("server", key).add_extension(names, critical=False)
    _write(folder, "server", _signed(builder, by), key, "")


def client_certificate(folder: Path, by: Authority, *, password: str = "") -> None:
    """`client.pem` and `client.key`, which a password locks where there is one."""
    key = ec.generate_private_key(ec.SECP256R1())
    _write(folder, "client", _signed(_builder("client", key), by), key, password)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(common: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _signed(builder: x509.CertificateBuilder, by: Authority) -> x509.Certificate:
    return builder.issuer_name(by.certificate.subject).sign(by.key, hashes.SHA256())


def _write(
    folder: Path,
    name: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    password: str,
) -> None:
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        lock = serialization.BestAvailableEncryption(password.encode())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
    )
