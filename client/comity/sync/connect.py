"""Where a program without async begins: `comity.sync.connect`."""

from comity.calls import TraceParent
from comity.connecting import connect as connect_async
from comity.tls import TLS
from comity.tokens import Token

from .client import Client

__all__ = ["connect"]


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
    """A client. Nothing is connected yet: that happens with the first call.

        with comity.sync.connect("localhost:7171", namespace="research", author="planner") as state:
            state.put("plan", {"step": 1})

    address, namespace, author, timeout, tls: as of `comity.connect`.
    trace_parent: as of `comity.connect`, but called in another thread, in the context (contextvars) of the caller.
    token: as of `comity.connect`; a function is called in another thread.

    Raises what `comity.connect` does.
    """
    return Client(
        connect_async(
            address,
            namespace=namespace,
            author=author,
            timeout=timeout,
            trace_parent=trace_parent,
            tls=tls,
            token=token,
        )
    )
