"""Moves what a namespace has in its log into its base, so that the log may be trimmed.

Versions move as they are compacted; what else only the log has (checkpoints, what forks hold, outcomes) is written down
first. One server at a time does so: it claims that, and Redis counts its steps, none of which is done after another
server has claimed it, or after Redis has lost one.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final, NamedTuple

from comity_server.model import Checkpoint
from comity_server.record import KEY, MOD_REVISION, VERSION, Record
from comity_server.stores.memory.namespace import Collected, Held, Namespace
from comity_server.stores.redis import codec, steps
from comity_server.stores.redis.codec import Row
from comity_server.stores.redis.deciding import decide
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.loading import parse_id
from comity_server.stores.redis.portions import scan
from comity_server.stores.redis.replicas import Mark, Replica, Replicas
from comity_server.stores.redis.script import Script
from comity_server.turns import Pace

CLAIM: Final = Script("claim")
COLLECT: Final = Script("collect")
FREE: Final = Script("free")
PERSIST: Final = Script("persist")
RELEASE: Final = Script("release")

SPARE: Final = 1000  # entries without commits that are left where they are
CLAIM_SECONDS: Final = 5.0  # how long a server that writes down is waited for without a sign of it


class Claimed(NamedTuple):
    """What a server is to write down, as of when it claimed that."""

    replica: Replica
    mark: Mark
    checkpoints: Mapping[str, Checkpoint]
    heirs: Mapping[str, Held]
    outcomes: codec.Known


class Compaction:
    """What this server does of it, of the namespaces of one Redis."""

    def __init__(self, replicas: Replicas) -> None:
        self.deleter = "d" + secrets.token_hex(6)  # what tokens begin with by which this server deletes namespaces
        self._client = replicas.client
        self._replicas = replicas

    async def begin(self, name: str, seconds: int) -> bool:
        """Whether this server is the one to compact what none may have loaded."""
        key = self._replicas.keys(name).compactor
        return bool(await self._client.call("SET", key, 1, "NX", "EX", seconds))

    async def persist(self, namespace: Namespace, *, ends: bool = False) -> bool:
        """Write down what only the log has besides versions, before it is trimmed or, if it `ends`, deleted. Returns
        whether it was done, and not by another server. The lock is held. Raises Moved where others were faster."""
        claimed = await self.claim(namespace, ends=ends)
        return claimed is not None and await self.write_down(claimed)

    async def claim(self, namespace: Namespace, *, ends: bool = False) -> Claimed | None:
        """Become the server that does so, unless another one is. The lock is held, and need not be from then on. Raises
        Moved where others were faster."""
        name = namespace.name
        replica = self._replicas.find(name)
        of, meta = self._replicas.keys(name), replica.meta
        token = (self.deleter if ends else "c") + secrets.token_hex(12)
        # A claim whose answer was lost may be its own, and so may that of a deletion which others came before.
        own = self.deleter if ends else token
        arguments = [*meta.stands, token, own, int(CLAIM_SECONDS * 1000)]
        claim = partial(self._client.run, CLAIM, [of.meta, of.requests], arguments)
        if not await decide(self._replicas, replica, claim):
            return None
        outcomes = codec.remembered(namespace.requests)
        return Claimed(replica, Mark(token, meta.place), {**namespace.checkpoints}, {**namespace.heirs}, outcomes)

    async def write_down(self, claimed: Claimed) -> bool:
        """Write down what was claimed. Returns whether it was done, and no other server has claimed it since."""
        replica, pace = claimed.replica, Pace()
        of = self._replicas.keys(replica.state.name)
        marks: dict[bytes, bytes] = {}
        for checkpoint, made in claimed.checkpoints.items():
            marks[checkpoint.encode()] = codec.pack_checkpoint(made)
            await pace.step()
        for hold, held in claimed.heirs.items():
            marks[codec.heir_field(hold)] = codec.pack_heir(held)
        if not await self._write_hash(replica, claimed.mark, of.checkpoints(replica.meta.generation), marks):
            return False
        outcomes: dict[bytes, bytes] = {}
        for field, packed in codec.remembered_rows(claimed.outcomes):
            outcomes[field] = packed
            await pace.step()
        if not await self._write_hash(replica, claimed.mark, of.requests, outcomes):
            return False
        replica.mark = claimed.mark
        return True

    async def release(self, namespace: Namespace) -> None:
        """What `persist` was called for is done: other servers need not wait."""
        replica = self._replicas.known(namespace.name)
        if replica is not None and replica.mark is not None:
            names = [self._replicas.keys(namespace.name).meta]
            await self._client.repeated(partial(self._client.run, RELEASE, names, [replica.mark.token]))

    async def claim_trim(self, namespace: Namespace) -> Claimed | None:
        """Claim what `trim` does, if it is worth it. The lock is held. Raises Moved where others were faster."""
        replica = self._replicas.find(namespace.name)
        if namespace.log.base < namespace.revision:
            return None
        trimmed = parse_id((await self._replicas.meta(namespace.name)).trimmed)
        if replica.meta.place < (trimmed[0], trimmed[1] + SPARE):
            return None
        return await self.claim(namespace)

    async def trim(self, claimed: Claimed) -> None:
        """Drop entries of the log that came after its last commit, which no compaction would."""
        base = claimed.mark.place[0]
        if await self.write_down(claimed):
            await self._collect_some(claimed.replica, base, base, (), (), mark=claimed.mark)
            await self.release(claimed.replica.state)

    async def give_up_deletion(self, name: str) -> None:
        """Others need not wait for a deletion that came to nothing. Errors as of `Client.run`."""
        await self._client.run(RELEASE, [self._replicas.keys(name).meta], [self.deleter])

    async def collect(self, namespace: Namespace, collected: Collected) -> None:
        """Set and drop in the base what compaction has come to, then trim the log. Errors as of `Client.repeated`."""
        replica = self._replicas.known(namespace.name)
        if replica is None or replica.state is not namespace:
            return
        sets = [(_field(record), codec.pack_version(record)) for record in collected.kept]
        sets += [(codec.origin_field(revision), codec.pack_origin(said)) for revision, said in collected.origins]
        gone = [_field(record) for record in collected.versions]
        gone += [codec.origin_field(revision) for revision in collected.commits]
        clears = any(not record[VERSION] for record in collected.versions)
        since, mark = collected.since, replica.mark  # of all that is set here: with another one its steps count no more
        for some, fields in steps.steps(sets, gone):
            if replica.left_off == since:  # what it has is not in the base then, whoever does this now
                some = ()
            if some or fields:
                done = await self._collect_some(replica, since, since, some, fields, mark=mark, clears=clears)
                if not done and not collected.late:
                    replica.left_off = since
        if replica.left_off != since and collected.base > since:
            await self._collect_some(replica, since, collected.base, (), (), mark=mark)

    async def _collect_some(
        self,
        replica: Replica,
        since: int,
        base: int,
        sets: Sequence[Row],
        gone: Sequence[bytes],
        *,
        mark: Mark | None,
        clears: bool = False,
    ) -> bool:
        """Change the base of a namespace, if it reaches from `since` to `base` at the most, and have it reach to that.
        With nothing to set or to drop, trim the log. `clears`: tombstones may be among what is dropped. Returns whether
        it was done, and not by another server, and Redis has lost nothing of it."""
        of, generation = self._replicas.keys(replica.state.name), replica.meta.generation
        trim, meta = (0, 0), replica.meta
        if not sets and not gone:
            if mark is None:  # another server does this
                return False
            trim = (base + 1, 0) if base < mark.place[0] else (mark.place[0], mark.place[1] + 1)
        names = [of.meta, of.log(generation), of.base(generation)]
        arguments = [generation, *meta.place, meta.last, since, base]
        arguments += [*((mark.token, mark.steps + 1) if mark else ("", 0)), f"{trim[0]}-{trim[1]}", int(clears)]
        arguments += [replica.state.history_bytes, len(sets), *chain.from_iterable(sets), *gone]
        done = await self._client.repeated(partial(self._client.run, COLLECT, names, arguments))
        if done > 0 and mark is not None:
            mark.steps += 1
        if done < 0:  # what was dropped here may be needed there
            replica.stale = True
        if done > 0 and trim > (0, 0):
            await self._unlink_large(of, generation, trim)
        return bool(done > 0)

    async def _write_hash(self, replica: Replica, mark: Mark, key: str, wanted: dict[bytes, bytes]) -> bool:
        """Make a hash equal to what is wanted, a little at a time. Returns whether no other server has begun to, and
        Redis has lost nothing of it."""
        name = replica.state.name
        news, gone = dict(wanted), []
        async for field, value in scan(self._client, key):
            if field not in wanted:
                gone.append(field)
            elif wanted[field] == value:
                news.pop(field, None)
        names = [self._replicas.keys(name).meta, key]
        for some, fields in steps.steps(news.items(), gone):
            arguments = [replica.meta.generation, mark.token, mark.steps + 1, len(some)]
            arguments += [*chain.from_iterable(some), *fields]
            if not await self._client.repeated(partial(self._client.run, PERSIST, names, arguments)):
                return False
            mark.steps += 1
        return True

    async def _unlink_large(self, of: Keys, generation: int, before: tuple[int, int]) -> None:
        """Free the long entries of a log before a place."""
        places: dict[bytes, bytes] = await self._client.call("HGETALL", of.large(generation))
        tokens = [token.decode() for token, place in places.items() if parse_id(place) < before]
        for some in (tokens[start : start + steps.ROWS] for start in range(0, len(tokens), steps.ROWS)):
            names = [of.meta, of.large(generation), *map(of.staged, some)]
            await self._client.repeated(partial(self._client.run, FREE, names, [generation, *before, *some]))


def _field(record: Record) -> bytes:
    return codec.version_field(record[KEY], record[MOD_REVISION])
