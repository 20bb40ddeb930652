"""A service manager is told when the server serves, if it asks: by systemd's protocol, a datagram to NOTIFY_SOCKET."""

import os
import socket

import structlog

log = structlog.get_logger(__name__)

SOCKET = "NOTIFY_SOCKET"
ABSTRACT = "@"  # how an address begins that is no file


def notify_ready() -> None:
    """Tell whoever started this process that it serves. That nobody can be told is no reason not to."""
    address = os.environ.get(SOCKET, "")
    if not address:
        return
    if address.startswith(ABSTRACT):
        address = "\0" + address.removeprefix(ABSTRACT)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(b"READY=1", address)
    except (OSError, ValueError, AttributeError) as error:  # AttributeError: a system without such sockets
        log.warning("the service manager cannot be told that the server serves", error=str(error))
