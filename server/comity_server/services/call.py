"""One call, as its handler sees it."""

from typing import Any

import grpc

from comity_server.access.caller import Caller
from comity_server.services.requests import Metadata

Context = grpc.aio.ServicerContext[Any, Any]


class Call:
    """What a handler may know of the call beside its request: who makes it, and what it said beside it."""

    __slots__ = ("caller", "context")

    def __init__(self, context: Context, caller: Caller) -> None:
        self.context = context
        self.caller = caller

    @property
    def metadata(self) -> Metadata:
        """What the client sent along."""
        return self.context.invocation_metadata() or ()

    @property
    def peer(self) -> str:
        """The other end of the connection."""
        return self.context.peer()
