"""A lease that this process holds: whether it lives, and being told once it does not."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from comity import clock
from comity.errors import LeaseLost, LeaseNotFound

from .guard import LeaseGuard

__all__ = ["Lease", "check_callback"]

Revoke = Callable[[str, float | None], Awaitable[int]]


class _State(enum.Enum):
    HELD = enum.auto()
    LOST = enum.auto()
    REVOKED = enum.auto()  # by this object


class Keeper(Protocol):
    """What keeps a lease alive. From anywhere."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def discard(self, lease: Lease) -> None:
        """Keep it alive no longer."""

    def lose(self, lease: Lease, why: str) -> bool:
        """It is lost. False: the event loop has ended, and tells nobody."""


class Lease:
    """A lease that is kept alive. Made by `Client.lease`, `Client.grant_lease` and `Client.keep_alive`.

    It is renewed by the event loop that made it, until it is revoked or closed, or the client is closed there. It is
    lost when the server says that it has ended, and also when its ttl has passed since the last renewal that was
    answered was sent: nobody can know then. It never comes back. All methods can be called from any event loop.

    ttl: seconds that it lives after each renewal.
    """

    def __init__(self, namespace: str, id: int, ttl: float, deadline: float, keeper: Keeper, revoke: Revoke) -> None:
        self.namespace = namespace
        self.id = id
        self.ttl = ttl
        self._deadline = deadline
        self._keeper = keeper
        self._revoke = revoke
        self._state = _State.HELD
        self._why = ""
        self._gone = False  # from the server, by what this has done
        self._callbacks: list[Callable[[Lease], object]] = []

    def __repr__(self) -> str:
        state = f"{self.remaining:.1f} s left" if self.alive else "lost" if self._is_lost() else "revoked"
        return f"<comity.Lease {self.id} of {self.namespace!r}: {state}>"

    @property
    def fence(self) -> int:
        """Its fencing token, which is its id: greater than that of every lease of the namespace before it."""
        return self.id

    @property
    def guard(self) -> LeaseGuard:
        """What ties a write to it, as the lease itself does; for another process."""
        return LeaseGuard(self.id, self.fence)

    @property
    def alive(self) -> bool:
        """False as soon as it is known to be lost, or must be assumed to be; and once it was revoked."""
        return self._state is _State.HELD and clock.now() < self._deadline

    @property
    def remaining(self) -> float:
        """Seconds that it lives unless renewed, by the clock of this process: never more than it has at the server."""
        return max(0.0, self._deadline - clock.now()) if self._state is _State.HELD else 0.0

    def check(self) -> None:
        """Raise LeaseLost unless it is alive."""
        if not self.alive:
            raise self._error()

    def on_lost(self, callback: Callable[[Lease], object]) -> None:
        """Call a function, once, when the lease is lost; soon, if it is lost already. Not when it is revoked or closed.

        It is called with the lease, in the event loop that the lease was made in (or here, if that has ended).

        Raises TypeError for what is no plain function.
        """
        check_callback(callback)
        self._callbacks.append(callback)
        if self._is_lost() and not self._keeper.lose(self, self._why or self._silence()):
            self._lose(self._why or self._silence())

    async def lost(self) -> None:
        """Return when the lease is lost, at once if it is already. Never of one that is revoked."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[None] = loop.create_future()

        def tell(_: Lease) -> None:
            with contextlib.suppress(RuntimeError):  # that event loop has ended
                loop.call_soon_threadsafe(_settle, told)

        self.on_lost(tell)
        try:
            while self.alive:  # its own event loop may have ended
                await asyncio.wait([told], timeout=self.remaining + 0.001)
            if self._state is _State.REVOKED:
                await told
        finally:
            told.cancel()
            with contextlib.suppress(ValueError):  # it was called
                self._callbacks.remove(tell)

    async def revoke(self, *, message: str = "", timeout: float | None = None) -> None:
        """End it now, and delete its keys. From the start of the call on it is not alive. That it has ended already is
        no error, so that it can be called again, as after Unavailable.

        message: why, for the history.
        """
        if self._state is _State.HELD:
            self._state = _State.REVOKED
        self._keeper.discard(self)
        if not self._gone:
            with contextlib.suppress(LeaseNotFound):
                await self._revoke(message, timeout)
            self._gone = True

    async def close(self) -> None:
        """Keep it alive no longer, without revoking it: it lives for as long as it has left, or another process keeps
        it alive."""
        self._keeper.discard(self)

    # For the keeper, in its event loop

    def _extend(self, deadline: float) -> None:
        self._deadline = max(self._deadline, deadline)

    def _lose(self, why: str) -> None:
        """It is lost: tell who wants to know."""
        if self._state is _State.REVOKED:
            return
        if self._state is _State.HELD:
            self._state = _State.LOST
            self._why = why
        while True:
            try:
                callback = self._callbacks.pop(0)  # one by one: another thread may add some, or take its own back
            except IndexError:
                return
            try:
                callback(self)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - told to the event loop, and the others must be called
                said = f"what is called when lease {self.id} is lost has failed"
                self._keeper.loop.call_exception_handler({"message": said, "exception": error})

    def _is_lost(self) -> bool:
        return self._state is _State.LOST or (self._state is _State.HELD and clock.now() >= self._deadline)

    def _silence(self) -> str:
        return f"no renewal was answered within its ttl of {self.ttl:g} s, so that it must be taken for lost"

    def _error(self) -> LeaseLost:
        why = "it was revoked here" if self._state is _State.REVOKED else self._why or self._silence()
        return LeaseLost(
            f"lease {self.id} is held no longer: {why}",
            reason="LEASE_LOST",
            metadata={"lease_id": str(self.id), "namespace": self.namespace},
        )


def check_callback(callback: object) -> None:
    """Raise TypeError for what is no plain function."""
    if not callable(callback):
        raise TypeError(f"callback must be a function, not {type(callback).__name__}")
    if inspect.iscoroutinefunction(callback):
        raise TypeError("callback must be a plain function, not an async one")


def _settle(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
