"""An election: one leader at a time, whom everybody can see."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple, Self

from comity.checks import check_seconds
from comity.client import Client
from comity.errors import LeaseLost
from comity.leases.living import Living
from comity.model import Entry, Resync
from comity.operations import Key, Put

from .holder import Holder
from .line import Line, in_order
from .names import asynchronous, check_name

__all__ = ["Election", "Leader"]


class Leader(NamedTuple):
    """Who leads."""

    value: Any  # what it has proclaimed
    fence: int  # of its leadership: greater than that of every leader before it


class Election(Holder):
    """One candidate for, or observer of, the leadership that all who name it share. Who campaigned first leads first.

        async with Election(state, "scheduler").leading("10.0.0.7") as election:
            await state.put("schedule", plan, guard=election.guard)  # LeaseLost if it leads no longer

        async for leader in Election(state, "scheduler").observe(): ...

    Leadership is held by a lease. If that is lost in `leading`, the block is cancelled and LeaseLost is raised. An
    object campaigns or leads once at a time, so make one for each task.

    name: 1 to 200 bytes of UTF-8 without / and NUL.
    ttl: seconds after which the next candidate leads where a leader died.

    Raises TypeError and ValueError for arguments that do not fit.
    """

    def __init__(self, state: Client, name: str, ttl: float = 10.0) -> None:
        self._state = asynchronous(state)
        self.name = check_name(name)
        self._prefix = f"elections/{self.name}/"
        line = Line(state, self._prefix, check_seconds("ttl", ttl))
        super().__init__(f"election {name!r}", line, None, missed="was not won")

    async def campaign(self, value: object, timeout: float | None = None) -> int:
        """Stand for election, lead once all who stood before are gone, and return the fence.

        value: what `leader` and `observe` show: an address, a name. As of `Client.put`.
        timeout: as of `acquire` of a lock. Raises as that does.
        """
        self._value = value
        return await self.acquire(timeout)

    async def resign(self) -> None:
        """Let the next candidate lead. Raises LeaseLost if it led no longer; RuntimeError if it did not lead."""
        await self.release()

    async def proclaim(self, value: object) -> None:
        """Show another value, while leading on. Raises LeaseLost if it leads no longer; RuntimeError if it did not."""
        lease = self.lease
        assert self._place is not None
        key = self._place.key
        proclaimed = await self._state.transact(
            conditions=[Key(key).lease_id == lease.id], then=[Put(key, value, lease=lease)], guard=lease
        )
        if not proclaimed.committed:
            raise LeaseLost(f"{self._what} is led no longer: {key!r} is gone", metadata={"lease_id": str(lease.id)})
        self._value = value

    @contextlib.asynccontextmanager
    async def leading(self, value: object, timeout: float | None = None) -> AsyncIterator[Self]:
        """A block that is run while leading: campaigns, and resigns at its end."""
        await self.campaign(value, timeout)
        self._begin_block()
        try:
            yield self
        except BaseException as error:
            await self._end_block(error)
            raise
        await self._end_block(None)

    async def leader(self) -> Leader | None:
        """Who leads; None: nobody does."""
        first = await self._line.first()
        return _leader(first[0]) if first else None

    async def observe(self) -> AsyncGenerator[Leader | None]:
        """Who leads now, and whenever that changes, or what the leader proclaims: each in order, none left out. None:
        nobody does.

        Only where the history that this needs is gone (as a `Resync` of a watch says) it goes on from what is then.
        """
        living = Living(self._state)
        places: dict[str, Entry] = {}
        shown: tuple[str, int] | None = None
        began = False
        async with self._state.watch(self._prefix, initial=True) as watch:
            async for commit in watch.commits():
                if isinstance(commit, Resync):
                    places = {entry.key: entry for entry in commit.entries}
                else:
                    for event in commit.events:
                        if event.is_put:
                            places[event.key] = event.entry
                        else:
                            places.pop(event.key, None)
                first = in_order(await living.among(places.values(), anew=isinstance(commit, Resync)))[:1]
                found = (first[0].key, first[0].mod_revision) if first else None
                if found != shown or not began:
                    began, shown = True, found
                    yield _leader(first[0]) if first else None


def _leader(entry: Entry) -> Leader:
    return Leader(entry.value, entry.lease_id)
