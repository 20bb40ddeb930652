"""A barrier: nobody goes on before all have come."""

import asyncio
import contextlib
import uuid
from typing import NamedTuple

from comity.checks import check_count, check_seconds
from comity.cleanup import begun, clean_up
from comity.client import Client
from comity.errors import FailedPrecondition, LeaseNotFound, OutOfRange
from comity.leases.lease import Lease
from comity.leases.living import Living
from comity.model import EventCause, GetResult, ListResult, Resync
from comity.operations import Delete, Get, List, Operation, Prefix, Put
from comity.retry import Backoff

from .names import asynchronous, check_name, owner_of, whole
from .puts import put_in
from .within import Wait, within

__all__ = ["Barrier"]

PARTIES = 1_000  # more than that no transaction lists


class Arrival(NamedTuple):
    """How an arrival ended."""

    revision: int
    epoch: str  # of the history that it is of
    round: int  # that was begun when it came
    last: bool  # all had come with it
    lease_id: int  # that the place lives by; 0: it was the last, and has none


class Barrier:
    """A barrier for so many parties, which all who name it share. It can be used again, round after round.

        await Barrier(state, "loaded", parties=3).wait()

    Who waits is there by a lease. A party that dies while it waits is counted no longer, once its lease has ended, so
    that a round is passed by as many living parties as it takes. To begin and to end something together, wait twice.

    name: 1 to 200 bytes of UTF-8 without / and NUL.
    parties: how many pass together, from 1 to 1,000. `wait` raises FailedPrecondition (PARTIES_DIFFER) if others wait
        for another number.
    ttl: seconds after which a party that died is not counted any more.
    owner: what is written down of who waits; the client's author unless given.

    One object may be used by any number of tasks, each of them a party. Raises TypeError and ValueError for arguments
    that do not fit.
    """

    def __init__(self, state: Client, name: str, parties: int, ttl: float = 10.0, *, owner: str | None = None) -> None:
        self._state = asynchronous(state)
        self.name = check_name(name)
        self.parties = check_count("parties", parties, most=PARTIES)
        self._ttl = check_seconds("ttl", ttl)
        self._owner = owner_of(state, owner)
        self._root = f"barriers/{name}/"
        self._round = f"{self._root}round"
        self._passed = f"{self._root}passed"
        self._waiting = f"{self._root}waiting/"
        self._living = Living(state)

    def __repr__(self) -> str:
        return f"<comity.recipes.Barrier {self.name!r} of {self.parties}>"

    async def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have come, and return how many rounds have been passed with this one.

        timeout: seconds to wait at most; None: for ever. A cancelled wait is counted no longer, nor is one whose time
            is up; only if that happens just when the others pass, they may have counted it.

        Raises TimeoutError, and what `Client.transact` raises. A place that was lost while waiting is taken anew.
        """
        async with within(timeout, f"barrier {self.name!r} was not passed") as wait:
            while (passed := await self._come(wait)) is None:
                pass
            return passed

    async def waiting(self) -> int:
        """How many wait now."""
        return len(await self._living.among(await self._state.list(self._waiting, keys_only=True).all()))

    async def _come(self, wait: Wait) -> int | None:
        """The number of the round that was passed; None: the place was lost."""
        key = self._waiting + uuid.uuid4().hex
        arriving = begun(self._arrive(key, wait))
        lease: Lease | None = None
        try:
            arrival = await asyncio.shield(arriving)
            if arrival.last:
                return arrival.round + 1
            with contextlib.suppress(LeaseNotFound):  # the watch tells what has become of it
                lease = await self._state.keep_alive(arrival.lease_id, ttl=self._ttl)
            passed = await self._until_gone(key, arrival, wait)
        except BaseException:
            await clean_up(self._leave(key, arriving, lease, wait))
            raise
        if lease is not None:
            await lease.close()
        return arrival.round + 1 if passed else None

    async def _arrive(self, key: str, wait: Wait) -> Arrival:
        """Wait along with the others; or as the last, let all pass. Nobody else comes or goes in between."""
        backoff = Backoff(first=0.005, most=0.5)
        anew = True
        while True:
            looking: list[Operation] = [List(self._waiting), Get(self._round)]
            seen = await self._state.transact(then=looking, timeout=wait.call(self._state.timeout))
            listed, round_ = seen.results
            assert isinstance(listed, ListResult)
            assert isinstance(round_, GetResult)
            others = await self._living.among(listed.entries, anew=anew)
            anew = False  # else those that come at once would keep each other from it for longer
            for other in others:
                theirs = other.value.get("parties") if isinstance(other.value, dict) else None
                if theirs != self.parties:
                    raise FailedPrecondition(
                        f"others wait at barrier {self.name!r} for {theirs} parties, not {self.parties}",
                        reason="PARTIES_DIFFER",
                        metadata={"key": other.key},
                    )
            number = whole(round_.entry)
            last = len(others) + 1 >= self.parties
            then: list[Operation]
            if last:
                counted = [other.key.removeprefix(self._waiting) for other in others]
                then = [
                    Delete(prefix=self._waiting),
                    Put(self._round, number + 1),
                    Put(self._passed, counted),
                ]
            else:
                then = [Put(key, {"owner": self._owner, "parties": self.parties, "round": number}, ttl=self._ttl)]
            with contextlib.suppress(OutOfRange):  # compacted since
                done = await self._state.transact(
                    conditions=[Prefix(self._root).unchanged_since(seen.revision)],
                    then=then,
                    timeout=wait.call(self._state.timeout),
                )
                if done.committed:
                    return Arrival(done.revision, done.epoch, number, last, 0 if last else put_in(done).lease_id)
            await asyncio.sleep(backoff.delay(60.0) or 0.0)

    async def _until_gone(self, key: str, arrival: Arrival, wait: Wait) -> bool:
        """Wait until the place is gone. Whether that was since all have come, and it was counted.

        Whether a lease was lost says nothing here: it ends too when all pass. What the store says holds.
        """
        lease_id, gone = arrival.lease_id, 0
        watching = self._state.watch(
            key=key, from_revision=arrival.revision + 1, epoch=arrival.epoch, on_connection=wait.notice
        )
        async with watching as watch:
            async for event in watch:
                if isinstance(event, Resync):
                    if event.entries and event.entries[0].lease_id == lease_id:
                        continue
                elif event.is_put and event.entry.lease_id == lease_id:
                    continue
                elif event.is_put or event.cause is EventCause.LEASE_EXPIRY:
                    return False
                else:
                    gone = event.revision
                break
        try:
            passed = await self._state.get(self._passed, revision=gone)
        except OutOfRange:  # compacted since
            passed = await self._state.get(self._passed)
        counted = None if passed is None else passed.value
        return isinstance(counted, list) and key.removeprefix(self._waiting) in counted

    async def _leave(self, key: str, arriving: "asyncio.Task[Arrival]", lease: Lease | None, wait: Wait) -> None:
        if lease is not None:
            await lease.revoke()
            return
        await asyncio.wait([arriving])
        if not arriving.cancelled():
            wait.cut_short(arriving.exception())
        await self._state.delete(key)
