"""Which connections there may be, and how long: what gRPC is told of that by each server that this process has."""

from typing import Any

from comity_server.settings import Settings


def options(settings: Settings) -> list[tuple[str, Any]]:
    """Arguments of a gRPC server."""
    return [
        # Where there are no workers, a second server on the port has to fail, not to take half of the calls.
        ("grpc.so_reuseport", int(settings.workers > 1)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),  # of each address
        ("grpc.max_connection_idle_ms", int(settings.connection_idle * 1000)),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_timeout * 1000)),
        # The server pings, so that the streams of clients that are gone end.
        ("grpc.keepalive_time_ms", int(settings.keepalive_time * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout * 1000)),
        ("grpc.http2.ping_timeout_ms", int(settings.keepalive_timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
