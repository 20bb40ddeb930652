"""A queue of work: each item is done by one consumer, and none is lost where one dies."""

import asyncio
import contextlib
import datetime
import random
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import uuid4

from comity.arguments import expect
from comity.checks import check_count, check_seconds
from comity.cleanup import begun, clean_up, insist
from comity.client import Client
from comity.errors import DeadlineExceeded, DecodeError, LeaseLost, LeaseNotFound, RateLimited, Unavailable
from comity.leases.block import Block
from comity.leases.lease import Lease
from comity.leases.living import Living
from comity.model import Entry, GetResult, IncrementResult, Resync
from comity.operations import Delete, Get, Increment, Key, Put
from comity.transaction import Transaction

from .item import Claimed, Item, OnDead
from .names import asynchronous, check_name, owner_of
from .puts import put_in
from .queue_keys import QueueKeys
from .within import Wait, within

__all__ = ["DeadLetter", "Queue", "QueueSize"]

CANDIDATES: Final = 32  # free items that a consumer looks for at a time
PAGE: Final = 200
FIRST_SPREAD: Final = 0.005  # seconds
LONGEST_SPREAD: Final = 0.2


class QueueSize(NamedTuple):
    """How much is in a queue."""

    free: int
    claimed: int  # and given back with a delay
    dead: int  # letters


class DeadLetter(NamedTuple):
    """An item that has failed too often."""

    id: str
    value: Any  # the bytes, where they are not what their content type says
    time: datetime.datetime  # since when, UTC, by the clock of the store


class Free(NamedTuple):
    """An item that can be claimed."""

    id: str
    claim_revision: int  # the mod_revision of its claim, which nobody holds; 0: it has none
    claim: str = ""  # which no other claim is; empty: its lease tells it from others


