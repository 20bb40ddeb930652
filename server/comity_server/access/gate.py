"""The gate that every call passes: it finds out who calls, and hands the handler a Caller."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final, Protocol

import grpc
import structlog

from comity_server.access.bounds import Bounds, Meter, address
from comity_server.access.caller import NOBODY, Caller, Identity, Standing
from comity_server.access.guesses import Guesses
from comity_server.access.rates import WAIT_SECONDS
from comity_server.access.rights import EVERYTHING, Rights
from comity_server.errors import Unauthenticated

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
PORTION: Final = 200  # calls that are looked at in one go: each takes some 60 µs

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]


class Identify(Protocol):
    """Finds out who calls."""

    def identify(
        self, metadata: Metadata, auth_context: Mapping[str, Iterable[bytes]], guess: Callable[[], None]
    ) -> tuple[Identity, object]:
        """Who it is, and what shows it. `guess` is called before anything is looked into that is not known, and may
        raise an error. Raises Unauthenticated."""

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
        guesses: how often an address may show what is wrong; None: as often as it can.
    """

    def __init__(
        self,
        identify: Identify | None = None,
        permissions: Callable[[], Permissions] | None = None,
        bounds: Bounds | None = None,
        guesses: Guesses | None = None,
    ) -> None:
        self._identify = identify
        self._permissions = permissions
        self._bounds = bounds or Bounds()
        self._guesses = guesses or Guesses()
        self._standings: set[Standing] = set()
        self._due: dict[Standing, None] = {}  # to be looked at, in this order
        self._hurry = asyncio.Event()

    def enter(self, context: Context) -> Caller:
        """Who makes a call. Raises Unauthenticated, or RateLimited if its address has been so too often."""
        if self._identify is None:
            return Caller(NOBODY, self)
        try:
            identity, proof = self._identify.identify(
                context.invocation_metadata() or (),
                context.auth_context(),
                lambda: self._guesses.check(address(context.peer())),
            )
        except Unauthenticated as error:
            if error.problem != "missing":  # who shows nothing does not guess
                self._guesses.count(address(context.peer()))
            raise
        return Caller(identity, self, proof)

    def begin(self, caller: Caller, context: Context, *, stream: bool) -> Meter:
        """Let a call begin. Its end has to be told to what is returned. Raises TooManyCalls."""

        def patience() -> float:
            remaining: float | None = context.time_remaining()
            return WAIT_SECONDS if remaining is None else min(remaining / 2, WAIT_SECONDS)

        return self._bounds.enter(caller, context.peer(), stream=stream, patience=patience)

    def changed(self) -> None:
        """What is allowed has changed, or who is known: have `run` end calls that are allowed no more. Those that it
        has looked at since the change before are looked at once more, after the others."""
        self._due.update(dict.fromkeys(self._standings))
        self._hurry.set()

    async def run(self) -> None:
        """End calls that are allowed no more, and each second those of identities whose time is up, for ever."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                now = time.time()
                ended = (each for each in self._standings if (each.caller.identity.expires or math.inf) <= now)
                self._due.update(dict.fromkeys(ended))
            self._hurry.clear()
            while self._due:
                _look(self._due)
                await asyncio.sleep(0)  # others have their turn

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
        self._due.pop(standing, None)


def _look(due: dict[Standing, None]) -> None:
    """Look at some of them, which are not due any more then."""
    for standing in list(islice(due, PORTION)):
        due.pop(standing, None)
        try:
            standing.look()
        except Exception:
            log.exception("a call could not be ended")


ANYBODY: Final = Caller(NOBODY, Gate())
"""Who may do everything: for what the server does by itself, and for tests."""
