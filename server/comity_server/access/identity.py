"""Who makes a call: whom its bearer token names, or else its connection's certificate."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from comity_server.access.caller import NOBODY, Identity
from comity_server.access.files import Watched
from comity_server.access.tokens import Tokens, digest_of
from comity_server.errors import Unauthenticated

if TYPE_CHECKING:
    from comity_server.access.clients import Clients
    from comity_server.access.jwts import Jwts

HEADER: Final = "authorization"
HEADER_BYTES: Final = 8 * 1024  # nothing longer is looked at
BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)  # RFC 6750, section 2.1
PEM: Final = "x509_pem_cert"  # of the client, in gRPC's context of a connection


class Shown(NamedTuple):
    """What a call shows of who makes it."""

    token: str | None
    certificate: bytes | None

    def __repr__(self) -> str:
        return "Shown(…)"  # so that it ends up in no log


class Authenticator:
    """Finds out who makes a call.

    Args:
        tokens: the token file.
        jwts: who verifies JWTs.
        clients: who knows clients by their certificates.
        anonymous: whether those who show nothing may call, which is asked at each call.
    """

    def __init__(
        self,
        tokens: Watched[Tokens] | None = None,
        jwts: "Jwts | None" = None,
        clients: "Clients | None" = None,
        anonymous: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tokens = tokens
        self._jwts = jwts
        self._clients = clients
        self._anonymous = anonymous

    def identify(
        self,
        metadata: Iterable[tuple[str, str | bytes]],
        auth_context: Mapping[str, Iterable[bytes]],
        guess: Callable[[], None] = lambda: None,
    ) -> tuple[Identity, Shown]:
        """Who makes a call, and what shows it. `guess` is called before what is shown is looked into, if it is not
        known, and may raise an error. Raises Unauthenticated."""
        shown = Shown(_token(metadata), next(iter(auth_context.get(PEM, ())), None))
        return self._who(shown, guess), shown

    def check(self, identity: Identity, proof: object) -> None:
        """Raise Unauthenticated if what was shown does not show it any more."""
        assert isinstance(proof, Shown)
        if self._who(proof).principal != identity.principal:
            raise Unauthenticated("unknown", "what the call has shown is by now somebody else's")

    def _who(self, shown: Shown, guess: Callable[[], None] = lambda: None) -> Identity:
        if shown.token is not None:
            return self._by_token(shown.token, guess)
        if shown.certificate is not None and self._clients is not None:
            return self._clients.identify(shown.certificate, guess)
        if self._anonymous():
            return NOBODY
        takes_tokens = self._tokens is not None or self._jwts is not None
        raise Unauthenticated("missing", f"a {'bearer token' if takes_tokens else 'client certificate'} is required")

    def _by_token(self, token: str, guess: Callable[[], None]) -> Identity:
        now = time.time()
        if self._tokens is not None and (known := self._tokens.value.get(digest_of(token))) is not None:
            if known.expires is not None and known.expires <= now:
                raise Unauthenticated("expired", "the token has expired")
            return Identity(known.principal, known.expires)
        if self._jwts is not None and token.count(".") == 2:
            return self._jwts.identify(token, now, guess)
        guess()
        raise Unauthenticated("unknown", "the token is not known")


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The bearer token of a call, if it has one. Raises Unauthenticated if what it has is none."""
    found: str | None = None
    for name, value in metadata:
        if not name.startswith(HEADER):
            continue
        if name == HEADER + "-bin":
            raise Unauthenticated("malformed", f"{HEADER} is text, and there is a {HEADER}-bin")
        if name != HEADER:
            continue
        if found is not None:
            raise Unauthenticated("malformed", f"there is more than one {HEADER}")
        if not isinstance(value, str) or len(value) > HEADER_BYTES:
            raise Unauthenticated("malformed", f"{HEADER} is no text of up to {HEADER_BYTES} bytes")
        match = BEARER.fullmatch(value)
        if match is None:
            raise Unauthenticated("malformed", f"{HEADER} is not `Bearer TOKEN`")
        found = match[1]
    return found
