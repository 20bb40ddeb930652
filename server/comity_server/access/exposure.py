"""What the settings of access leave open, and whether others can reach it."""

import ipaddress
from collections.abc import Iterator, Sequence

from comity_server.listening import ListenError, host_of, places
from comity_server.settings import Settings


def authenticates(settings: Settings) -> bool:
    """Whether callers have to show who they are."""
    return bool(settings.tokens or settings.jwks or settings.tls_client_ca)


def missing(settings: Settings) -> Sequence[str]:
    """What a server lacks that others can reach."""
    lacks = []
    if not settings.tls_cert:
        lacks.append("TLS (--tls-cert and --tls-key)")
    if not authenticates(settings):
        lacks.append("authentication (--tokens, --jwks or --tls-client-ca)")
    return lacks


def exposed(settings: Settings) -> Sequence[str]:
    """The addresses that others than this machine can reach. Raises ListenError for one that cannot be resolved."""
    return [address for address in settings.listen if not _is_loopback(address)]


def shows_metrics(settings: Settings) -> bool:
    """Whether others than this machine can read metrics, for which nobody is asked who they are. Raises ListenError."""
    return bool(settings.metrics_listen) and not _is_loopback(settings.metrics_listen)


def names_namespaces(settings: Settings) -> bool:
    """Whether metrics have the names of namespaces. Raises ListenError."""
    return not shows_metrics(settings) if settings.metrics_namespaces is None else settings.metrics_namespaces


def _is_loopback(address: str) -> bool:
    try:
        hosts = list(_hosts(address))
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from None
    return all(_loops(host) for host in hosts)


def _hosts(address: str) -> Iterator[str]:
    for *_, place in places(*host_of(address)):
        yield str(place[0])


def _loops(host: str) -> bool:
    ip = ipaddress.ip_address(host)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
