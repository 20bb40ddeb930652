"""The gate that every call passes: it finds out who calls, and hands the handler a Caller."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import grpc

from comity_server.access.bounds import Bounds, Meter
from comity_server.access.caller import NOBODY, Caller, Identity, Standing
from comity_server.access.rights import EVERYTHING, Rights

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]


class Identify(Protocol):
    """Finds out who calls."""

    def identify(self, metadata: Metadata, auth_context: Mapping[str, Iterable[bytes]]) -> tuple[Identity, object]:
        """Who it is, and what shows it. Raises Unauthenticated."""

    def check(self, identity: Identity, proof: object) -> None:
        """Raise Unauthenticated if what was shown does not show it any more."""


class Gate:
    """Lets calls in.

    Args:
        identify: who calls; None: nobody is asked.
        rights: what a principal may do in a namespace; None: everybody may do everything.
        bounds: how much callers may do; None: as much as they can.
    """

    def __init__(
        self,
        identify: Identify | None = None,
        rights: Callable[[str, str], Rights] | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._identify = identify
        self._rights = rights
        self._bounds = bounds or Bounds()
        self._standings: set[Standing] = set()

    @property
    def shed(self) -> Counter[str]:
        """How much was turned away for being too much, by the name of the setting that bounds it."""
        return self._bounds.shed

    def enter(self, context: Context) -> Caller:
        """Who makes a call. Raises Unauthenticated."""
        if self._identify is None:
            return Caller(NOBODY, self)
        identity, proof = self._identify.identify(context.invocation_metadata() or (), context.auth_context())
        return Caller(identity, self, proof)

    def begin(self, caller: Caller, context: Context, *, stream: bool) -> Meter:
        """Let a call begin. Its end has to be told to what is returned. Raises TooManyCalls, RateLimited."""
        return self._bounds.enter(caller, context.peer(), stream=stream)

    def changed(self) -> None:
        """What is allowed has changed, or who is known: calls that are allowed no more end."""
        for standing in list(self._standings):
            standing.look()

    def rights(self, principal: str, namespace: str) -> Rights:
        return EVERYTHING if self._rights is None else self._rights(principal, namespace)

    def check(self, caller: Caller) -> None:
        if self._identify is not None:
            self._identify.check(caller.identity, caller.proof)

    def add(self, standing: Standing) -> None:
        self._standings.add(standing)

    def discard(self, standing: Standing) -> None:
        self._standings.discard(standing)


ANYBODY: Final = Caller(NOBODY, Gate())
"""Who may do everything: for what the server does by itself, and for tests."""
