"""One call, as its handler sees it."""

from typing import Any

import grpc

from comity_server.access.bounds import Meter
from comity_server.access.caller import Caller
from comity_server.services.requests import Metadata

Context = grpc.aio.ServicerContext[Any, Any]


class Call:
    """What a handler may know of the call beside its request: who makes it, and what it said beside it.

    Args:
        context: gRPC's.
        caller: who makes it.
        meter: what it takes of what its caller may do.
        deadline: the time of the loop by which it has to be begun, if there is one.
    """

    __slots__ = ("caller", "context", "deadline", "meter")

    def __init__(self, context: Context, caller: Caller, meter: Meter, deadline: float | None = None) -> None:
        self.context = context
        self.caller = caller
        self.meter = meter
        self.deadline = deadline

    @property
    def metadata(self) -> Metadata:
        """What the client sent along."""
        return self.context.invocation_metadata() or ()

    @property
    def peer(self) -> str:
        """The other end of the connection."""
        return self.context.peer()
