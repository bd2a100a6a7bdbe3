"""A certificate authority for tests: roots, chains, PayPal's signer, and the certificate of a local server."""

from __future__ import annotations

import functools
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
SANDBOX_SIGNER = "messageverificationcerts.sandbox.paypal.com"
LIVE_SIGNER = "messageverificationcerts.paypal.com"
# A usage is a matter of seconds; the tests look at moments around now.
VALID_DAYS = 30


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.cache
def rsa_key(of: str = "signer") -> rsa.RSAPrivateKey:
    """The key of somebody, made once for all tests, since that takes as long as three of them."""
    return rsa.generate_private_key(65537, 2048)


def authority(name: str, issuer: Issued | None = None) -> Issued:
    """A root, or an intermediate under `issuer`."""
    return _issue(name, ec.generate_private_key(ec.SECP256R1()), issuer, ca=True)


def leaf(
    issuer: Issued,
    *names: str,
    key: PrivateKey | None = None,
    common_name: str | None = None,
    days: tuple[int, int] = (-1, VALID_DAYS),
) -> Issued:
    """A server's certificate, valid from and until so many days from now; the first name is its common one."""
    chosen = key or ec.generate_private_key(ec.SECP256R1())
    return _issue(common_name or names[0], chosen, issuer, names=names, days=days)


def _issue(
    name: str,
    key: PrivateKey,
    issuer: Issued | None,
    *,
    ca: bool = False,
    names: tuple[str, ...] = (),
    days: tuple[int, int] = (-2, VALID_DAYS + 1),
) -> Issued:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = key if issuer is None else issuer.key
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(_usage(ca=ca), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(each) for each in names]), critical=False
        )
    if not ca:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return Issued(builder.sign(signer, SHA256()), key)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(issued: Issued, folder: Path) -> ssl.SSLContext:
    """What a local https server is started with."""
    file = folder / "server.pem"
    file.write_bytes(issued.key_pem + issued.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
