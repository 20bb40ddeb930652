"""Certificates for tests: an authority, and what it issues."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY: Final = timedelta(days=1)


class Pair(NamedTuple):
    """The files of a certificate and its key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in PEM."""

    cert: bytes
    key: bytes

    def write(self, folder: Path, name: str = "") -> Pair:
        """Write both, as `cert.pem` and `key.pem` or with a name before that. What is there already is replaced as by a
        rename over each."""
        before = f"{name}-" if name else ""
        pair = Pair(folder / f"{before}cert.pem", folder / f"{before}key.pem")
        for path, pem in ((pair.key, self.key), (pair.cert, self.cert)):
            fresh = path.with_suffix(".fresh")
            fresh.write_bytes(pem)
            fresh.rename(path)
        return pair


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

    def write(self, folder: Path, name: str = "ca.pem") -> Path:
        """Write its own certificate to a file."""
        path = folder / name
        path.write_bytes(self.pem)
        return path

    def server(self, *names: str, lasts: timedelta = 90 * DAY) -> Issued:
        """For host names; for localhost and 127.0.0.1 if none is said."""
        names = names or ("localhost", "127.0.0.1")
        return self._issue(names[:1], [_host(name) for name in names], lasts)

    def client(
        self, *common: str, uris: tuple[str, ...] = (), raw_names: bytes = b"", lasts: timedelta = 90 * DAY
    ) -> Issued:
        """With so many common names and URIs; or names in DER for the extension of them, be they right or not."""
        return self._issue(common, [x509.UniformResourceIdentifier(uri) for uri in uris], lasts, raw_names)

    def _issue(
        self, common: tuple[str, ...], names: list[x509.GeneralName], lasts: timedelta, raw_names: bytes = b""
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common])
        builder = self._builder(subject, key, lasts)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common)
        if raw_names:
            raw = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, raw_names)
            builder = builder.add_extension(raw, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Issued(certificate.public_bytes(Encoding.PEM), pem)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(now + lasts)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(signed_by, critical=False)
        )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
