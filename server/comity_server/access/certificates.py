"""The server's certificate, and the authorities whose clients it lets in. New connections are made with the files as
they are by then; what is connected already stays so.

`cryptography` looks at the files before gRPC does, which says of a wrong one no more than that a handshake failed.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from comity_server.access.files import Contents, FileError, Watched

log = structlog.get_logger(__name__)

SOON: Final = timedelta(days=14)
REMIND_SECONDS: Final = 86400.0
REMOVED: Final = 100  # authorities, above which those go that have expired: TLS lets in none of their clients
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")  # of gRPC's TLS

Private = RSAPrivateKey | EllipticCurvePrivateKey


class Pair(NamedTuple):
    """What new connections are made with."""

    configuration: grpc.ServerCertificateConfiguration
    certificate: x509.Certificate
    authorities: Sequence[x509.Certificate]
    """That sign the certificates of clients; empty: clients need none."""


class Certificates:
    """The certificates of a server.

    Args:
        cert: a PEM file of its certificate, with those between it and its authority after it.
        key: a PEM file of the private key, which is not encrypted.
        client_ca: a PEM file of the authorities that sign the certificates of clients, which then must show one.

    Raises FileError.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        paths = [cert, key] if client_ca is None else [cert, key, client_ca]
        self.pair: Watched[Pair] = Watched("certificates", paths, lambda contents: parse(contents, paths))
        self._authorities = self.pair.value.authorities
        self._removed: Sequence[x509.Certificate] = ()  # authorities that were in force, and are no more
        self.pair.on_change(self._change)

    def credentials(self) -> grpc.ServerCredentials:
        """For one port: gRPC remembers for each what it was given last."""
        given = self.pair.value

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """What to make a connection with, or that it has not changed. Called by gRPC's threads, one at a time."""
            nonlocal given
            current = self.pair.value
            if current is given:
                return None
            given = current
            return current.configuration

        make: Callable[..., grpc.ServerCredentials] = grpc.dynamic_ssl_server_credentials
        return make(given.configuration, fetch, require_client_authentication=bool(given.authorities))

    def distrusts(self, certificate: x509.Certificate) -> bool:
        """Whether an authority that is in the file no more signed the certificate of a client, and none that is."""
        return _signed(certificate, self._removed) and not _signed(certificate, self._authorities)

    async def run(self) -> None:
        """Remind of what expires soon: at once, and each day."""
        while True:
            self.remind()
            await asyncio.sleep(REMIND_SECONDS)

    def remind(self) -> None:
        """Log what has expired, or will before long, or holds not yet."""
        now = datetime.now(UTC)
        cert, _, *client_ca = self.pair.paths
        for path, certificates in (
            (cert, [self.pair.value.certificate]),
            *((ca, self._authorities) for ca in client_ca),
        ):
            for certificate in certificates:
                first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
                about = {"file": str(path), "subject": certificate.subject.rfc4514_string()}
                if last <= now:
                    log.warning("a certificate has expired", expired=last.isoformat(), **about)
                elif first > now:
                    log.warning("a certificate is not valid yet", valid_from=first.isoformat(), **about)
                elif last - now < SOON:
                    log.warning("a certificate expires soon", expires=last.isoformat(), days=(last - now).days, **about)

    def _change(self, pair: Pair) -> None:
        known = {*self._removed, *self._authorities}
        self._authorities = pair.authorities
        removed = [authority for authority in known if authority not in pair.authorities]
        if len(removed) > REMOVED:
            now = datetime.now(UTC)
            removed = [authority for authority in removed if authority.not_valid_after_utc > now]
        self._removed = removed
        self.remind()


def parse(contents: Contents, paths: Sequence[Path]) -> Pair:
    """What the files hold: the certificate, its key, and the authorities of clients if there are three. Raises
    FileError."""
    with _placed(0):
        chain = _certificates(contents[0], paths[0])
    with _placed(1):
        key = _key(contents[1], paths[1])
        if key.public_key() != chain[0].public_key():
            raise FileError(f"{paths[1]}: is not the key of the first certificate in {paths[0]}")
    with _placed(2):
        authorities = _certificates(contents[2], paths[2]) if len(contents) > 2 else []
    configuration = grpc.ssl_server_certificate_configuration(
        [(contents[1], contents[0])], root_certificates=contents[2] if authorities else None
    )
    return Pair(configuration, chain[0], authorities)


@contextmanager
def _placed(place: int) -> Iterator[None]:
    """Have an error tell of which file it is: one file may have been named for several."""
    try:
        yield
    except FileError as error:
        error.place = place
        raise


def _certificates(content: bytes, path: Path) -> Sequence[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for certificate in certificates:
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        if b"-----BEGIN CERTIFICATE-----" not in content:
            raise FileError(f"{path}: has no certificate in PEM") from None
        raise FileError(f"{path}: has a certificate that cannot be read") from None
    return certificates


def _key(content: bytes, path: Path) -> Private:
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise FileError(f"{path}: the private key is encrypted, and has to be plain") from None
    except (ValueError, UnsupportedAlgorithm):
        if b"PRIVATE KEY-----" not in content:
            raise FileError(f"{path}: has no private key in PEM") from None
        raise FileError(f"{path}: has a private key that cannot be read") from None
    if isinstance(key, RSAPrivateKey) or (isinstance(key, EllipticCurvePrivateKey) and key.curve.name in CURVES):
        return key
    raise FileError(f"{path}: the private key has to be of RSA, or on one of the curves P-256, P-384 and P-521")


def _signed(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    """Whether one of them signed it."""
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return True
    return False
