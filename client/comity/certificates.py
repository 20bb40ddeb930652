"""The certificates and keys that connections by TLS are made with, as their files hold them."""

import logging
import re
import ssl
from typing import Final, NamedTuple

import grpc

from . import files
from .files import FilePath
from .tls import TLS

__all__ = ["Certificates", "Material"]

TRIES: Final = 3  # of reading files that are just being replaced
CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

log = logging.getLogger("comity")


class Material(NamedTuple):
    """What the files held at one moment."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


class Certificates:
    """The certificates that connections are made with: those of the files, as they are now.

    What cannot be used is told to the log, and what was there before stays.

    Raises ValueError for what cannot be used at first.
    """

    def __init__(self, tls: TLS) -> None:
        self.server_name = tls.server_name
        self._tls = tls
        self._state = self._look()
        self._material = load(tls)

    def current(self) -> Material:
        """What the files hold. Cheap where they have not changed."""
        state = self._look()
        if state != self._state:
            self._state = state
            try:
                self._material = load(self._tls)
            except ValueError as error:
                log.warning("certificates are not renewed: %s", error)
        return self._material

    @property
    def shows_one(self) -> bool:
        """Whether servers are shown a certificate."""
        return self._tls.cert is not None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have a context of OpenSSL use what the files hold. Raises OSError, of which ssl.SSLError is one."""
        if self._tls.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(self._tls.ca)
        if self._tls.cert is not None and self._tls.key is not None:
            context.load_cert_chain(self._tls.cert, self._tls.key)

    def _look(self) -> tuple[object, ...]:
        return tuple(files.state(path) for path in (self._tls.ca, self._tls.cert, self._tls.key) if path is not None)


def load(tls: TLS) -> Material:
    """What the files hold. Raises ValueError, which names the file, for what no connection can be made with."""
    ca = None if tls.ca is None else files.read("TLS ca", tls.ca)
    if ca is not None:
        _check_certificates("TLS ca", tls.ca, ca)
    if tls.cert is None or tls.key is None:
        return Material(ca, None, None)
    for _ in range(TRIES):
        cert, key = files.read("TLS cert", tls.cert), files.read("TLS key", tls.key)
        _check_certificates("TLS cert", tls.cert, cert)
        refused = _refused(tls.cert, tls.key)
        # OpenSSL takes them from files alone, which may have been replaced since they were read.
        if (cert, key) == (files.read("TLS cert", tls.cert), files.read("TLS key", tls.key)):
            break
    else:
        refused = f"TLS cert {tls.cert} and key {tls.key} change all the time"
    if refused:
        raise ValueError(refused)
    return Material(ca, cert, key)


def _check_certificates(what: str, path: FilePath | None, data: bytes) -> None:
    found = CERTIFICATE.findall(data)
    if not found:
        raise ValueError(f"{what}: {path} holds no certificate in PEM")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"\n".join(found).decode())
    except ssl.SSLError:
        raise ValueError(f"{what}: {path} holds a certificate that is malformed") from None


def _refused(cert: FilePath, key: FilePath) -> str:
    """Why a certificate and a key are none that go together. Empty: they do."""
    encrypted = False

    def password() -> bytes:
        nonlocal encrypted
        encrypted = True
        return b""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if encrypted:
            return f"TLS key: {key} is encrypted, and there is no way to say its password"
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"TLS key: {key} is not the key of the certificate in {cert}"
        return f"TLS key: {key} holds no private key in PEM"
    except OSError as error:
        return f"TLS key: cannot read {key}: {error.strerror}"
    return ""
