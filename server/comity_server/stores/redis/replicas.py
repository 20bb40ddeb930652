"""What this server has of each namespace in memory, and how it keeps up with Redis.

A namespace is loaded when it is first asked for, and follows its log from then on. Reads ask Redis where the namespace
stands, once for all that arrive meanwhile, and wait until the replica stands there too: so they see every write that
was answered before they began, whichever server answered it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, Final, Protocol

import structlog

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Commit, Event
from comity_server.record import KEY, MOD_REVISION, VERSION
from comity_server.stores.memory.actions import give_up_fork, let_go
from comity_server.stores.memory.namespace import Held, Namespace, Parent
from comity_server.stores.redis import codec, keys
from comity_server.stores.redis.barriers import Barriers
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.epoch import Epoch, is_lost
from comity_server.stores.redis.failures import Unreadable
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.loading import (
    Loader,
    Meta,
    Trimmed,
    parse_id,
    read_entry,
    take_grants,
    take_marks,
    take_outcomes,
    understood,
)
from comity_server.stores.redis.portions import entries_after
from comity_server.turns import Pace

log = structlog.get_logger(__name__)

NAMES: Final = 1000  # that Redis is asked about at a time
LOOK_AGAIN_SECONDS: Final = 0.05  # how long the lock of what a fork shares is waited for without a look at it
MISSED: Final = 10_000  # commits that those who follow are told of at a time
ABSENT: Final = 2000  # names that no namespace has, of which a replica is kept


class Moved(Exception):
    """The namespace is not where it was when a write was judged. It is up to date now: judge anew."""


class Renewed(Moved):
    """A lease that was to be ended, since it had run out, has been renewed: judge anew."""


class Parted(Trimmed):
    """The log goes on from something else than what is known of it."""


class Ended(Exception):
    """A namespace was deleted."""


class Mark:
    """What the log has besides versions was written down, up to a place in it, by whoever has the token, which then
    moves versions too. Redis counts the steps of all that: none is done where it has lost one before."""

    def __init__(self, token: str, place: tuple[int, int]) -> None:
        self.token = token
        self.place = place
        self.steps = 0  # that are known to be done


class Replica:
    """A namespace as this server has it."""

    def __init__(self, meta: Meta, state: Namespace) -> None:
        self.meta = meta  # where it stands
        self.state = state
        self.stale = False  # it may not be what Redis has
        self.used = time.monotonic()  # when a client last asked for it
        self.told = False  # whoever follows it knows that its history has ended
        self.mark: Mark | None = None  # of what was written down last by this server
        self.left_off: int | None = None  # the base from which another server was found to have gone on instead
        self.missing: dict[str, Held] = {}  # by forks, before it was loaded anew, and not known to Redis any more
        self.lag: int | None = None  # the base in Redis, where it was behind this replica's


class Host(Protocol):
    """What the replicas belong to."""

    limits: Limits

    def lock(self, name: str) -> asyncio.Lock:
        """Who holds it is alone in changing a replica."""

    def publish(self, name: str, commits: Sequence[Commit]) -> None: ...

    def reset(self, name: str) -> None: ...

    def adopt(self, meta: Meta, state: Namespace) -> None: ...

    def is_used(self, name: str) -> bool:
        """Whether somebody follows a replica or holds its lock."""

    def evicted(self, name: str) -> None: ...

    async def pin(self, name: str, revision: int, hold: str) -> None:
        """Keep a revision for a fork. The lock is held. Raises Moved."""


class Replicas:
    """The namespaces of one Redis. Use from one event loop."""

    def __init__(self, client: Client, host: Host) -> None:
        self.client = client
        self.epoch = Epoch(client)
        self._host = host
        self._prefix = client.target.prefix
        self._replicas: dict[str, Replica] = {}
        self._barriers = Barriers()
        self._absent: OrderedDict[str, None] = OrderedDict()  # replicas of what does not exist, the oldest first
        self._loader = Loader(client, host.limits, self.share)
        self._pace = Pace()

    def keys(self, name: str) -> Keys:
        return Keys(self._prefix, name)

    def find(self, name: str) -> Replica:
        """A replica that `fresh` or `advance` was called for."""
        return self._replicas[name]

    def known(self, name: str) -> Replica | None:
        return self._replicas.get(name)

    async def meta(self, name: str) -> Meta:
        """Where a namespace stands in Redis, or that it would begin in the epoch of the whole."""
        return self.epoch.begun(await self._loader.meta(name))

    async def metas(self, names: Sequence[str]) -> Sequence[Meta | Unreadable]:
        """Likewise, of several, as far as it can be told."""
        found = await self._loader.metas(names)
        return [meta if isinstance(meta, Unreadable) else self.epoch.begun(meta) for meta in found]

    async def buried(self, name: str, generation: int) -> Meta:
        """Where a deleted namespace stood that forks share."""
        return await self._loader.buried(name, generation)

    async def coming_hold(self, name: str) -> str:
        """By what the namespace that is being copied here will know its parent's revision; empty: there is none."""
        found = await self.client.call("HGET", self.keys(name).incoming, "hold")
        return found.decode() if found is not None else ""

    async def fresh(self, name: str) -> Namespace:
        """The namespace as it stands now, or later. Raises StoreUnavailable."""
        while True:
            await self._barriers.passed(name, lambda: self._look(name))
            replica = self._replicas.get(name)
            if replica is not None:  # else it was evicted just now
                return replica.state

    async def advance(self, name: str, generation: int | None = None) -> Replica:
        """Bring a replica up to where the namespace stands. Its lock is held. Raises StoreUnavailable; Ended if it is
        none of the generation that is wanted."""
        meta = await self.meta(name)
        if generation not in (None, meta.generation):
            raise Ended
        replica = self._replicas.get(name)
        if replica is not None and is_lost(replica.meta, meta):
            await self.epoch.renew(name, replica.meta, meta)
            meta = await self.meta(name)
        same = replica is not None and (replica.meta.generation, replica.meta.epoch) == (meta.generation, meta.epoch)
        if replica is not None and same and not replica.stale:
            if meta.place == replica.meta.place:
                return replica
            try:
                await self._follow(name, replica, meta)
                return replica
            except Parted:
                await self.epoch.renew(name, replica.meta, meta)
            except Trimmed:  # it fell behind what others have compacted
                pass
        return await self._load(name, replica, generation)

    async def read_log(self, name: str, replica: Replica, entries: Sequence[Any]) -> None:
        """Take in what a follower read. The lock is held. Raises Trimmed if the replica is to be loaded anew."""
        if replica.stale:
            raise Trimmed
        for id, fields in entries:
            with understood(name):
                await self._take(name, replica, id, fields)

    async def unlisted(self) -> Sequence[str]:
        """The namespaces that this server has something of, and that Redis does not list. Raises StoreUnavailable."""
        found: list[str] = []
        names = list(self._replicas)
        for some in (names[start : start + NAMES] for start in range(0, len(names), NAMES)):
            scores = await self.client.call("ZMSCORE", keys.names(self._prefix), *some)
            found += [name for name, score in zip(some, scores, strict=True) if score is None]
        return found

    def drop(self, name: str) -> None:
        """Have nothing of a namespace that does not exist. Its lock is held."""
        del self._replicas[name]
        self._absent.pop(name, None)

    def use(self, name: str) -> None:
        """A client asks for a namespace."""
        replica = self._replicas.get(name)
        if replica is not None:
            replica.used = time.monotonic()

    def evict(self, before: float) -> None:
        """Let go of replicas that no client has asked for since a time."""
        for name in [name for name, replica in self._replicas.items() if replica.used < before]:
            self._evict(name)

    def _evict(self, name: str) -> None:
        """Let go of a replica, unless it is used. It is loaded anew when it is asked for."""
        state = self._replicas[name].state
        if self._host.is_used(name) or self._barriers.is_used(name) or state.forks or state.quiet.locked():
            return
        del self._replicas[name]
        self._barriers.forget(name)
        self._absent.pop(name, None)
        self._host.evicted(name)
        state.replaced = True
        for gone in let_go(state):
            self.forget_deleted(gone)

    def forget_deleted(self, state: Namespace) -> None:
        """Nobody here shares a deleted namespace any more."""
        self._loader.forget(state.name, state.id)

    def distrust(self, name: str, *, told: bool = False) -> None:
        """Have a replica loaded anew before it is used again. `told`: whoever follows it knows already that its history
        has ended."""
        replica = self._replicas.get(name)
        if replica is not None:
            replica.stale = True
            replica.told = told

    async def close(self) -> None:
        await self._barriers.close()

    async def _look(self, name: str) -> None:
        replica = self._replicas.get(name)
        if replica is not None:
            meta = await self.meta(name)
            if meta.stands == replica.meta.stands and not replica.stale:
                return
        async with self._host.lock(name):
            await self.advance(name)

    async def _follow(self, name: str, replica: Replica, target: Meta) -> None:
        """Read the log up to where the namespace was found to stand, or further. Raises Trimmed if it begins after what
        the replica needs."""
        log_key = self.keys(name).log(replica.meta.generation)
        after = f"({replica.meta.revision}-{replica.meta.sub}"
        async for id, fields in entries_after(self.client, log_key, after):
            with understood(name):
                await self._take(name, replica, id, fields)
        if replica.meta.place < target.place:
            raise Trimmed

    async def _take(self, name: str, replica: Replica, id: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Take in one entry, if it is news."""
        revision, sub = parse_id(id)
        if (revision, sub) <= replica.meta.place:
            return
        if b"e" in fields:  # it was deleted
            raise Trimmed
        if not replica.meta.exists:
            await self._begin(name, replica)
        if fields.get(b"p", b"").decode() != replica.meta.last:
            now = await self.meta(name)
            if now.generation != replica.meta.generation or parse_id(now.trimmed) > replica.meta.place:
                raise Trimmed
            raise Parted
        entry = await read_entry(self.client, self.keys(name), fields, self._pace)
        state = replica.state
        if entry.commits and entry.commits[0][0].revision != state.revision + 1:
            raise Trimmed
        commits: list[Commit] = []
        try:
            take_grants(state, entry)
            for head, changes in entry.commits:
                events: list[Event] = []
                for packed in changes:
                    change = codec.change(head, packed)
                    events.append(codec.event(change, state.versions.head(change.record[KEY])))
                    await self._pace.step()
                commits.append(head._replace(events=tuple(events)))
                await state.apply(commits[-1:])
            take_marks(state, entry)
            await take_outcomes(state, entry.named, time.monotonic(), self._pace)
        except BaseException:  # whoever followed does so no more: a part of it is there, and would be taken in again
            replica.stale = True
            raise
        replica.meta = replica.meta._replace(revision=revision, sub=sub, last=entry.token.hex())
        if commits:
            self._host.publish(name, commits)

    async def _begin(self, name: str, replica: Replica) -> None:
        """The namespace has come into being. Raises Trimmed if it began with what no entry of its log shows."""
        meta = await self.meta(name)
        known = replica.meta.generation, replica.meta.epoch
        if not meta.exists or meta.parent or (meta.generation, meta.epoch) != known:
            raise Trimmed
        replica.state.create_time = meta.create_time
        replica.meta = replica.meta._replace(exists=True, create_time=meta.create_time)
        self._host.adopt(replica.meta, replica.state)

    async def _load(self, name: str, before: Replica | None, generation: int | None = None) -> Replica:
        """Load a namespace anew. Whoever follows it is told what came between, or that its history has ended, if that
        cannot be told. Raises Ended."""
        loaded = await self._loader.load(name, self.epoch.current, generation)
        if loaded is None:
            raise Ended
        replica = Replica(*loaded)
        parent = replica.state.parent
        try:
            if parent is not None and not parent.namespace.can_read(parent.revision):
                raise _lost(name, parent)
            if parent is not None and not parent.namespace.deleted and parent.hold not in parent.namespace.heirs:
                await self._hold_again(name, parent)
            missed = await self._missed(name, before.meta, replica) if before is not None else None
            if before is not None and missed is None and await self._contradicts(before, replica):
                raise Parted
        except BaseException as error:
            if parent is not None:
                give_up_fork(replica.state)
            if before is None or not isinstance(error, Parted):
                raise
            await self.epoch.renew(name, before.meta, replica.meta)
            return await self._load(name, before, generation)
        self._replicas[name] = replica
        self._host.adopt(replica.meta, replica.state)
        self._absent.pop(name, None)
        if not replica.meta.exists:  # whoever makes names up must not fill the memory
            self._absent[name] = None
            for oldest in list(islice(self._absent, max(0, len(self._absent) - ABSENT))):
                if self._replicas[oldest].meta.exists:  # since then
                    del self._absent[oldest]
                else:
                    self._evict(oldest)
        if before is not None:
            before.state.deleted = before.meta.generation != replica.meta.generation
            if not before.state.deleted:
                replica.missing = {
                    hold: held
                    for hold, held in {**before.missing, **before.state.heirs}.items()
                    if hold not in replica.state.heirs
                }
            before.state.replaced = True
            for gone in let_go(before.state):
                self.forget_deleted(gone)
            if missed is None:
                if not before.told:
                    self._host.reset(name)
            elif missed:
                self._host.publish(name, missed)
        return replica

    async def _missed(self, name: str, known: Meta, replica: Replica) -> Sequence[Commit] | None:
        """The commits that came to a namespace since it was known to stand somewhere; None if it is another one, or
        there are too many, or the log does not tell any more. Raises Parted if it has another history."""
        meta, log_of = replica.meta, replica.state.log
        if (meta.generation, meta.epoch) != (known.generation, known.epoch) or (meta.parent and not known.exists):
            return None
        if meta.place != known.place:
            key, after = self.keys(name).log(meta.generation), f"({known.revision}-{known.sub}"
            found = await self.client.call("XRANGE", key, after, "+", "COUNT", 1)
            if meta.place < known.place or not found or parse_id((await self.meta(name)).trimmed) > known.place:
                return None
            if found[0][1].get(b"p", b"").decode(errors="replace") != known.last:
                raise Parted
        elif meta.last != known.last:
            raise Parted
        if log_of.base > known.revision or meta.revision - known.revision > MISSED:
            return None
        return log_of.between(known.revision + 1, meta.revision)

    async def _contradicts(self, before: Replica, replica: Replica) -> bool:
        """Whether a namespace that was loaded anew shows something of the time that was known before which was not so.
        That tells what the log does not any more: others have gone on from an older state, and have compacted that."""
        known, state = before.meta, replica.state
        if (known.generation, known.epoch) != (replica.meta.generation, replica.meta.epoch) or not known.exists:
            return False
        for key in state.versions.own_keys():
            record = state.versions.head(key)
            await self._pace.step()
            if record is None or not record[VERSION] or record[MOD_REVISION] > known.revision:
                continue
            if before.state.versions.at(key, record[MOD_REVISION]) != record:
                return True
        return False

    async def share(self, name: str, generation: int) -> Namespace:
        """What a fork shares: the namespace as it is, or as it was when it was deleted. The fork's lock is held.

        Locks are taken from forks to what they share, which is older, and waited for only while it is there still. So
        nobody waits for ever, though names go round: what is forked from a fork may have the name of what that one
        was forked from.
        """
        async with self._turn(name, generation) as is_there:
            if is_there:
                with suppress(Ended):
                    return (await self.advance(name, generation)).state
        return await self._loader.deleted(name, generation)

    async def _hold_again(self, name: str, parent: Parent) -> None:
        """Redis has lost that a fork holds what it shares, as a failover of one node of a Cluster may: hold it anew, or
        raise StoreUnavailable if that cannot be read any more. The fork's lock is held."""
        of, revision, hold = parent
        while True:
            async with self._turn(of.name, of.id) as is_there:
                try:
                    state = (await self.advance(of.name, of.id)).state if is_there else None
                    if state is None or not state.can_read(revision):
                        raise _lost(name, parent)
                    if hold not in state.heirs and (await self.meta(name)).hold == hold:  # else it is deleted just now
                        await self._host.pin(of.name, revision, hold)
                        log.error("Redis had lost that a fork shares something", namespace=name, parent=of.name)
                    return
                except Ended:
                    raise _lost(name, parent) from None
                except Moved:
                    continue

    @asynccontextmanager
    async def _turn(self, name: str, generation: int) -> AsyncIterator[bool]:
        """Holds the lock of a namespace that is of a generation; else says False."""
        lock = self._host.lock(name)
        while (await self.meta(name)).generation == generation:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await lock.acquire()
            except TimeoutError:
                continue
            try:
                yield True
            finally:
                lock.release()
            return
        yield False


def _lost(name: str, parent: Parent) -> StoreUnavailable:
    return StoreUnavailable(f"Redis has lost what {name} shares with {parent.namespace.name}")
