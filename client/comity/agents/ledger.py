"""What the store has of a supervisor and its children: written by the supervisor, and read by it and its successors."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from comity.client import Client
from comity.errors import ComityError, Conflict, DeadlineExceeded, DecodeError, LeaseNotFound
from comity.leases.lease import Lease
from comity.leases.living import Living
from comity.retry import Backoff
from comity.status import is_retriable

from . import layout
from .children import Child
from .presence import Directory, Presence, reported

__all__ = ["Former", "Ledger"]

T = TypeVar("T")

FIRST_DELAY: Final = 0.1  # seconds, before a server that did not answer is asked again

log = logging.getLogger("comity.agents")


class Former:
    """What a former supervisor of the name has written down of a child. Empty where that is wrong, or missing."""

    def __init__(self, record: object) -> None:
        found: dict[str, Any] = record if isinstance(record, dict) else {}
        restarts = found.get("restarts")
        self.run = str(found.get("run") or "")
        self.restarts = restarts if isinstance(restarts, int) and restarts > 0 else 0
        self.is_process = found.get("mode") == "process"


class Ledger:
    """All writes are guarded by the supervisor's lease.

    A server that does not answer is asked again for as long as the lease lives, until there is a `hurry`.
    """

    def __init__(self, state: Client, name: str, lease: Lease) -> None:
        self._state = state
        self._name = name
        self._lease = lease
        self._directory = Directory(state)
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """From now on everything is tried once."""
        self._hurry.set()

    async def former(self) -> dict[str, Former]:
        """What there is of children when the supervisor begins."""
        prefix = layout.children(self._name)
        found: dict[str, Former] = {}
        async for entry in self._state.list(prefix):
            try:
                found[entry.key.removeprefix(prefix)] = Former(entry.value)
            except DecodeError:
                log.warning("what is written in %s is no JSON", entry.key)
        return found

    async def is_replaced(self) -> bool:
        """Whether there is a later supervisor of the name. False if the server does not say."""
        try:
            entry = await self._state.get(layout.supervisor(self._name))
            found = await Living(self._state).among([] if entry is None else [entry])
        except (ComityError, RuntimeError):  # the latter if the client was closed
            return False
        return any(one.lease_id != self._lease.id for one in found)

    async def find(self, name: str) -> Presence | None:
        """The agent of this name, whoever has started it."""
        return await self._patiently(lambda: self._directory.get(name))

    async def agents(self) -> list[Presence]:
        """All agents of supervisors of the name."""
        return [found for found in await self._patiently(self._directory.list) if found.supervisor == self._name]

    async def write(self, child: Child, *, ttl: float | None = None) -> None:
        """Write down what a later supervisor of the name, and others, want to know; it stays unless a ttl is given."""
        status = child.status
        record = {
            "mode": status.mode,
            "state": status.state.value,
            "restarts": status.restarts,
            "run": child.run,
            "why": status.why,
        }
        key = layout.child(self._name, child.name)
        await self._patiently(lambda: self._state.put(key, record, ttl=ttl, guard=self._lease))

    async def forget(self, child: Child) -> None:
        """There is no such child any more."""
        key = layout.child(self._name, child.name)
        await self._patiently(lambda: self._state.delete(key, guard=self._lease))

    async def forget_all(self) -> None:
        """There are no children any more."""
        await self._state.delete(prefix=layout.children(self._name), guard=self._lease)

    async def release(self, child: Child, crash: str = "") -> None:
        """End the lease of a child that has died, if it has not ended yet: what it held is free.

        crash: why it died, if nobody asked it to. Others see it before it goes.
        """
        if not self._lease.alive:
            return
        found = await self.find(child.name)
        if found is not None and found.run == child.run:
            if crash:
                await self._report(reported(found, crash=crash))
            await self.revoke(found)

    async def _report(self, presence: Presence) -> None:
        """Say something in the name of an agent, if it has said nothing meanwhile and its lease lives."""

        def put() -> Awaitable[object]:
            return self._state.put(
                layout.presence(presence.name),
                presence.record(),
                lease=presence.incarnation,
                if_revision=presence.revision,
                guard=self._lease,
            )

        with contextlib.suppress(Conflict, LeaseNotFound):
            await self._patiently(put)

    async def revoke(self, found: Presence) -> None:
        """End the lease of an agent."""
        said = f"{found.name} has ended"
        with contextlib.suppress(LeaseNotFound):
            await self._patiently(lambda: self._state.revoke_lease(found.incarnation, message=said, guard=self._lease))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff(first=FIRST_DELAY)
        while True:
            try:
                return await call()
            except ComityError as error:
                if not _is_silence(error) or self._hurry.is_set() or not self._lease.alive:
                    raise
                log.warning("supervisor %s asks again: %s", self._name, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.delay(math.inf)):
                    await self._hurry.wait()


def _is_silence(error: ComityError) -> bool:
    return isinstance(error, DeadlineExceeded) or is_retriable(error)
