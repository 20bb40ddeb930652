"""Where a program begins: `comity.connect`."""

import os

from .calls import Calls, TraceParent, check_timeout
from .channel import Channels
from .client import Client
from .request_ids import RequestIds

__all__ = ["connect"]

ADDRESS = "127.0.0.1:7171"
NAMESPACE = "default"


def connect(
    address: str | None = None,
    *,
    namespace: str | None = None,
    author: str | None = None,
    timeout: float = 10.0,
    trace_parent: TraceParent | None = None,
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

    Raises TypeError and ValueError for what is no address or no timeout.
    """
    return Client(
        Calls(Channels(address or os.environ.get("COMITY_ADDRESS") or ADDRESS), trace_parent),
        RequestIds(),
        namespace=namespace or os.environ.get("COMITY_NAMESPACE") or NAMESPACE,
        author=os.environ.get("COMITY_AUTHOR", "") if author is None else author,
        timeout=check_timeout(timeout),
    )
