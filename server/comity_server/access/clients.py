"""Who a client's certificate is of. TLS has verified it: an authority of `tls_client_ca` signed it, and the client has
its key."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from comity_server.access.caller import Identity
from comity_server.access.certificates import Certificates
from comity_server.errors import Unauthenticated
from comity_server.names import wrong_with

REMEMBERED: Final = 10_000  # certificates
SCHEME: Final = "spiffe:"  # that of SPIFFE IDs
# As the standard has it, but for its length: a name is shorter than the 2,048 bytes that an ID may have.
SPIFFE_ID: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.\.?(/|$))[a-zA-Z0-9._-]+)*", re.ASCII)


class Known(NamedTuple):
    identity: Identity
    trusted: bool


class Clients:
    """Tells who clients are by their certificates.

    Args:
        certificates: which know the authorities.
    """

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        certificates.pair.on_change(lambda _: self._known.clear())

    def identify(self, pem: bytes, guess: Callable[[], None] = lambda: None) -> Identity:
        """Whose a certificate is: the SPIFFE ID in it, or else its common name. `guess` is called before one is read
        that is not known. Raises Unauthenticated."""
        known = self._known.get(pem)
        if known is None:
            guess()
            known = self._read(pem)
            self._known[pem] = known
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(pem)
        # TLS looks at both when a client connects, which may be long ago.
        if not known.trusted:
            raise Unauthenticated("unknown", "the authority that signed the client's certificate is trusted no more")
        if known.identity.expires is not None and known.identity.expires <= time.time():
            raise Unauthenticated("expired", "the client's certificate has expired")
        return known.identity

    def _read(self, pem: bytes) -> Known:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            identity = Identity(_principal(certificate), certificate.not_valid_after_utc.timestamp())
            return Known(identity, not self._certificates.distrusts(certificate))
        except Unauthenticated:
            raise
        except Exception:  # noqa: BLE001 - TLS lets in what the parser does not know, and that fails in many ways
            raise Unauthenticated("malformed", "the client's certificate cannot be read") from None


def _principal(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    spiffe = [uri for uri in uris if uri.lower().startswith(SCHEME)]
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(spiffe) > 1:
        raise Unauthenticated("malformed", "the client's certificate has more than one SPIFFE ID")
    if spiffe:
        what, principal = "SPIFFE ID", spiffe[0]
        if SPIFFE_ID.fullmatch(principal) is None:
            raise Unauthenticated("malformed", "the SPIFFE ID of the client's certificate is not well-formed")
    elif len(common) == 1:
        what, principal = "common name", str(common[0].value)
        if principal.lower().startswith(SCHEME):  # an authority may verify the URIs that it signs, and not these
            raise Unauthenticated("malformed", "the common name of the client's certificate looks like a SPIFFE ID")
    else:
        raise Unauthenticated("malformed", "the client's certificate has neither a SPIFFE ID nor one common name")
    if (wrong := wrong_with(principal)) is not None:
        raise Unauthenticated("malformed", f"the {what} of the client's certificate {wrong}")
    return principal
