"""Settings of which each is right by itself, and which do not go together."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from comity_server.listening import host_of
from comity_server.settings import Settings

NEEDS: Final = {
    "tls_cert": "tls_key",
    "tls_key": "tls_cert",
    "tls_client_ca": "tls_cert",
    "jwt_issuer": "jwks",
    "jwt_audience": "jwks",
    "jwt_principal_claim": "jwks",
    "rate_principal_burst": "rate_principal",
    "rate_principal_bytes_burst": "rate_principal_bytes",
    "rate_namespace_burst": "rate_namespace",
    "rate_namespace_bytes_burst": "rate_namespace_bytes",
}
"""What is of no use without another."""
ORDERED: Final = (
    ("limit_lease_ttl_least", "limit_lease_ttl_most"),
    ("limit_value_bytes", "limit_transaction_bytes"),
    ("limit_transaction_bytes", "max_connection_bytes"),
    ("limit_transaction_bytes", "max_bytes"),
)
"""What must not be above another."""
LISTENS: Final = ("listen", "health_listen", "metrics_listen")
"""What is listened on: an address by one of them, once."""


class Misfit(NamedTuple):
    """Two settings that do not go together."""

    name: str
    """The one to name first."""
    other: str
    problem: str
    """What is wrong, with `{}` where the other one is to be named."""


def misfits(settings: Settings) -> Iterator[Misfit]:
    """What does not go together."""
    for name, other in NEEDS.items():
        if getattr(settings, name) != Settings.model_fields[name].default and not getattr(settings, other):
            yield Misfit(name, other, "is of no use without {}")
    yield from _named_twice(settings)
    for name, other in ORDERED:
        value, bound = getattr(settings, name), getattr(settings, other)
        if value > bound:
            if name in settings.model_fields_set or other not in settings.model_fields_set:
                yield Misfit(name, other, f"{value} is above {{}}, which is {bound}")
            else:  # it is its default
                yield Misfit(other, name, f"{bound} is below {{}}, which is {value}")


def _named_twice(settings: Settings) -> Iterator[Misfit]:
    named: dict[tuple[str, int], str] = {}  # addresses, and by which setting
    for name in LISTENS:
        said = getattr(settings, name)
        for address in said if isinstance(said, list) else [said] if said else []:
            host, port = host_of(address.lower())
            other = named.get((host, port))
            if other is not None:
                shown = address.replace("{", "{{").replace("}", "}}")
                yield Misfit(name, other, f"{shown} is named " + ("twice" if name == other else "by {}, too"))
            elif port:  # else each has a free one
                named[host, port] = name
