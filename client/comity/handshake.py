"""Why a server closes connections as soon as they are made: what it says to one handshake by TLS.

A server that expects TLS, or a certificate of its clients, closes without a word what comes without, and so does a
machine between whose server is away for a moment: only the former begins a handshake.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .certificates import Certificates

__all__ = ["refusal"]

ALPN: Final = ["h2"]
READ_BYTES: Final = 16 * 1024
HANDSHAKE: Final = 22  # the type of a record, RFC 5246, section 6.2.1
CERTIFICATE_REQUEST: Final = 13  # the type of a message, section 7.4


async def refusal(host: str, port: int, certificates: "Certificates | None") -> str | None:
    """Why connections that are made by these certificates (None: in plain text) are refused. None: for no reason that
    a handshake shows.

    Raises OSError where there is no connection, and as ssl.SSLError where what is said is no TLS, or not trusted.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        said, done = await _shake_hands(reader, writer, _session(host, certificates))
    finally:
        writer.transport.abort()
    if certificates is None:
        expected = "it expects TLS, and this was plain text: connect by TLS (COMITY_TLS=1, COMITY_TLS_CA)"
        return expected if said else None
    if done or CERTIFICATE_REQUEST not in _messages(said):
        return None
    if certificates.shows_one:
        return "it does not accept the client certificate"
    return "it asks for a client certificate (COMITY_TLS_CLIENT_CERT, COMITY_TLS_CLIENT_KEY)"


class _Session:
    """One side of a handshake, and the bytes that come and go."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)


def _session(host: str, certificates: "Certificates | None") -> _Session:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(ALPN)
    if certificates is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return _Session(context, host)
    # By the later one a client is done before the server has looked at its certificate, and messages are encrypted.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    certificates.load_into(context)
    return _Session(context, certificates.server_name or host)


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: _Session
) -> tuple[bytes, bool]:
    """What the server has said, and whether the handshake came to its end before the connection did."""
    said = b""
    while True:
        try:
            session.object.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            return said, True
        writer.write(session.outgoing.read())
        try:
            data = await reader.read(READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            return said, False
        session.incoming.write(data)
        said += data


def _messages(said: bytes) -> set[int]:
    """The types of the messages of a handshake, up to where they are encrypted."""
    messages = b""
    while len(said) >= 5 and said[0] == HANDSHAKE:
        size = int.from_bytes(said[3:5])
        messages += said[5 : 5 + size]
        said = said[5 + size :]
    types = set()
    while len(messages) >= 4:
        types.add(messages[0])
        messages = messages[4 + int.from_bytes(messages[1:4]) :]
    return types
