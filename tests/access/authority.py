"""Certificates for tests: an authority, what it issues, and channels that show it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in PEM."""

    cert: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both as `cert.pem` and `key.pem`."""
        cert, key = folder / "cert.pem", folder / "key.pem"
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)
        return cert, key


class Authority:
    """Issues certificates."""

    def __init__(self, name: str = "authority", lasts: timedelta = 365 * DAY) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key, lasts)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def server(self, lasts: timedelta = 90 * DAY) -> Issued:
        """For localhost and 127.0.0.1."""
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return self._issue(["localhost"], names, lasts)

    def client(self, *common: str, uris: tuple[str, ...] = (), lasts: timedelta = 90 * DAY) -> Issued:
        """With so many common names and URIs."""
        return self._issue(common, [x509.UniformResourceIdentifier(uri) for uri in uris], lasts)

    def _issue(self, common: tuple[str, ...] | list[str], names: list[x509.GeneralName], lasts: timedelta) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common])
        builder = self._builder(subject, key, lasts)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(certificate.public_bytes(Encoding.PEM), pem_of(key))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(now + lasts)
        )


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def channel(address: str, trusted: bytes, shown: Issued | None = None) -> grpc.Channel:
    """A connection of its own to a server that one of the trusted authorities has certified."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(address, _credentials(trusted, shown), own)


def async_channel(address: str, trusted: bytes, shown: Issued | None = None) -> grpc.aio.Channel:
    """The same for `grpc.aio`."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, _credentials(trusted, shown), own)


def _credentials(trusted: bytes, shown: Issued | None) -> grpc.ChannelCredentials:
    key, cert = (shown.key, shown.cert) if shown is not None else (None, None)
    return grpc.ssl_channel_credentials(trusted, key, cert)
