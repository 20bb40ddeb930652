"""What a queue holds, and what whoever has claimed it can do."""

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, overload

from comity.checks import check_seconds
from comity.cleanup import clean_up, insist
from comity.client import Client
from comity.errors import LeaseLost
from comity.leases.block import Block
from comity.leases.holding import Holding
from comity.leases.lease import Lease
from comity.model import Entry
from comity.operations import Delete, Increment, Key, Operation, Put
from comity.transaction import Transaction

from .queue_keys import QueueKeys

__all__ = ["Claimed", "Item", "OnDead"]

T = TypeVar("T")


class Claimed(NamedTuple):
    """What a claim brought."""

    id: str
    entry: Entry
    tries: int
    fence: int  # the revision of the claim
    lease: Lease
    shared: bool  # the lease is not the claim's own: more lives by it than this claim


class Item(Holding):
    """One item of a queue, claimed by this process. Made by `Queue.get` and `Queue.claim`.

    It stays in the queue until it is acknowledged. When the lease that it is claimed by is lost, it is free again, and
    nothing can be done with it here: `ack` and `nack` raise LeaseLost.

    id: in the order in which items are to be claimed.
    tries: how often it was claimed, this time included.
    fence: the fencing token of the claim, which is its revision: greater than that of every claim before it, as long as
        the store has lost nothing. Where that has to hold whatever it loses, go by `item.guard.fence`.
    """

    def __init__(
        self, state: Client, keys: QueueKeys, claimed: Claimed, limit: int, on_dead: "OnDead | None" = None
    ) -> None:
        self.id, self.entry, self.tries, self.fence, self._lease, self._shared = claimed
        self._state = state
        self._keys = keys
        self._limit = limit
        self._on_dead = on_dead
        self._block: Block | None = None
        self.settled = False  # acknowledged, or given back

    def __repr__(self) -> str:
        claim = "settled" if self.settled else "claimed" if self.lease.alive else "lost"
        return f"<comity.recipes.Item {self.id}: {claim}, try {self.tries}, fence {self.fence}>"

    @property
    def queue(self) -> str:
        """The name of the queue that it was claimed from."""
        return self._keys.name

    @property
    def value(self) -> Any:
        """What was put. Raises DecodeError as `Entry.value` does."""
        return self.entry.value

    @property
    def lease(self) -> Lease:
        """What the claim lives by."""
        return self._lease

    @overload
    async def ack(self, *, message: str = "") -> None: ...

    @overload
    async def ack(self, function: Callable[[Transaction], Awaitable[T]], *, message: str = "") -> T: ...

    @overload
    async def ack(self, function: Callable[[Transaction], T], *, message: str = "") -> T: ...

    async def ack(self, function: Callable[[Transaction], Any] | None = None, *, message: str = "") -> Any:
        """It is done, and leaves the queue: exactly once, whatever others who once claimed it do.

        function: as of `Client.transact`, async or not: what it writes is applied together with the acknowledgement, or
            neither is. What it returns is returned.
        message: why, for the history.

        Raises LeaseLost if the claim has ended; RuntimeError if it was acknowledged or given back already; and what
        `Client.transact` raises.
        """
        self._check()
        message = message or f"ack {self.id}"
        if function is None:
            await self._settle([Delete(key) for key in self._all], message)
            return None

        async def both(tx: Transaction) -> Any:
            result = function(tx)
            if inspect.isawaitable(result):
                result = await result
            self._remove(tx)
            return result

        return await self._settle_by(both, message)

    async def nack(self, delay: float | None = None, reason: str = "", *, counts: bool = True) -> None:
        """It failed, and is free again at its old place; or a dead letter, if that was its last try.

        delay: seconds after which it is free again, as of a lease's ttl: at least 1 unless the server says else. None:
            at once.
        reason: why, for the history.
        counts: False: this was no try.

        Raises as `ack` does.
        """
        self._check()
        if delay is not None:
            check_seconds("delay", delay)
        message = reason or f"nack {self.id} after {self.tries} tries"
        if counts and self.tries >= self._limit:
            await self._bury(message)
            return
        then: list[Operation] = [Delete(self._claim) if delay is None else Put(self._claim, {"owner": None}, ttl=delay)]
        if not counts:
            then.append(Increment(self._keys.line(self.id), -1))
        await self._settle(then, message)

    async def give_back(self, reason: str = "", *, counts: bool) -> None:
        """`nack`, for who has failed or is cancelled: whatever comes of it, and whoever waits no longer. A claim that
        cannot be ended now goes with its lease; by a shared one, which lives on, it is tried until it is done."""
        if self.settled:
            return
        if self._shared:
            await insist(lambda: self.nack(reason=reason, counts=counts), self.lease)
        else:
            await clean_up(self.nack(reason=reason, counts=counts))

    async def _bury(self, message: str) -> None:
        """Make it a dead letter."""
        dead, data, content_type = self._keys.dead(self.id), self.entry.data, self.entry.content_type
        if self._on_dead is None:
            await self._settle([*(Delete(key) for key in self._all), Put(dead, data, content_type)], message)
            return
        on_dead = self._on_dead

        async def both(tx: Transaction) -> None:
            await on_dead(tx, self)
            self._remove(tx)
            tx.put(dead, data, content_type=content_type)

        await self._settle_by(both, message)

    def _remove(self, tx: Transaction) -> None:
        for key in self._all:
            tx.delete(key)

    async def _settle_by(self, function: Callable[[Transaction], Awaitable[T]], message: str) -> T:
        async def both(tx: Transaction) -> T:
            self._hold_on()
            claim = await tx.get(self._claim)
            if claim is None or (claim.mod_revision, claim.lease_id) != (self.fence, self._lease.id):
                raise self._lost()
            result = await function(tx)
            self._let_go()  # the lease ends with the commit
            return result

        with self._failing():
            result = await self._state.transact(both, message=message)
        await self._end()
        return result

    async def _settle(self, then: Sequence[Operation], message: str) -> None:
        self._let_go()
        with self._failing():
            done = await self._state.transact(
                conditions=[Key(self._claim).mod_revision == self.fence, Key(self._claim).lease_id == self._lease.id],
                then=then,
                message=message,
            )
        if not done.committed:
            await self.close()
            raise self._lost()
        await self._end()

    def _watch_over(self, block: Block) -> None:
        """The block that is cancelled when the claim is lost."""
        self._block = block

    def _let_go(self) -> None:
        if self._block is not None:
            self._block.let_go()

    def _hold_on(self) -> None:
        if self._block is not None:
            self._block.hold_on()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What fails here has ended no claim. That it was lost says LeaseLost: the block is not cancelled as well."""
        try:
            yield
        except LeaseLost:
            raise
        except BaseException:
            self._hold_on()
            raise

    async def _end(self) -> None:
        self.settled = True
        await self.close()

    async def close(self) -> None:
        """Keep the claim alive no longer, without giving it back. One that lives by a shared lease goes on with it."""
        if not self._shared:
            await self.lease.close()

    @property
    def _all(self) -> tuple[str, str, str]:
        return self._claim, self._keys.line(self.id), self._keys.item(self.id)

    @property
    def _claim(self) -> str:
        return self._keys.claim(self.id)

    def _check(self) -> None:
        if self.settled:
            raise RuntimeError(f"item {self.id} was acknowledged or given back already")

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"the claim of item {self.id} has ended: it is free for others, or done by them",
            reason="LEASE_LOST",
            metadata={"lease_id": str(self.lease.id)},
        )


OnDead = Callable[[Transaction, Item], Awaitable[object]]
