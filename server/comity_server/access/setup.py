"""What the settings say of access, read and put together."""

from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from comity_server.access.bounds import Bounds
from comity_server.access.certificates import Certificates
from comity_server.access.clients import Clients
from comity_server.access.exposure import authenticates
from comity_server.access.files import Files, Watched
from comity_server.access.gate import Gate
from comity_server.access.hints import hints
from comity_server.access.identity import Authenticator
from comity_server.access.jwts import Jwts
from comity_server.access.policy import Policy
from comity_server.access.policy import watched as watched_policy
from comity_server.access.tokens import watched as watched_tokens
from comity_server.settings import Settings

log = structlog.get_logger(__name__)


class Access:
    """The gate of a server, its certificates if it has any, and the files that they are made of.

    Raises FileError if a file is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self.files = Files()
        self.certificates: Certificates | None = None
        clients = tokens = jwts = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self.certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
            self.files.add(self.certificates.pair)
            if settings.tls_client_ca is not None:
                clients = Clients(self.certificates)
        if settings.tokens is not None:
            tokens = watched_tokens(settings.tokens)
            self.files.add(tokens)
        if settings.jwks is not None:
            jwts = Jwts(settings.jwks, settings.jwt_issuer, settings.jwt_audience, settings.jwt_principal_claim)
            self.files.add(jwts.keys)
        self.bounds = Bounds(settings.rules(), settings.max_calls)
        self._authenticates = authenticates(settings)
        self._policy: Watched[Policy] | None = None
        if settings.policy is not None:
            self._policy = watched_policy(settings.policy)
            self.files.add(self._policy)
            self._use(self._policy.value)
            self._policy.on_change(self._change)
        policy = self._policy
        self.gate = Gate(
            Authenticator(tokens, jwts, clients, anonymous=lambda: policy is not None and policy.value.knows_anonymous)
            if self._authenticates
            else None,
            None if policy is None else lambda: policy.value,
            self.bounds,
        )
        self.files.on_change(self.gate.changed)

    def warnings(self) -> Sequence[str]:
        """What the policy says and can hardly mean."""
        return [] if self._policy is None else list(hints(self._policy.value, authenticates=self._authenticates))

    def _change(self, policy: Policy) -> None:
        self._use(policy)
        for warning in self.warnings():
            log.warning("the policy may not say what it is meant to", warning=warning)

    def _use(self, policy: Policy) -> None:
        self.bounds.use(policy.limits)

    def runs(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What has to run beside the server."""
        runs = [self.files.run(), self.gate.run()]
        return runs if self.certificates is None else [*runs, self.certificates.run()]