class Queue:
    """A queue that all who name it share. Higher priorities come first, and within one whoever came first.

        await queue.put({"page": 7})
        async with queue.claim() as item:  # acknowledged at the end of the block, given back if it raises
            ...

    An item is claimed by a lease, and stays in the queue until it is acknowledged. Where its consumer dies or loses the
    lease, it is free again when the lease has ended. An item that failed so often goes to the dead letters.

    name: 1 to 200 bytes of UTF-8 without / and NUL.
    ttl: seconds after which an item is free again where its consumer died.
    tries: how often an item is handed out before it is a dead letter, from 1.
    owner: what is written down of who has claimed; the client's author unless given.
    lease: what all claims are to live by, instead of by a lease each with that ttl, so that they end with it at once.
        Whoever made it keeps it alive and ends it.
    on_dead: called with the transaction that makes an item a dead letter here, and the item: what it writes is applied
        along with that. As of `Client.transact`, but async.

    One object may be used by any number of tasks. Raises TypeError and ValueError for arguments that do not fit.
    """

    def __init__(
        self,
        state: Client,
        name: str,
        ttl: float = 10.0,
        *,
        tries: int = 5,
        owner: str | None = None,
        lease: Lease | None = None,
        on_dead: OnDead | None = None,
    ) -> None:
        self._state = asynchronous(state)
        self.name = check_name(name)
        self.tries = check_count("tries", tries)
        self._ttl = check_seconds("ttl", ttl)
        self._owner = owner_of(state, owner)
        if lease is not None:
            expect("lease", Lease, lease)
        self._lease = lease
        self._on_dead = on_dead
        self._keys = QueueKeys(name)
        self._living = Living(state)
        self._window = 1  # among so many of the first free items one is chosen
        self._spread = 0.0  # seconds, within which a free item is tried for

    def __repr__(self) -> str:
        return f"<comity.recipes.Queue {self.name!r}>"

    # Producers

    async def put(
        self, value: object, priority: int = 0, *, content_type: str | None = None, tx: Transaction | None = None
    ) -> str:
        """Add an item, and return its id. What was put before comes before it.

        value, content_type: as of `Client.put`.
        priority: from -999 to 999.
        tx: of a transaction function: the item is added with what else the function writes, or not at all.

        Raises what `Client.transact` raises.
        """
        while True:
            id = self._keys.id(priority, await self._number())
            line, item = self._keys.line(id), self._keys.item(id)
            if tx is not None:
                if await tx.get(line) is None:
                    tx.put(item, value, content_type=content_type)
                    tx.put(line, 0)
                    return id
            else:
                adding = [Put(item, value, content_type), Put(line, 0)]
                if (await self._state.transact(conditions=[Key(line).absent()], then=adding)).committed:
                    return id
            # A restore has set back the numbers.

    async def _number(self) -> int:
        """A number that no other item of the queue has."""
        done = await self._state.transact(then=[Increment(self._keys.tail)])
        (tail,) = done.results
        assert isinstance(tail, IncrementResult)
        return tail.value

    # Consumers

    @contextlib.asynccontextmanager
    async def claim(self, timeout: float | None = None) -> AsyncIterator[Item]:
        """A block that has an item: acknowledged at its end, unless the block has done so itself; given back if it
        raises. One that is cancelled gives it back, too, and that is counted as no try.

        timeout: as of `get`.

        If the lease is lost, the block is cancelled and LeaseLost is raised. Raises what `get` and `Item.ack` raise.
        """
        item = await self.get(timeout)
        block = Block()
        block.begin(item.lease)
        item._watch_over(block)
        try:
            yield item
            if not item.settled:
                item.lease.check()
                await item.ack()
        except BaseException as error:
            block.end()
            try:
                block.check(error)
            finally:
                await item.give_back(counts=isinstance(error, Exception))
            raise
        finally:
            block.end()
            await item.close()

    async def get(self, timeout: float | None = None) -> Item:
        """Claim the first free item; wait for one if there is none. `ack` or `nack` it: its lease is kept alive until
        then.

        timeout: seconds to wait at most; None: for ever. A cancelled wait claims nothing.

        Raises TimeoutError, and what `Client.transact` raises.
        """
        async with within(timeout, f"queue {self.name!r} had no free item") as wait:
            while True:
                free, revision, epoch = await self._free(wait)
                while free:
                    item = await self._claim_any(free)
                    if item is not None:
                        return item
                    free, revision, epoch = await self._free(wait)
                item = await self._claim_any(await self._until_free(revision, epoch, wait))
                if item is not None:
                    return item

    async def try_get(self) -> Item | None:
        """Claim the first free item; None if there is none now. Raises what `Client.transact` raises."""
        while True:
            free, _, _ = await self._free()
            if not free:
                return None
            item = await self._claim_any(free)
            if item is not None:
                return item

    async def _free(self, wait: Wait | None = None) -> tuple[list[Free], int, str]:
        """The first free items in their order, and the revision of which they are, with its epoch."""
        seconds = self._state.timeout if wait is None else wait.call(self._state.timeout)
        listing = self._state.list(self._keys.lines, page_size=PAGE, keys_only=True, timeout=seconds)
        claims: dict[str, Entry | None] = {}  # of each item
        free = 0
        async for entry in listing:
            id, is_claim = self._keys.parse(entry.key) or ("", True)
            if not is_claim:
                if free >= CANDIDATES:
                    break
                claims[id] = None
                free += 1
            elif id in claims:
                claims[id] = entry
                free -= len(await self._living.among([entry], anew=False))
        leased = [claim for claim in claims.values() if claim is not None and claim.lease_id]
        taken = await self._living.among(leased, anew=False)
        if not free or len(taken) < len(leased):  # before a wait, or before one is passed over, it is made sure of
            taken = await self._living.among(leased)
        held = {claim.key for claim in taken}
        found = [
            Free(id, 0 if claim is None else claim.mod_revision)
            for id, claim in claims.items()
            if claim is None or claim.key not in held
        ]
        return found, listing.revision, listing.epoch

    async def _until_free(self, revision: int, epoch: str, wait: Wait) -> list[Free]:
        """Wait until some item may be free. None is named if that is not known.

        All who wait hear of an item at once. They wait a little longer, each its own while, so that the first have
        claimed it by the time that the others would try.
        """
        clock = asyncio.get_running_loop().time
        free: dict[str, Free] = {}
        due: float | None = None
        watching = self._state.watch(
            self._keys.lines, from_revision=revision + 1, epoch=epoch, on_connection=wait.notice
        )
        async with watching as watch:
            while True:
                try:
                    async with asyncio.timeout_at(due):
                        event = await anext(watch)
                except TimeoutError:
                    if free:
                        return list(free.values())
                    due = None
                    continue
                if isinstance(event, Resync):
                    return []
                parsed = self._keys.parse(event.key)
                if parsed is None:
                    continue
                id, is_claim = parsed
                if is_claim and event.is_put and not event.entry.lease_id:  # as by a restore or a merge: nobody's
                    free[id] = Free(id, event.revision)
                elif is_claim and event.is_delete:
                    free[id] = Free(id, 0)
                elif not is_claim and event.is_create:
                    free.setdefault(id, Free(id, 0))  # unless its claim came back along with it
                elif is_claim or event.is_delete:
                    free.pop(id, None)
                if free and due is None:
                    due = clock() + random.uniform(0, self._spread)

    async def _claim_any(self, free: Sequence[Free]) -> Item | None:
        """Claim one of the first. None: others have claimed all of them."""
        left = list(free)
        while left:
            chosen = left.pop(random.randrange(min(len(left), self._window)))
            if self._lease is not None:  # others may claim by it too
                chosen = chosen._replace(claim=uuid4().hex)
            claiming = begun(self._claim(chosen))
            try:
                claimed = await asyncio.shield(claiming)
            except BaseException:
                await self._give_back(chosen, claiming)
                raise
            if claimed is None:
                self._window = min(self._window * 2, CANDIDATES)
                self._spread = min(max(self._spread * 2, FIRST_SPREAD), LONGEST_SPREAD)
                continue
            self._window = max(self._window // 2, 1)
            self._spread = self._spread / 2 if self._spread > FIRST_SPREAD else 0.0
            item = Item(self._state, self._keys, claimed, self.tries, self._on_dead)
            if claimed.tries <= self.tries:
                return item
            # Its last consumers died, or lost their leases, and none was left to say that it failed.
            reason = f"dead letter: {claimed.tries - 1} tries"
            try:
                with contextlib.suppress(LeaseLost):  # whoever claims it next does so
                    await item.nack(reason=reason)
            except BaseException:
                await item.give_back(reason, counts=True)
                raise
            finally:
                await item.close()
        return None

    async def _claim(self, free: Free) -> Claimed | None:
        """None: another one was faster."""
        line, claim = self._keys.line(free.id), self._keys.claim(free.id)
        done = await self._state.transact(
            conditions=[Key(line).exists(), Key(claim).mod_revision == free.claim_revision],
            then=[
                Increment(line),
                Put(claim, self._record(free), lease=self._lease, ttl=None if self._lease else self._ttl),
                Get(self._keys.item(free.id)),
            ],
            message=f"claim {free.id}",
        )
        if not done.committed:
            return None
        tries, _, got = done.results
        assert isinstance(tries, IncrementResult)
        assert isinstance(got, GetResult)
        if got.entry is None:  # it has no content: somebody has deleted that alone
            await self._state.delete(prefix=line)
            return None
        lease = self._lease
        if lease is None:
            try:
                lease = await self._state.keep_alive(put_in(done).lease_id, ttl=self._ttl)
            except BaseException as error:
                await clean_up(self._take_back(free.id, done.revision))
                if isinstance(error, LeaseNotFound):
                    return None
                raise
        return Claimed(free.id, got.entry, tries.value, done.revision, lease, shared=self._lease is not None)

    async def _take_back(self, id: str, revision: int) -> None:
        """The claim that was made at a revision is none, and was no try: nobody has seen the item."""
        line = self._keys.line(id)
        await self._state.transact(
            conditions=[Key(line).mod_revision == revision],
            then=[Delete(self._keys.claim(id)), Increment(line, -1)],
            message=f"give back {id}",
        )

    def _record(self, free: Free) -> dict[str, str]:
        """What is written down of who has claimed."""
        return {"owner": self._owner, "claim": free.claim} if free.claim else {"owner": self._owner}

    async def _give_back(self, free: Free, claiming: "asyncio.Task[Claimed | None]") -> None:
        """What was claimed for somebody who was cancelled meanwhile, or may have been, is free again."""
        if self._lease is None:
            await clean_up(self._undo(claiming))
        else:
            await insist(partial(self._undo_shared, free, claiming), self._lease)

    async def _undo(self, claiming: "asyncio.Task[Claimed | None]") -> None:
        await asyncio.wait([claiming])
        claimed = None if claiming.cancelled() or claiming.exception() else claiming.result()
        if claimed is not None:
            await Item(self._state, self._keys, claimed, self.tries).nack(counts=False)

    async def _undo_shared(self, free: Free, claiming: "asyncio.Task[Claimed | None]") -> None:
        """Where it is not known whether it was claimed, no end of a lease would tell: the claim's own record does."""
        await asyncio.wait([claiming])
        failed = None if claiming.cancelled() else claiming.exception()
        if failed is None or isinstance(failed, (Unavailable, DeadlineExceeded, RateLimited)):
            claim = self._keys.claim(free.id)
            await self._state.transact(
                conditions=[Key(claim).value == self._record(free)],
                then=[Delete(claim), Increment(self._keys.line(free.id), -1)],
                message=f"{free.id} is given back",
            )

    # Operators

    async def size(self) -> QueueSize:
        """How much is in it. Lists the keys of all items."""
        items = 0
        claims: list[Entry] = []
        async for entry in self._state.list(self._keys.lines, keys_only=True):
            parsed = self._keys.parse(entry.key)
            if parsed is not None and parsed[1]:
                claims.append(entry)
            elif parsed is not None:
                items += 1
        claimed = len(await self._living.among(claims))
        return QueueSize(items - claimed, claimed, len(await self._letters(keys_only=True)))

    async def dead(self) -> list[DeadLetter]:
        """The dead letters, in the order that they had in the queue."""
        return [DeadLetter(id, _readable(each), each.update_time) for id, each in await self._letters(keys_only=False)]

    async def requeue(self, id: str | None = None) -> int:
        """Have a dead letter tried again, at its old place and as if it were new; or all of them. Returns how many."""
        ids = [each for each, _ in await self._letters(keys_only=True)] if id is None else [id]
        return sum([await self._state.transact(partial(self._revive, id=each)) for each in ids])

    async def _letters(self, *, keys_only: bool) -> list[tuple[str, Entry]]:
        """The ids of the dead letters, and their entries. What else is written there is none."""
        letters = await self._state.list(self._keys.dead_letters, keys_only=keys_only).all()
        return [(id, letter) for letter in letters if (id := self._keys.buried(letter.key)) is not None]

    async def _revive(self, tx: Transaction, id: str) -> bool:
        letter = await tx.get(self._keys.dead(id))
        if letter is None or self._keys.buried(letter.key) is None:
            return False
        tx.delete(letter.key)
        tx.put(self._keys.item(id), letter.data, content_type=letter.content_type)
        tx.put(self._keys.line(id), 0)
        return True

    async def purge(self, id: str | None = None) -> int:
        """Delete a dead letter, or all of them. Returns how many."""
        if id is not None:
            return (await self._state.delete(self._keys.dead(id))).deleted
        return (await self._state.delete(prefix=self._keys.dead_letters)).deleted


def _readable(letter: Entry) -> Any:
    try:
        return letter.value
    except DecodeError:
        return letter.data
