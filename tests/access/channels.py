"""Connections to servers by TLS, each of its own, which show a certificate."""

import grpc

from tests.authority import Issued


def channel(address: str, trusted: bytes, shown: Issued | None = None) -> grpc.Channel:
    """A connection of its own to a server that one of the trusted authorities has certified."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(address, _credentials(trusted, shown), own)


def async_channel(address: str, trusted: bytes, shown: Issued | None = None) -> grpc.aio.Channel:
    """The same for `grpc.aio`."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, _credentials(trusted, shown), own)


def _credentials(trusted: bytes, shown: Issued | None) -> grpc.ChannelCredentials:
    key, cert = (shown.key, shown.cert) if shown is not None else (None, None)
    return grpc.ssl_channel_credentials(trusted, key, cert)
