"""The gate that every call passes: it finds out who calls, and hands the handler a Caller."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import grpc
import structlog

from comity_server.access.bounds import Bounds, Meter
from comity_server.access.caller import NOBODY, Caller, Identity, Standing
from comity_server.access.rates import WAIT_SECONDS
from comity_server.access.rights import EVERYTHING, Rights

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]


class Identify(Protocol):
    """Finds out who calls."""

    def identify(self, metadata: Metadata, auth_context: Mapping[str, Iterable[bytes]]) -> tuple[Identity, object]:
        """Who it is, and what shows it. Raises Unauthenticated."""

    def check(self, identity: Identity, proof: object) -> None:
        """Raise Unauthenticated if what was shown does not show it any more."""


class Permissions(Protocol):
    """What principals may do. One is empty for nobody in particular."""

    def rights(self, principal: str, namespace: str) -> Rights:
        """What a principal may do in a namespace."""

    def administers(self, principal: str) -> bool:
        """Whether a principal may administer every namespace."""


class Gate:
    """Lets calls in.

    Args:
        identify: who calls; None: nobody is asked.
        permissions: gives what principals may do as of now; None: everybody may do everything.
        bounds: how much callers may do; None: as much as they can.
    """

    def __init__(
        self,
        identify: Identify | None = None,
        permissions: Callable[[], Permissions] | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._identify = identify
        self._permissions = permissions
        self._bounds = bounds or Bounds()
        self._standings: set[Standing] = set()

    def enter(self, context: Context) -> Caller:
        """Who makes a call. Raises Unauthenticated."""
        if self._identify is None:
            return Caller(NOBODY, self)
        identity, proof = self._identify.identify(context.invocation_metadata() or (), context.auth_context())
        return Caller(identity, self, proof)

    def begin(self, caller: Caller, context: Context, *, stream: bool) -> Meter:
        """Let a call begin. Its end has to be told to what is returned. Raises TooManyCalls."""
        remaining: float | None = context.time_remaining()
        patience = WAIT_SECONDS if remaining is None else min(remaining / 2, WAIT_SECONDS)
        return self._bounds.enter(caller, context.peer(), stream=stream, patience=patience)

    def changed(self) -> None:
        """What is allowed has changed, or who is known: calls that are allowed no more end."""
        _look(list(self._standings))

    async def run(self) -> None:
        """End the calls of identities whose time is up, each second for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.time()
            _look([each for each in self._standings if (each.caller.identity.expires or math.inf) <= now])

    def rights(self, principal: str, namespace: str) -> Rights:
        return EVERYTHING if self._permissions is None else self._permissions().rights(principal, namespace)

    def administers(self, principal: str) -> bool:
        return self._permissions is None or self._permissions().administers(principal)

    @property
    def asks(self) -> bool:
        return self._identify is not None

    def check(self, caller: Caller) -> None:
        if self._identify is not None:
            self._identify.check(caller.identity, caller.proof)

    def add(self, standing: Standing) -> None:
        self._standings.add(standing)

    def discard(self, standing: Standing) -> None:
        self._standings.discard(standing)


def _look(standings: Sequence[Standing]) -> None:
    for standing in standings:
        try:
            standing.look()
        except Exception:
            log.exception("a call could not be ended")


ANYBODY: Final = Caller(NOBODY, Gate())
"""Who may do everything: for what the server does by itself, and for tests."""
