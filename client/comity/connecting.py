"""Where a program begins: `comity.connect`."""

import os

from .access import Access, access
from .calls import Calls, TraceParent, check_timeout
from .channel import Channels
from .client import Client
from .request_ids import RequestIds
from .tls import TLS
from .tokens import Token

__all__ = ["connect", "connect_by"]

NAMESPACE = "default"


def connect(
    address: str | None = None,
    *,
    namespace: str | None = None,
    author: str | None = None,
    timeout: float = 10.0,
    trace_parent: TraceParent | None = None,
    tls: bool | TLS | None = None,
    token: Token | None = None,
) -> Client:
    """A client. Nothing is connected yet: that happens with the first call, in the event loop that makes it.

        async with comity.connect("localhost:7171", namespace="research", author="planner") as state:
            await state.put("plan", {"step": 1})

    address: `host:port[,host:port]`; of several, one that answers. Default: COMITY_ADDRESS, or 127.0.0.1:7171.
    namespace: default COMITY_NAMESPACE, or "default". It comes into being with its first write.
    author: said with every write, for the history. Default: COMITY_AUTHOR, or nobody.
    timeout: seconds above 0 that a call may take, retries included, unless the call says its own.
    trace_parent: called at the start of each write, in the task that makes it, for the W3C traceparent to keep with the
        commit. What is no traceparent makes the write raise ValueError. Without it, or where it returns None, it is
        that of OpenTelemetry's current span, if the program uses OpenTelemetry.
    tls: connect by TLS: a `comity.TLS` says with which certificates, True leaves that to COMITY_TLS_CA,
        COMITY_TLS_CLIENT_CERT, COMITY_TLS_CLIENT_KEY and COMITY_TLS_SERVER_NAME. Default: as True if one of these is
        set or COMITY_TLS is 1, else plain text.
    token: by which the server knows who calls: a str; a `comity.TokenFile`; or a function, asked at the start of each
        call and stream, in the event loop, so it should answer from memory. It is asked again, and the call made once
        more, if the server refuses the token that it gave before. Default: COMITY_TOKEN, else the token in the file
        COMITY_TOKEN_FILE, else none.

    Raises TypeError and ValueError for what is no address, no timeout, or none of the rest; ValueError for files that
    cannot be used, and for a token that would leave this machine in plain text, unless tls=False allows that.
    """
    return connect_by(
        access(address, tls, token),
        namespace=namespace or os.environ.get("COMITY_NAMESPACE") or NAMESPACE,
        author=os.environ.get("COMITY_AUTHOR", "") if author is None else author,
        timeout=timeout,
        trace_parent=trace_parent,
    )


def connect_by(
    access: Access, *, namespace: str, author: str, timeout: float, trace_parent: TraceParent | None = None
) -> Client:
    """A client that reaches its server as another one does, whatever the variables of this process say."""
    return Client(
        Calls(Channels(access), trace_parent),
        RequestIds(),
        namespace=namespace,
        author=author,
        timeout=check_timeout(timeout),
    )
