"""Addresses of servers: what a caller says, what gRPC wants, and which of them are of this machine."""

import ipaddress
from typing import Final

__all__ = ["is_here", "shown", "targets"]

DEFAULT_PORT: Final = 7171
SCHEMES: Final = ("dns:///", "ipv4:", "ipv6:")


def targets(address: str) -> tuple[str, ...]:
    """The gRPC targets of `host:port[,host:port]`, in the order in which to try them. The port is 7171 unless said.

    Each address is a target of its own: of several in one, gRPC would leave one that accepts connections and does not
    answer for no other. Raises TypeError for what is no str, ValueError for what is no address.
    """
    if not isinstance(address, str):
        raise TypeError(f"address must be a str, HOST:PORT[,HOST:PORT], not {type(address).__name__}")
    return tuple(_target(part.strip()) for part in address.split(","))


def _target(address: str) -> str:
    bare_ipv6 = address.count(":") > 1 and not address.startswith("[")
    if ":" not in address or address.endswith("]") or bare_ipv6:
        host, port = address, str(DEFAULT_PORT)
    else:
        host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{address!r} is no address: the port must be a number from 1 to 65535")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        literal = ipaddress.ip_address(bare)
    except ValueError:
        if not host or set(host) & set("[]:/ \t"):
            raise ValueError(f"{address!r} is no address: it should be HOST:PORT") from None
        return f"dns:///{host}:{port}"
    return f"ipv4:{bare}:{port}" if literal.version == 4 else f"ipv6:[{bare}]:{port}"


def shown(target: str) -> str:
    """The address of a target, for people."""
    for scheme in SCHEMES:
        target = target.removeprefix(scheme)
    return target


def is_here(target: str) -> bool:
    """Whether what is sent to a target does not leave this machine."""
    host = shown(target).rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
