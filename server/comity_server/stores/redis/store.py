"""The store that many servers share."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Final

import structlog

from comity_server.errors import NamespaceNotFound, StateError, StoreFull, StoreUnavailable
from comity_server.limits import Limits, Retention, Share
from comity_server.model import (
    Expire,
    Fork,
    LeaseInfo,
    Merge,
    NamespaceInfo,
    Outcome,
    Position,
    Write,
)
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.leases import Deadlines, Leases
from comity_server.stores.memory.namespace import Namespace, Parent
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Listener
from comity_server.stores.redis import holds, leasing, preflight
from comity_server.stores.redis.arrivals import RedisArrivals
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.compaction import Compaction
from comity_server.stores.redis.expiries import Expiries
from comity_server.stores.redis.failures import Passing, Unreadable, unavailable
from comity_server.stores.redis.followers import Followers
from comity_server.stores.redis.health import Health
from comity_server.stores.redis.holds import Holds
from comity_server.stores.redis.journal import Busy, RedisJournal
from comity_server.stores.redis.loading import Meta
from comity_server.stores.redis.names import Names, TooMany
from comity_server.stores.redis.patience import backoff
from comity_server.stores.redis.replicas import Moved, Renewed, Replicas
from comity_server.stores.redis.url import Target
from comity_server.tasks import end

log = structlog.get_logger(__name__)

IDLE_SECONDS: Final = 900.0  # how long a replica is kept that nobody asks for
COMPACTION_SECONDS: Final = 60  # how long others leave it to a server to compact what none has loaded
DELETION_SECONDS: Final = 30.0  # how long a deletion waits for another server's
FINISH_SECONDS: Final = 5.0  # how long deletions and compactions are waited for at the end
JUDGED: Final = 1000  # writes of a group that are looked at: no more are judged at a time


class Outdated(Exception):
    """What a fork was to be made from was looked up for another namespace than the one that there is now."""


class _Untold(Deadlines):
    """Redis tells which leases have run out, of all namespaces."""

    def add(self, name: str, leases: Leases, id: int, deadline: int) -> None:
        """There is nothing to remember."""


class Wanted:
    """What a fork is to be made from."""

    def __init__(self, generation: int) -> None:
        self.generation = generation  # that the fork will be
        self.parent: Parent | None = None  # as it is held
        self.error: StateError | None = None  # why it is not
        self.used = False


class RedisStore(MemoryStore):
    """Implements `stores.protocol.Store` over one Redis, which other servers may use too.

    Args:
        target: where Redis is.
        limits: see there.
        wait_replicas: how many replicas of Redis must have a write before it is answered.
        require_durable: not to open a Redis that may lose what it has acknowledged.
    """

    def __init__(
        self, target: Target, limits: Limits, *, wait_replicas: int = 0, require_durable: bool = False
    ) -> None:
        super().__init__(limits)
        self._client = Client(target, wait_replicas=wait_replicas)
        self._replicas = Replicas(self._client, self)
        self._names = Names(self._replicas, limits)
        self._compaction = Compaction(self._replicas)
        self._journal = self._redis = RedisJournal(self._replicas, self._names, self._compaction, limits)
        self._holds = Holds(self._replicas, self._redis, self._lock)
        self._expiries = Expiries(self._client, time=self.time, generation=self._generation)
        self._deadlines = _Untold()
        self._target = target
        self._require_durable = require_durable
        self._health = Health(self._client, self._replicas.epoch)
        self._followers = Followers(self._replicas, self._lock)
        self._wanted: dict[str, Wanted] = {}  # by the forks that are being made, whose locks are held
        self._refused: dict[str, Share] = {}  # namespaces that have no room to begin, while that is answered

    async def open(self) -> None:
        try:
            await preflight.look(self._client)
            await self._health.look()
            await preflight.try_writes(self._client, require_durable=self._require_durable)
            await preflight.check(self._client, require_durable=self._require_durable)
        except (StateError, Passing) as error:
            await self._client.close()
            raise unavailable(self._target, error) from error
        self._health.begin()

    async def close(self) -> None:
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=FINISH_SECONDS)
        for task in list(self._finishing):
            await end(task)
        await self._followers.close()
        await self._health.close()
        await self._expiries.close()
        await self._replicas.close()
        await self._client.close()

    def arrivals(self) -> RedisArrivals:
        """Lets it take in what comes from another store."""
        return RedisArrivals(
            self, self._replicas, self._redis, self._names, self._compaction, self._holds, self._expiries
        )

    def trouble(self) -> str:
        return self._health.trouble()

    def time(self) -> int:
        """By the clock of Redis: those of servers do not matter."""
        return self._health.time()

    # What the replicas ask for

    def lock(self, name: str) -> asyncio.Lock:
        return self._lock(name)

    def adopt(self, meta: Meta, state: Namespace) -> None:
        if meta.exists:
            self.namespaces_by_name[state.name] = state
            self.deleted.pop(state.name, None)
        else:
            self.namespaces_by_name.pop(state.name, None)
            self.keep_deleted(state)

    # Writes

    async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        outcomes: list[Outcome | StateError] = []
        try:
            while len(outcomes) < len(group):
                rest = group[len(outcomes) :]
                if isinstance(rest[0], Fork):
                    outcomes.append(await self._commit_fork(namespace, rest[0]))
                else:
                    outcomes += await self._commit_others(namespace, rest)
        except StateError as error:  # what came before it was applied
            outcomes += [error] * (len(group) - len(outcomes))
        finally:
            self._replicas.use(namespace)
        return outcomes

    async def _commit_others(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        """Commit the writes of a group up to the first fork."""
        some = list(takewhile(lambda write: not isinstance(write, Fork), group))
        if self._replicas.known(namespace) is None:
            await self._replicas.fresh(namespace)
        for write in some:  # not under the lock of what they are merged into
            if isinstance(write, Merge):
                await self._fresh(write.fork)
        return await super().commit(namespace, some)

    async def _commit_fork(self, name: str, action: Fork) -> Outcome | StateError:
        """What a fork is to share is held before its own lock is taken: see `Replicas.share` for the order of locks."""
        while True:
            wanted = await self._want(name, action)
            outcome: Outcome | StateError | None = None
            try:
                async with self._lock(name):
                    self._wanted[name] = wanted
                    try:
                        (outcome,) = await self._commit(name, [action])
                    finally:
                        del self._wanted[name]
            except Outdated:
                pass
            finally:
                if wanted.parent is not None:
                    wanted.parent.namespace.forks -= 1
            if wanted.parent is not None:
                # Where nobody can tell whether the fork was made, `retain` sees to it.
                if not wanted.used and not isinstance(outcome, StoreUnavailable | StoreFull):
                    await self._holds.let_go(wanted.parent)
                await self._let_go(wanted.parent.namespace)
            if outcome is not None:
                return outcome

    async def _want(self, name: str, action: Fork) -> Wanted:
        state = await self._replicas.fresh(name)
        wanted = Wanted(state.id)
        if not state.create_time:
            try:
                wanted.parent = await self._holds.take(state, action)
            except StateError as error:
                wanted.error = error
        return wanted

    async def _commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        anew = False
        try:
            while True:
                try:
                    if self._replicas.known(namespace) is None:
                        await self._replicas.advance(namespace)
                    expired = [id for write in group[:JUDGED] if isinstance(write, Expire) for id in write.lease_ids]
                    if expired:
                        await self._look_at_leases(self._find(namespace), expired, anew=anew)
                    return await super()._commit(namespace, group)
                except Renewed:
                    anew = True
                except Moved:
                    await asyncio.sleep(0)
                except TooMany as error:
                    self._refused[namespace] = error.share
        finally:
            self._refused.pop(namespace, None)

    async def _carry_out(self, draft: Draft) -> None:
        name = draft.base.name
        if not draft.changes:  # what was answered from here has to be so in Redis
            before = self._replicas.find(name).meta.stands
            replica = await self._replicas.advance(name)
            if replica.meta.stands != before:
                raise Moved
            if replica.meta.exists:  # it may have been written by one who heard that too few replicas have it
                await self._client.await_replicas(self._replicas.keys(name).meta)
            return
        await super()._carry_out(draft)
        replica = self._replicas.find(name)
        replica.meta = self._redis.revised.pop(name)
        replica.state = draft.base
        lives = [draft.leases.remaining(id) for id in draft.leases.granted if id not in draft.leases.ended]
        if lives:
            await self._expiries.granted(name, min(lives))

    def _full(self, name: str) -> Share | None:
        return self._refused.get(name)

    async def _hold_for(self, empty: Namespace, action: Fork) -> Parent:
        """The lock of the fork is held."""
        wanted = self._wanted[empty.name]
        if wanted.generation != empty.id:
            raise Outdated
        if wanted.parent is None:
            raise wanted.error or Outdated
        wanted.used = True
        return wanted.parent

    async def _let_go_for(self, parent: Parent) -> None:
        """The lock of the fork is held: so this is done afterwards."""
        self._wanted[holds.name(parent.hold)].used = False

    def _id_above(self, empty: Namespace) -> int:
        return empty.id  # its generation

    def keep_deleted(self, empty: Namespace) -> None:
        """Redis keeps the outcomes for the window; what is here of the name goes as `sweep` says."""
        self.deleted[empty.name] = (0.0, empty)

    async def _delete(self, name: str, if_revision: int | None) -> Namespace:
        try:
            state = await self._delete_alone(name, if_revision)
        except StateError:
            with suppress(StateError, Passing):
                await self._compaction.give_up_deletion(name)
            raise
        is_shared = self._redis.ended.pop(state)
        self._replicas.distrust(name, told=True)
        with suppress(StateError):  # it is deleted all the same
            await self._replicas.fresh(name)
        if state.parent is not None and not is_shared:  # else the last of them lets go
            await self._holds.let_go(state.parent)
        return state

    async def _delete_alone(self, name: str, if_revision: int | None) -> Namespace:
        """Delete it as soon as no other server is about to. Raises StoreUnavailable if one is for long."""
        attempt = 0
        deadline = time.monotonic() + DELETION_SECONDS
        while True:
            await self._replicas.fresh(name)
            try:
                return await super()._delete(name, if_revision)
            except Moved:
                continue
            except Busy:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"another server is about to delete namespace {name}") from None
                await asyncio.sleep(backoff(attempt))
                attempt += 1

    # Leases

    async def lease(self, namespace: str, id: int) -> LeaseInfo:
        (info,) = await self._remaining(namespace, [await super().lease(namespace, id)])
        return info

    async def leases(self, namespace: str, *, after: int = 0, limit: int) -> Sequence[LeaseInfo]:
        return await self._remaining(namespace, await super().leases(namespace, after=after, limit=limit))

    async def keep_alive(self, namespace: str, lease_ids: Sequence[int]) -> Sequence[int]:
        renewals = [(id, 0) for id in lease_ids]
        return await leasing.renew(self._client, self._replicas.keys(namespace), self._generation(namespace), renewals)

    async def due(self) -> Mapping[str, Sequence[int]]:
        found = await self._expiries.due()
        for name, ids in found.items():
            replica = self._replicas.known(name)
            if replica is None:
                continue
            for id in ids:
                if (held := replica.state.leases.get(id)) is not None:
                    held.deadline = 0  # Redis is not asked once more before it is told to end them
        return found

    async def _remaining(self, name: str, infos: Sequence[LeaseInfo]) -> Sequence[LeaseInfo]:
        """What is known of leases, with how long Redis says that they live."""
        of, generation = self._replicas.keys(name), self._generation(name)
        left = await leasing.remaining(self._client, of, generation, [info.lease.id for info in infos])
        return [info._replace(remaining=max(0, one or 0)) for info, one in zip(infos, left, strict=True)]

    async def _look_at_leases(self, state: Namespace, ids: Sequence[int], *, anew: bool) -> None:
        """See in Redis which of some leases have run out: `anew`, also those that are thought to have. Redis lets none
        end that has been renewed since. The lock is held."""
        held_by_id = {id: held for id in ids if (held := state.leases.get(id)) is not None}
        known = [id for id, held in held_by_id.items() if anew or held.deadline]
        found = await leasing.remaining(self._client, self._replicas.keys(state.name), state.id, known)
        for id, left in zip(known, found, strict=True):
            held_by_id[id].deadline = self.clock() + left if left is not None and left > 0 else 0

    def _generation(self, name: str) -> int:
        """What is thought to be the generation of a namespace."""
        replica = self._replicas.known(name)
        return replica.meta.generation if replica is not None else 1

    # Compaction

    async def retain(self, name: str, retention: Retention) -> int:
        replica = self._replicas.known(name)
        meta = replica.meta if replica is not None else await self._replicas.meta(name)
        if replica.state.leases if replica is not None else meta.leases:
            await self._expiries.remind(name)
        if replica is None:  # it is others' who have it, and nobody's if it is long at rest
            if not meta.exists:
                raise NamespaceNotFound(name)
            if not self._is_due(meta, retention) or not await self._compaction.begin(name, COMPACTION_SECONDS):
                return meta.floor
        state = await self._replicas.fresh(name)
        await self._holds.let_go_of_orphans(state)
        await self._take_over(name)
        floor = await super().retain(name, retention)
        try:
            async with self._lock(name):
                claimed = await self._compaction.claim_trim(self._existing(name))
            if claimed is not None:
                await self._compaction.trim(claimed)
        except Moved:
            pass  # there is a next time
        return floor

    def _is_due(self, meta: Meta, retention: Retention) -> bool:
        """Whether a namespace that is not loaded is to be compacted: not as soon as one that is."""
        if meta.base < meta.floor:
            return True
        return meta.revision > meta.floor and (
            meta.time < self.time() - int(retention.age * 1e6)
            or meta.revision - meta.floor > retention.commits
            or meta.history > retention.history_bytes
        )

    async def _take_over(self, name: str) -> None:
        """Where a server that moves the log into the base has ended before it was through, go on from there."""
        base = (await self._replicas.meta(name)).base
        replica = self._replicas.known(name)
        if replica is None:
            return
        if base >= replica.state.log.base:
            replica.lag = None
        elif base != replica.lag:
            replica.lag = base
        else:
            self._replicas.distrust(name)
            await self._replicas.fresh(name)

    async def _compact(self, state: Namespace, floor: int) -> None:
        if state.deleted:  # what forks share of it stays as it is
            return
        generation = state.id
        while True:
            try:
                async with self._lock(state.name):
                    # Not the one that was given: it may have been loaded anew since, or be another one of that name.
                    state = self._existing(state.name)
                    if state.id != generation or state.revision < floor:
                        return
                    await self._holds.take_again(state.name)
                    if floor > state.floor:
                        await self._redis.floor(state, floor)
                    is_behind = state.log.base < state.floor
                    is_behind = is_behind and (await self._replicas.meta(state.name)).base < state.floor
                    claimed = await self._compaction.claim(state) if is_behind else None
                    break
            except NamespaceNotFound:
                return
            except Moved:
                continue
        # Without the lock, since it may take long.
        if is_behind and not (claimed is not None and await self._compaction.write_down(claimed)):
            return  # another server does this: what that leaves is dropped the next time
        await super()._compact(state, state.floor)
        await self._compaction.release(state)

    async def sweep(self) -> None:
        """Names are kept in Redis. What this server has of namespaces that are not there any more, it lets go of: else
        it would keep in memory what they share with others. And of what was not asked for in a long time."""
        for name in await self._replicas.unlisted():
            try:
                state = await self._replicas.fresh(name)
            except Unreadable:
                continue
            if state.create_time:
                await self._names.enlist(name)
            async with self._lock(name):
                if self.deleted.get(name, (0.0, None))[1] is state and name not in self._listeners:
                    del self.deleted[name]
                    self._replicas.drop(name)
        self._replicas.evict(time.monotonic() - IDLE_SECONDS)

    def is_used(self, name: str) -> bool:
        return name in self._listeners or self._lock(name).locked()

    async def pin(self, name: str, revision: int, hold: str) -> None:
        await self._holds.pin(name, revision, hold)

    def evicted(self, name: str) -> None:
        self.namespaces_by_name.pop(name, None)
        self.deleted.pop(name, None)

    # Reads

    async def _fresh(self, name: str) -> None:
        await self._replicas.fresh(name)
        self._replicas.use(name)

    async def namespaces(
        self, prefix: str, *, after: str = "", limit: int, shown: Callable[[str], bool] | None = None
    ) -> Sequence[NamespaceInfo]:
        return await self._names.infos(prefix, after, limit, shown)

    # Followers

    async def follow(self, namespace: str, listener: Listener) -> Position:
        position = await super().follow(namespace, listener)
        self._followers.begin(namespace)
        return position

    async def unfollow(self, namespace: str) -> None:
        await super().unfollow(namespace)
        await self._followers.end(namespace)
