"""Addresses to listen on, and whether they are free: gRPC tells only its own log what is wrong with one."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

Place = tuple[Any, ...]  # as `socket.getaddrinfo` answers
Serving = Callable[[Sequence[str], Sequence[str]], None]  # is told the addresses of a server, and those of its health


class ListenError(Exception):
    """An address cannot be listened on. The message says which and why."""


def host_of(address: str) -> tuple[str, int]:
    """The host, without the brackets of an IPv6 address, and the port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind(address: str, add_port: Callable[[str], int], *, shared: bool = False) -> str:
    """Have a gRPC server listen on an address, by its method for it, and return the address with the port that was
    chosen where it says 0. Raises ListenError as `free` does."""
    free(address, shared=shared)
    try:
        bound = add_port(address)
    except RuntimeError:
        raise ListenError(f"cannot listen on {address}") from None
    return f"{address.rpartition(':')[0]}:{bound}"


def places(host: str, port: int) -> Sequence[Place]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)


def free(address: str, *, shared: bool = False) -> None:
    """Raises ListenError if an address cannot be listened on: if another program does, or with `shared`, one that does
    not share it with this one."""
    try:
        for family, kind, protocol, _, place in places(*host_of(address)):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(place)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from None
