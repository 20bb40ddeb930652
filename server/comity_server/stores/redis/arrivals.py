"""Takes in namespaces that come from another store.

All of a namespace is written under keys of its own first, which nobody reads, and which go by themselves if nobody goes
on. Then one script has it exist. Of a deleted one that forks share, the keys are final, under a generation that no
namespace of the name can have.
"""

import asyncio
import secrets
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol

from comity_server.errors import Conflict, NamespaceNotFound, OutsideHistory, StoreUnavailable
from comity_server.limits import Limits
from comity_server.record import KEY, MOD_REVISION
from comity_server.stores.memory.draft import Following
from comity_server.stores.memory.namespace import Held, Namespace
from comity_server.stores.memory.parts import base_records, batches
from comity_server.stores.memory.requests import Requests
from comity_server.stores.redis import codec, holds, keys, leasing
from comity_server.stores.redis.compaction import Compaction
from comity_server.stores.redis.expiries import Expiries
from comity_server.stores.redis.failures import Passing
from comity_server.stores.redis.holds import Holds
from comity_server.stores.redis.journal import RedisJournal
from comity_server.stores.redis.loading import Meta
from comity_server.stores.redis.names import Names
from comity_server.stores.redis.replicas import Moved, Replicas
from comity_server.stores.redis.script import Script
from comity_server.stores.redis.steps import PIECE, ROWS, few
from comity_server.stores.transfer import Arrival, Counter, Progress, Remaining

ADOPT: Final = Script("adopt")
COUNT: Final = Script("count")
FILL: Final = Script("fill")
KEEP: Final = Script("keep")

EVENTS: Final = 1000  # of the commits in one entry of the log
LIMITS: Final = Limits()
COMING_SECONDS: Final = 7 * 86400  # how long half a namespace is there for a copy to go on
PARTS: Final = ("log", "base", "checkpoints", "requests", "large", "leases", "deadlines")

Pair = tuple[bytes | str, bytes | str]


class Store(Protocol):
    """What namespaces arrive in."""

    def lock(self, name: str) -> asyncio.Lock: ...

    async def delete_namespace(self, name: str, if_revision: int | None = None) -> None: ...

    async def take_over(self, name: str, following: Following) -> None: ...


class _Coming:
    """A namespace that is being written."""

    def __init__(self, arrival: Arrival, of: keys.Keys) -> None:
        self.arrival = arrival
        self.keys = of
        self.owner = secrets.token_hex(12)
        self.meta = Meta()  # where its name stands
        self.generation = 0  # that it has when it is there
        self.hold = ""
        self.parent_generation = 0
        self.last = secrets.token_hex(12)  # of its newest entry
        self.sizes = dict.fromkeys(PARTS, 0)
        self.staged: dict[str, int] = {}  # of how many pieces the entries are that are too large to be in the log
        if arrival.state.deleted:
            self.generation = -1 - secrets.randbits(40)

    @property
    def whose(self) -> str:
        """The key that says who copies it."""
        return self.keys.buried(self.generation) if self.arrival.state.deleted else self.keys.incoming

    def part(self, name: str) -> str:
        return self.final(name) if self.arrival.state.deleted else self.keys.incoming_part(name)

    def final(self, name: str) -> str:
        if name == "requests":
            return self.keys.requests
        key: str = getattr(self.keys, name)(self.generation)
        return key

    @property
    def staged_keys(self) -> list[str]:
        return [self.keys.staged(token) for token in self.staged]


