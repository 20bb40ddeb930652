"""What the settings say of access, read and put together."""

from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from comity_server.access.bounds import Bounds
from comity_server.access.exposure import authenticates
from comity_server.access.files import FileError, Files, Watched
from comity_server.access.gate import Gate
from comity_server.access.guesses import Guesses
from comity_server.access.hints import hints
from comity_server.access.identity import Authenticator
from comity_server.access.limits import NamespaceLimits, PrincipalLimits, Rates, Rules, rate
from comity_server.access.policy import Policy
from comity_server.access.policy import watched as watched_policy
from comity_server.access.tokens import watched as watched_tokens
from comity_server.settings import Settings

if TYPE_CHECKING:
    from comity_server.access.certificates import Certificates

log = structlog.get_logger(__name__)


class Access:
    """The gate of a server, its certificates if it has any, and the files that they are made of.

    Raises FileError if a file is wrong, which names the setting and the file.
    """

    def __init__(self, settings: Settings) -> None:
        self.files = Files()
        self.certificates: Certificates | None = None
        clients = tokens = jwts = None
        # What reads certificates and JWTs takes long to import, and many a server has neither.
        if settings.tls_cert is not None and settings.tls_key is not None:
            from comity_server.access import certificates

            with _named(settings, "tls_cert", "tls_key", "tls_client_ca"):
                self.certificates = certificates.Certificates(
                    settings.tls_cert, settings.tls_key, settings.tls_client_ca
                )
            self.files.add(self.certificates.pair)
            if settings.tls_client_ca is not None:
                from comity_server.access.clients import Clients

                clients = Clients(self.certificates)
        if settings.tokens is not None:
            with _named(settings, "tokens"):
                tokens = watched_tokens(settings.tokens)
            self.files.add(tokens)
        if settings.jwks is not None:
            from comity_server.access.jwts import Jwts

            with _named(settings, "jwks"):
                jwts = Jwts(settings.jwks, settings.jwt_issuer, settings.jwt_audience, settings.jwt_principal_claim)
            self.files.add(jwts.keys)
        self.bounds = Bounds(rules(settings), settings.max_calls)
        self._authenticates = authenticates(settings)
        self._policy: Watched[Policy] | None = None
        if settings.policy is not None:
            with _named(settings, "policy"):
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
            Guesses(rate(settings.rate_unauthenticated, 0)),
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


def rules(settings: Settings) -> Rules:
    """What one principal, and one namespace, may take up where no policy says else."""
    return Rules(
        PrincipalLimits(_rates(settings, "principal"), settings.max_principal_calls, settings.max_principal_streams),
        NamespaceLimits(_rates(settings, "namespace"), settings.limits(), settings.retention()),
    )


def _rates(settings: Settings, of: str) -> Rates:
    figures = settings.under(f"rate_{of}")
    return Rates(rate(figures[""], figures["_burst"]), rate(figures["_bytes"], figures["_bytes_burst"]))


@contextmanager
def _named(settings: Settings, *names: str) -> Iterator[None]:
    """Have an error of a file name its setting, which is one of some, in the order of the files."""
    try:
        yield
    except FileError as error:
        if error.place is not None:
            name = names[error.place]
        else:
            name = next((each for each in names if str(error).startswith(f"{getattr(settings, each)}:")), names[0])
        raise FileError(f"{name}: {error}") from None
