"""A line: those who want something, in the order in which they came. The first of them have it."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from comity.cleanup import begun, clean_up
from comity.client import Client
from comity.errors import FailedPrecondition, LeaseLost, LeaseNotFound
from comity.leases.block import ends_with
from comity.leases.lease import Lease
from comity.leases.living import Living
from comity.model import Entry, GetResult, ListResult, Resync, TransactionResult
from comity.operations import Get, Key, List, Operation, Put

from .puts import put_in
from .within import Wait

__all__ = ["Line", "Place"]


class Place(NamedTuple):
    """A place in a line: a key that lives by a lease of its own."""

    key: str
    lease: Lease  # its id is the fence


class Line:
    """Places under a prefix. Those with the lowest create_revisions, up to the limit, have what they stand in line for.

    limit_key: where the limit is kept, so that all who stand in line go by the same.
    """

    def __init__(self, state: Client, prefix: str, ttl: float, *, limit: int = 1, limit_key: str = "") -> None:
        self._state = state
        self._prefix = prefix
        self._ttl = ttl
        self._limit = limit
        self._limit_key = limit_key
        self._living = Living(state)

    async def enter(self, value: object, wait: Wait) -> Place:
        """Stand in line, and return when it is our turn. If that is cancelled it leaves the line.

        A place that was lost while waiting is taken anew, at the end of the line.
        """
        while (place := await self._stand(value, wait)) is None:
            pass
        return place

    async def try_enter(self, value: object) -> Place | None:
        """A place at the front, if there is one now."""
        if len(await self._living.among(await self._list(keys_only=True))) >= self._limit:
            return None
        return await self._stand(value, None)

    async def first(self) -> list[Entry]:
        """The places at the front, the longest there first."""
        return in_order(await self._living.among(await self._list(keys_only=False)))[: self._limit]

    async def _list(self, *, keys_only: bool) -> Sequence[Entry]:
        return await self._state.list(self._prefix, keys_only=keys_only).all()

    async def _stand(self, value: object, wait: Wait | None) -> Place | None:
        """None: the place was lost, or it is none at the front and there is to be no wait."""
        key = self._prefix + uuid.uuid4().hex
        joining = begun(self._join(key, value, wait))
        lease: Lease | None = None
        try:
            joined = await asyncio.shield(joining)
            lease = await self._state.keep_alive(put_in(joined).lease_id, ttl=self._ttl)
            with ends_with(lease):
                if await self._turn(key, joined, wait):
                    return Place(key, lease)
            await lease.revoke()
        except (LeaseLost, LeaseNotFound):
            return None
        except BaseException:
            await clean_up(self._leave(key, joining, lease, wait))
            raise
        return None

    async def _join(self, key: str, value: object, wait: Wait | None) -> TransactionResult:
        """Take a place, and see all that are taken."""

        def seconds() -> float:
            return self._state.timeout if wait is None else wait.call(self._state.timeout)

        entering: list[Operation] = [Put(key, value, ttl=self._ttl), List(self._prefix, keys_only=True)]
        while self._limit_key:
            joined = await self._state.transact(
                conditions=[Key(self._limit_key).value == self._limit],
                then=entering,
                otherwise=[Get(self._limit_key)],
                timeout=seconds(),
            )
            if joined.committed:
                return joined
            (found,) = joined.results
            assert isinstance(found, GetResult)
            if found.entry is not None:
                raise FailedPrecondition(
                    f"{self._limit_key!r} says that the limit is {found.entry.value!r}, not {self._limit}",
                    reason="LIMIT_DIFFERS",
                    metadata={"key": self._limit_key},
                )
            await self._state.transact(
                conditions=[Key(self._limit_key).absent()],
                then=[Put(self._limit_key, self._limit)],
                timeout=seconds(),
            )
        return await self._state.transact(then=entering, timeout=seconds())

    async def _leave(
        self, key: str, joining: "asyncio.Task[TransactionResult]", lease: Lease | None, wait: Wait | None
    ) -> None:
        """Give the place back. Whoever was cancelled while it was taken does not know whether it was."""
        if lease is not None:
            await lease.revoke()
            return
        await asyncio.wait([joining])
        if wait is not None and not joining.cancelled():
            wait.cut_short(joining.exception())
        if joining.cancelled() or not isinstance(joining.exception(), FailedPrecondition):
            await self._state.delete(key)

    async def _turn(self, key: str, joined: TransactionResult, wait: Wait | None) -> bool:
        """Whether the place is at the front; with a wait, once it is. Raises LeaseLost if it is none any more."""
        listed = joined.results[1]
        assert isinstance(listed, ListResult)
        entries: Sequence[Entry] = listed.entries
        revision, epoch = joined.revision, joined.epoch
        whole = not listed.more
        while True:
            if not whole:
                listing = self._state.list(self._prefix, keys_only=True)
                entries = await listing.all()
                revision, epoch = listing.revision, listing.epoch
            ahead = await self._ahead(key, entries)
            if len(ahead) < self._limit:
                return True
            if wait is None:
                return False
            await self._until_fewer(ahead, revision, epoch, wait)
            whole = False

    async def _ahead(self, key: str, entries: Sequence[Entry]) -> list[Entry]:
        """The places before one, in their order."""
        own = next((entry for entry in entries if entry.key == key), None)
        if own is None:
            raise LeaseLost(f"the lease of {key!r} has ended")
        before = [entry for entry in entries if entry.create_revision < own.create_revision]
        return in_order(await self._living.among(before))

    async def _until_fewer(self, ahead: Sequence[Entry], revision: int, epoch: str, wait: Wait) -> None:
        """Wait until it may be our turn: the place just before is gone; or of several at the front, enough of them."""
        alone = self._limit == 1
        left = {entry.key: entry.lease_id for entry in (ahead[-1:] if alone else ahead)}
        watch = self._state.watch(
            "" if alone else self._prefix,
            key=ahead[-1].key if alone else None,
            from_revision=revision + 1,
            epoch=epoch,
            on_connection=wait.notice,
        )
        async with watch:
            async for event in watch:
                if isinstance(event, Resync):
                    return
                # A place that was written again without its lease, as by a restore or a merge, is as good as gone.
                if event.entry.lease_id != left.get(event.key):
                    left.pop(event.key, None)
                if len(left) < self._limit:
                    return


def in_order(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.create_revision)