class RedisArrivals:
    """Implements `stores.transfer.Arrivals`. Servers may use the Redis meanwhile."""

    def __init__(
        self,
        store: Store,
        replicas: Replicas,
        journal: RedisJournal,
        names: Names,
        compaction: Compaction,
        holds: Holds,
        expiries: Expiries,
    ) -> None:
        self._store = store
        self._client = replicas.client
        self._replicas = replicas
        self._journal = journal
        self._names = names
        self._compaction = compaction
        self._holds = holds
        self._expiries = expiries

    async def bring(
        self, arrivals: Sequence[Arrival], replaced: Sequence[str], progress: Progress, remaining: Remaining
    ) -> None:
        comings = {id(arrival): _Coming(arrival, self._replicas.keys(arrival.name)) for arrival in arrivals}
        for coming in sorted(comings.values(), key=lambda coming: coming.arrival.state.deleted):
            await self._begin(coming)  # of forks first: what none of them is on its way to is free
        for coming in comings.values():
            await self._write(coming, progress)
        for coming in comings.values():
            await self._foresee(coming, is_replaced=coming.arrival.name in replaced)
        for coming in comings.values():  # before what is replaced lets go of what they share
            await self._connect(coming, comings)
        for name in replaced:
            await self._store.delete_namespace(name)
        for coming in comings.values():
            await self._place(coming)
        for coming in comings.values():
            if coming.arrival.state.deleted:
                await self._keep(coming)
            else:
                if coming.arrival.state.leases:
                    await self._write_leases(coming, await remaining(coming.arrival.name))
                await self._adopt(coming)
                if coming.sizes["leases"]:
                    await self._expiries.remind(coming.arrival.name)
        for coming in comings.values():
            if coming.arrival.state.deleted:
                await self._client.call("SREM", coming.keys.coming, coming.generation)

    async def take_over(self, name: str, following: Following) -> None:
        try:
            await self._store.take_over(name, following)
        except Moved:
            raise _in_use(name) from None

    async def renew(self, name: str, remaining: Mapping[int, int]) -> None:
        meta = await self._replicas.meta(name)
        renewals = [(id, left) for id, left in remaining.items() if left]
        await leasing.renew(self._client, self._replicas.keys(name), meta.generation, renewals)

    async def set_requests(self, name: str, requests: Requests) -> None:
        try:
            async with self._store.lock(name):
                replica = await self._replicas.advance(name)
                replica.state.requests = requests
                if not await self._compaction.persist(replica.state):
                    raise _in_use(name)
                await self._compaction.release(replica.state)
        except Moved:
            raise _in_use(name) from None

    async def raise_counters(self, counters: Sequence[Counter]) -> Sequence[str]:
        taken = []
        for name, revision, time, requests in counters:
            of = self._replicas.keys(name)
            arguments = [revision, time, uuid.uuid4().hex]
            if not await self._client.repeated(partial(self._client.run, COUNT, [of.meta], arguments)):
                taken.append(name)  # and what it remembers is its own
                continue
            for some in few(codec.remembered_rows(codec.remembered(requests))):
                await self._client.call("HSET", of.requests, *chain.from_iterable(some))
                await self._client.call("EXPIRE", of.requests, int(LIMITS.request_window) + 1)
        return taken

    async def raise_least(self, revision: int) -> None:
        """Every name is known here, or is new."""

    async def _begin(self, coming: _Coming) -> None:
        """Clear away what a copy that ended halfway has left, and keep others from going on with it."""
        of = coming.keys
        if coming.arrival.state.deleted:
            await self._free(coming.arrival.name)
            await self._client.call("SADD", of.coming, coming.generation)
            await self._client.call("EXPIRE", of.coming, COMING_SECONDS)
        else:
            await self._client.call("UNLINK", of.incoming)
            for token in await self._client.call("HGETALL", of.incoming_part("large")):
                await self._client.call("UNLINK", of.staged(token.decode()))
            await self._client.call("UNLINK", *map(of.incoming_part, PARTS))
        await self._client.call("HSET", coming.whose, "owner", coming.owner)
        await self._client.call("EXPIRE", coming.whose, COMING_SECONDS)

    async def _free(self, name: str) -> None:
        """Let go of deleted namespaces of a name that were copied here, and whose forks never came."""
        of = self._replicas.keys(name)
        for generation in map(int, await self._client.call("SMEMBERS", of.coming)):
            heirs = await self._journal.heirs(name, generation)
            gone = [hold for hold in heirs if not await self._holds.is_alive(hold)]
            if gone or not heirs:
                await self._journal.disinherit(name, generation, gone)
            await self._client.call("SREM", of.coming, generation)

    async def _write(self, coming: _Coming, progress: Progress) -> None:
        state = coming.arrival.state
        records = base_records(state)
        done, total = 0, len(records) + len(state.log)
        versions = ((codec.version_field(one[KEY], one[MOD_REVISION]), codec.pack_version(one)) for one in records)
        for some in few(versions):
            await self._fill_hash(coming, "base", some)
            done += len(some)
            progress(state.name, done, total)
        origins = ((codec.origin_field(revision), codec.pack_origin(said)) for revision, said in state.origins.all())
        for some in few(origins):
            await self._fill_hash(coming, "base", some)
        await self._write_log(coming, progress, done, total)
        if state.deleted:
            return
        marks = ((name.encode(), codec.pack_checkpoint(made)) for name, made in state.checkpoints.items())
        for some in few(marks):
            await self._fill_hash(coming, "checkpoints", some)
        for some in few(codec.remembered_rows(codec.remembered(coming.arrival.requests))):
            await self._fill_hash(coming, "requests", some)

    async def _write_leases(self, coming: _Coming, remaining: Mapping[int, int]) -> None:
        """Last of all: from then on their time runs."""
        leases = [held.lease for held in coming.arrival.state.leases]
        for some in (leases[start : start + ROWS] for start in range(0, len(leases), ROWS)):
            told = ((one.id, remaining.get(one.id, one.ttl), codec.pack_lease(one)) for one in some)
            arguments = ["leases", *chain.from_iterable(told)]
            await self._fill(coming, coming.part("leases"), arguments, coming.part("deadlines"))
            coming.sizes["leases"] += len(some)
            coming.sizes["deadlines"] += len(some)

    async def _write_log(self, coming: _Coming, progress: Progress, done: int, total: int) -> None:
        state = coming.arrival.state
        entries: list[Any] = []
        size, last = 0, ""
        for commits in batches(state.log.oldest_first(), events=EVENTS):
            token = secrets.token_bytes(12)
            data = codec.pack_commits(token, commits)
            id, field = f"{commits[-1].revision}-0", "d"
            if len(data) > PIECE:
                pieces = await self._stage(coming, token.hex(), id, data)
                field, data = "s", f"{token.hex()}:{pieces}".encode()
            entries += [id, field, data, last]
            last = token.hex()
            size += len(data)
            done += len(commits)
            if len(entries) >= 4 * ROWS or size >= PIECE:
                await self._fill_log(coming, entries)
                progress(state.name, done, total)
                entries, size = [], 0
        await self._fill_log(coming, entries)
        progress(state.name, done, total)
        coming.last = last or coming.last

    async def _stage(self, coming: _Coming, token: str, id: str, data: bytes) -> int:
        """Bring a long entry piece by piece: how many."""
        await self._fill_hash(coming, "large", [(token, id)])
        starts = range(0, len(data), PIECE)
        for number, start in enumerate(starts):
            await self._fill(coming, coming.keys.staged(token), ["hash", number, data[start : start + PIECE]])
        coming.staged[token] = len(starts)
        return len(starts)

    async def _fill_hash(self, coming: _Coming, part: str, pairs: Sequence[Pair]) -> None:
        await self._fill(coming, coming.part(part), ["hash", *chain.from_iterable(pairs)])
        coming.sizes[part] += len(pairs)

    async def _fill_log(self, coming: _Coming, entries: Sequence[Any]) -> None:
        if entries:
            await self._fill(coming, coming.part("log"), ["log", *entries])
            coming.sizes["log"] += len(entries) // 4

    async def _fill(self, coming: _Coming, key: str, arguments: Sequence[Any], *besides: str) -> None:
        fill = partial(
            self._client.run, FILL, [coming.whose, key, *besides], [coming.owner, COMING_SECONDS, *arguments]
        )
        if not await self._client.repeated(fill):
            raise _copied_by_another(coming)

    async def _foresee(self, coming: _Coming, *, is_replaced: bool) -> None:
        """Find out which generation it will be of. Raises Conflict if a namespace has its name that it does not
        replace."""
        if coming.arrival.state.deleted:
            return
        meta = await self._replicas.meta(coming.arrival.name)
        if meta.exists != is_replaced:
            raise _in_use(coming.arrival.name)
        coming.generation = meta.generation + is_replaced  # a deletion begins another one

    async def _place(self, coming: _Coming) -> None:
        """Find out where its name stands. Raises Conflict if others have used it since."""
        if coming.arrival.state.deleted:
            return
        coming.meta = await self._replicas.meta(coming.arrival.name)
        if coming.meta.exists or coming.meta.generation != coming.generation:
            raise _in_use(coming.arrival.name)

    async def _connect(self, coming: _Coming, comings: Mapping[int, _Coming]) -> None:
        """Have what it is a fork of know it, and keep the revision that they share."""
        state, there = coming.arrival.state, coming.arrival.parent
        if state.parent is None or there is None:
            return
        revision = state.parent.revision
        above = comings.get(id(there))
        generation = coming.parent_generation = above.generation if above is not None else _id(there)
        coming.hold = holds.new(coming.generation, state.name)
        # First: with it, a server that looks for forks that never came sees that this one is on its way.
        fields = ("parent", there.name, "parent_generation", generation, "hold", coming.hold)
        await self._client.call("HSET", coming.whose, *fields)
        heirs = self._replicas.keys(there.name).heirs(generation)
        if above is not None:
            held = Held(revision, state.parent.namespace.totals(revision))
            await self._fill_hash(above, "checkpoints", [(codec.heir_field(coming.hold), codec.pack_heir(held))])
            if above.arrival.state.deleted:
                await self._client.call("SADD", heirs, coming.hold)
                await self._client.call("EXPIRE", heirs, COMING_SECONDS)
        elif isinstance(there, Namespace) and there.deleted:
            await self._client.call("SADD", heirs, coming.hold)
            await self._free(there.name)
        else:
            try:
                await self._holds.hold(there.name, revision, coming.hold)
            except (NamespaceNotFound, OutsideHistory):  # it was there when it was looked at
                raise _in_use(there.name) from None

    async def _keep(self, coming: _Coming) -> None:
        of = coming.keys
        await self._client.call("HSET", coming.whose, *self._fields(coming))
        parts = [part for part in PARTS if coming.sizes[part]]
        names = [coming.whose, of.heirs(coming.generation), *map(coming.final, parts), *coming.staged_keys]
        sizes = [*(coming.sizes[part] for part in parts), *coming.staged.values()]
        keep = partial(self._client.run, KEEP, names, [coming.owner, *sizes])
        if not await self._client.repeated(keep):
            raise _copied_by_another(coming)

    async def _adopt(self, coming: _Coming) -> None:
        of, name = coming.keys, coming.arrival.name
        await self._names.enlist(name)
        pairs = chain.from_iterable((coming.part(part), coming.final(part)) for part in PARTS)
        names = [of.meta, of.incoming, *pairs, *coming.staged_keys]
        arguments = [*coming.meta.stands, coming.owner, len(PARTS), *coming.sizes.values(), *coming.staged.values()]
        arguments += self._fields(coming)
        patience = self._client.patience()
        while True:
            try:
                (answer,) = await self._client.run(ADOPT, names, arguments)
                break
            except Passing as error:
                await patience.wait(error)
        if answer == 0:
            meta = await self._replicas.meta(name)
            if not (meta.exists and meta.last == coming.last):  # it was not done by an attempt that had no answer
                raise _in_use(name)
        elif answer < 0:
            raise _copied_by_another(coming)
        await self._names.enlist(name)  # once more: a deletion may have been under way

    def _fields(self, coming: _Coming) -> Sequence[Any]:
        """What meta says of it."""
        state = coming.arrival.state
        base, info = state.log.base, state.info()
        fields: list[Any] = ["generation", coming.generation, "revision", state.revision, "sub", 0]
        fields += ["last", coming.last, "epoch", uuid.uuid4().hex, "exists", 1, "floor", state.floor, "base", base]
        fields += ["time", state.time, "create_time", state.create_time]
        fields += ["trimmed", f"{base + 1}-0" if len(state.log) else f"{base}-1"]
        fields += ["keys", info.key_count, "bytes", info.size_bytes, "history", info.history_size_bytes]
        fields += ["leases", coming.sizes["leases"]]
        there = coming.arrival.parent
        if state.parent is not None and there is not None:
            totals = state.parent.namespace.totals(state.parent.revision)
            fields += ["fork_revision", state.parent.revision, "hold", coming.hold]
            fields += ["base_keys", totals.keys, "base_bytes", totals.size_bytes]
            fields += ["parent", there.name, "parent_generation", coming.parent_generation]
        return fields


def _id(there: Arrival | Namespace) -> int:
    assert isinstance(there, Namespace)
    return there.id


def _in_use(name: str) -> Conflict:
    return Conflict(f"somebody uses {name} there meanwhile", namespace=name)


def _copied_by_another(coming: _Coming) -> StoreUnavailable:
    return StoreUnavailable(f"{coming.arrival.name} is being copied there by another, or Redis has lost a part of it")
