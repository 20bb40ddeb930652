"""Appends what a namespace does to its log in Redis, and moves what was compacted into its base."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple

import structlog

from comity_server.errors import StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Checkpoint
from comity_server.record import KEY, MOD_REVISION, VERSION, Record
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.leases import LeaseChanges
from comity_server.stores.memory.log import history_bytes
from comity_server.stores.memory.namespace import Collected, Held, Namespace, Parent
from comity_server.stores.memory.pace import Pace
from comity_server.stores.redis import codec, keys
from comity_server.stores.redis.client import Client, Passing, Script
from comity_server.stores.redis.codec import Row
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.loading import Meta, parse_id, take_marks
from comity_server.stores.redis.portions import scan
from comity_server.stores.redis.replicas import Mark, Moved, Renewed, Replica, Replicas

log = structlog.get_logger(__name__)

APPEND: Final = Script("append")
CLAIM: Final = Script("claim")
COLLECT: Final = Script("collect")
DELETE: Final = Script("delete")
DISINHERIT: Final = Script("disinherit")
FREE: Final = Script("free")
OUTDATE: Final = Script("outdate")
PERSIST: Final = Script("persist")
REGISTER: Final = Script("register")
RELEASE: Final = Script("release")
STAGE: Final = Script("stage")

PIECE: Final = 1024 * 1024  # bytes; an entry that is longer is staged in such pieces, so that appending it is short
ROWS: Final = 200  # of the base, that one script call moves; of large ones it moves no more than a PIECE
SPARE: Final = 1000  # entries without commits that are left where they are
CLAIM_SECONDS: Final = 5.0  # how long a server that writes down is waited for without a sign of it
KEPT_SECONDS: Final = 600  # how long the log of a deleted namespace is there for those who follow it


class TooMany(Exception):
    """Redis has as many namespaces as there may be."""


class Busy(Exception):
    """Another server is about to delete the namespace."""


class Claimed(NamedTuple):
    """What a server is to write down, as of when it claimed that."""

    replica: Replica
    mark: Mark
    checkpoints: Mapping[str, Checkpoint]
    heirs: Mapping[str, Held]
    outcomes: codec.Known


class RedisJournal:
    """Implements `stores.memory.journal.Journal`. Of a namespace that it is told of, the lock is held, except where
    something was collected."""

    def __init__(self, client: Client, replicas: Replicas, limits: Limits) -> None:
        self._client = client
        self._limits = limits
        self._replicas = replicas
        self._deleter = "d" + secrets.token_hex(6)  # what tokens begin with by which this server deletes namespaces
        # For the store, which takes them out when it is through with the same: a replica must not say that it stands
        # where its state does not yet.
        self.ended: dict[str, tuple[Namespace, bool]] = {}  # what was deleted, and whether forks share it
        self.revised: dict[str, Meta] = {}  # where namespaces stand in Redis as soon as a draft is applied

    async def commit(self, draft: Draft, *, begins: bool) -> None:
        """Raises Moved where others were faster, Renewed where a lease has not run out; TooMany."""
        name = draft.base.name
        replica = self._replicas.find(name)
        token = secrets.token_bytes(12)
        fields: list[Any] = [
            *(("time", draft.commits[-1].time) if draft.commits else ()),  # what a checkpoint does is no update
            *("keys", draft.keys, "bytes", draft.size_bytes),
            *("history", draft.base.history_bytes + sum(map(history_bytes, draft.commits))),
        ]
        if begins:
            await self._register(name)
            fields += _beginning(draft)
        place = (draft.revision, 0) if draft.commits else (draft.revision, replica.meta.sub + 1)
        try:
            data = codec.pack_draft(token, draft)
            meta = await self._append(name, replica, token, place, data, fields, leases=_leases(draft.leases))
        except Moved:
            if begins:  # as it is judged anew it may be refused
                await self.unlist(name)
            raise
        if begins:
            await self._enlist_again(name)
        if begins and draft.base.parent is not None:
            parent = draft.base.parent
            meta = meta._replace(
                parent=parent.namespace.name,
                parent_generation=parent.namespace.id,
                fork_revision=parent.revision,
                hold=parent.hold,
            )
        self.revised[name] = meta

    async def keep_alive(self, namespace: Namespace, deadlines: Mapping[int, int]) -> None:
        """Redis has the deadlines: see `leasing`."""

    async def floor(self, namespace: Namespace, floor: int) -> None:
        await self.control(namespace.name, codec.Control("floor", floor), ["floor", floor])

    async def control(self, name: str, control: codec.Control, fields: Sequence[Any] = ()) -> None:
        """Append something else: also where memory is short, if it lets go of something. Raises Moved where others were
        faster."""
        replica = self._replicas.find(name)
        token = secrets.token_bytes(12)
        place = (replica.meta.revision, replica.meta.sub + 1)
        data = codec.pack_control(token, replica.state.time, control)
        frees = control.kind in ("floor", "unpin")
        replica.meta = await self._append(name, replica, token, place, data, fields, frees=frees)
        take_marks(replica.state, codec.unpack_entry(data))

    async def collected(self, namespace: Namespace, collected: Collected) -> None:
        """A failure leaves the replica behind what Redis has: it is loaded anew."""
        try:
            await self._collect(namespace, collected)
        except (StateError, Passing) as error:
            self._replicas.distrust(namespace.name)
            raise error.failure if isinstance(error, Passing) else error from error

    async def delete(self, namespace: Namespace, revision: int) -> None:
        """Raises Moved where others were faster."""
        name = namespace.name
        replica = self._replicas.find(name)
        of = self._replicas.keys(name)
        meta = replica.meta
        if not await self.persist(namespace, ends=True):  # the outcomes are remembered by the name
            raise Busy
        assert replica.mark is not None
        names = [of.meta, of.log(meta.generation), of.buried(meta.generation), of.heirs(meta.generation), of.requests]
        names += [of.leases(meta.generation), of.deadlines(meta.generation)]
        names += await self._besides(of, meta.generation)
        token = secrets.token_bytes(12)
        arguments = [*meta.stands, replica.mark.token, replica.mark.steps, revision, KEPT_SECONDS]
        arguments += [int(self._limits.request_window) + 1, token.hex(), *namespace.heirs]
        await self._decide(name, replica, lambda: self._client.run(DELETE, names, arguments), (revision, 0), token)
        self.ended[name] = namespace, bool(namespace.heirs)
        with suppress(StateError):  # it is deleted all the same: else whoever lists it does this
            await self.unlist(name)

    async def drop(self, namespaces: Sequence[Namespace]) -> None:
        """What a deleted namespace keeps in Redis goes with the last fork that shares it: see `let_go`."""
        for namespace in namespaces:
            self._replicas.forget_deleted(namespace)

    async def let_go(self, parent: Parent) -> bool:
        """A fork is deleted, or was not made: what it held of its parent is free. The parent's lock is held. Returns
        whether that was the last that was left of the parent. Raises Moved where others were faster."""
        namespace, revision, hold = parent
        replica = await self._replicas.advance(namespace.name)
        if replica.meta.exists and replica.meta.generation == namespace.id:
            if hold in replica.state.heirs:
                await self.control(namespace.name, codec.Control("unpin", revision, hold))
            return False
        return await self.disinherit(namespace.name, namespace.id, [hold])

    async def disinherit(self, name: str, generation: int, holds: Sequence[str]) -> bool:
        """Forks let go of a deleted namespace. Returns whether nothing is left of it."""
        of = self._replicas.keys(name)
        names = [of.heirs(generation), of.buried(generation), of.log(generation)]
        names += await self._besides(of, generation)
        return not await self._client.repeated(partial(self._client.run, DISINHERIT, names, holds))

    async def heirs(self, name: str, generation: int) -> Sequence[str]:
        """The holds of those who share a deleted namespace."""
        found = await self._client.call("SMEMBERS", self._replicas.keys(name).heirs(generation))
        return [hold.decode() for hold in found]

    async def outdate(self, name: str, generation: int) -> None:
        """Have nothing begin any more in a generation of a name, unless it has."""
        names = [self._replicas.keys(name).meta]
        await self._client.repeated(partial(self._client.run, OUTDATE, names, [generation]))

    async def forget_clients(self, namespace: str, clients: Sequence[str]) -> None:
        """The next compaction writes down who is known."""

    async def forget_names(self, names: Sequence[str], least: int) -> None:
        """Names are kept: each is a small hash."""

    async def persist(self, namespace: Namespace, *, ends: bool = False) -> bool:
        """Write down what only the log has besides versions, before it is trimmed or, if it `ends`, deleted. Returns
        whether it was done, and not by another server. The lock is held. Raises Moved where others were faster."""
        claimed = await self.claim(namespace, ends=ends)
        return claimed is not None and await self.write_down(claimed)

    async def claim(self, namespace: Namespace, *, ends: bool = False) -> "Claimed | None":
        """Become the server that does so, unless another one is. The lock is held, and need not be from then on. Raises
        Moved where others were faster."""
        name = namespace.name
        replica = self._replicas.find(name)
        of, meta = self._replicas.keys(name), replica.meta
        token = (self._deleter if ends else "c") + secrets.token_hex(12)
        # A claim whose answer was lost may be its own, and so may that of a deletion which others came before.
        own = self._deleter if ends else token
        arguments = [*meta.stands, token, own, int(CLAIM_SECONDS * 1000)]
        claim = partial(self._client.run, CLAIM, [of.meta, of.requests], arguments)
        if not await self._decide(name, replica, claim):
            return None
        outcomes = codec.remembered(namespace.requests)
        return Claimed(replica, Mark(token, meta.place), {**namespace.checkpoints}, {**namespace.heirs}, outcomes)

    async def write_down(self, claimed: "Claimed") -> bool:
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

    async def give_up_deletion(self, name: str) -> None:
        """Others need not wait for a deletion that came to nothing. Errors as of `Client.run`."""
        await self._client.run(RELEASE, [self._replicas.keys(name).meta], [self._deleter])

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
        for some, fields in _steps(news.items(), gone):
            arguments = [replica.meta.generation, mark.token, mark.steps + 1, len(some)]
            arguments += [*chain.from_iterable(some), *fields]
            if not await self._client.repeated(partial(self._client.run, PERSIST, names, arguments)):
                return False
            mark.steps += 1
        return True

    async def begin_compaction(self, name: str, seconds: int) -> bool:
        """Whether this server is the one to compact what none may have loaded."""
        key = self._replicas.keys(name).compactor
        return bool(await self._client.call("SET", key, 1, "NX", "EX", seconds))

    async def claim_trim(self, namespace: Namespace) -> "Claimed | None":
        """Claim what `trim` does, if it is worth it. The lock is held. Raises Moved where others were faster."""
        replica = self._replicas.find(namespace.name)
        if namespace.log.base < namespace.revision:
            return None
        trimmed = parse_id((await self._replicas.meta(namespace.name)).trimmed)
        if replica.meta.place < (trimmed[0], trimmed[1] + SPARE):
            return None
        return await self.claim(namespace)

    async def trim(self, claimed: "Claimed") -> None:
        """Drop entries of the log that came after its last commit, which no compaction would."""
        base = claimed.mark.place[0]
        if await self.write_down(claimed):
            await self._collect_some(claimed.replica, base, base, (), (), mark=claimed.mark)
            await self.release(claimed.replica.state)

    async def _register(self, name: str) -> None:
        """A name is listed before the namespace is there, since the two are in different slots. Raises TooMany, and
        Moved if the namespace would begin in an epoch that has ended."""
        await self._replicas.agree()
        meta = self._replicas.find(name).meta
        if meta.epoch != (await self._replicas.meta(name)).epoch:
            await self._replicas.advance(name)
            raise Moved
        listed, limit = keys.names(self._client.target.prefix), self._limits.namespaces
        if not await self._client.repeated(partial(self._client.run, REGISTER, [listed], [name, limit])):
            raise TooMany

    async def enlist(self, name: str) -> None:
        """A namespace is there."""
        await self._client.call("ZADD", keys.names(self._client.target.prefix), 0, name)

    async def _enlist_again(self, name: str) -> None:
        """Once more when it is there: whoever deletes a namespace of this name takes it off the list. That it has begun
        stands, whether this can be done now or not."""
        try:
            await self.enlist(name)
        except StateError as error:
            log.warning("a namespace could not be listed yet", namespace=name, error=error.message)

    async def unlist(self, name: str) -> None:
        """Of a name no namespace is there any more."""
        await self._client.call("ZREM", keys.names(self._client.target.prefix), name)
        if (await self._replicas.meta(name)).exists:  # it has come again meanwhile
            await self.enlist(name)

    async def _append(
        self,
        name: str,
        replica: Replica,
        token: bytes,
        place: tuple[int, int],
        data: bytes,
        fields: Sequence[Any],
        *,
        frees: bool = False,
        leases: Sequence[Any] = (0, 0, 0),
    ) -> Meta:
        """Append an entry, and answer where the namespace stands then. Raises Moved, Renewed, or StateError."""
        of = self._replicas.keys(name)
        meta = replica.meta
        field, value = "d", data
        names = [of.meta, of.log(meta.generation)]
        if len(data) > PIECE:
            pieces = await self._stage(of.staged(token.hex()), data)
            field, value = "s", f"{token.hex()}:{pieces}".encode()
            names += [of.staged(token.hex()), of.large(meta.generation)]
        if any(leases):
            names += [of.leases(meta.generation), of.deadlines(meta.generation)]
        arguments = [*meta.stands, *place, token.hex(), int(frees), self._deleter, int(CLAIM_SECONDS * 1000)]
        arguments += [field, value, *leases, *fields]
        deletion = Passing(StoreUnavailable(f"namespace {name} is about to be deleted"))
        patience = self._client.patience()
        try:
            while not await self._decide(
                name, replica, partial(self._client.run, APPEND, names, arguments), place, token
            ):
                await patience.wait(deletion)
        except Moved:
            if field == "s":
                await self._client.call("UNLINK", of.staged(token.hex()))
            raise
        revision, sub = place
        return meta._replace(revision=revision, sub=sub, last=token.hex(), exists=True)

    async def _decide(
        self,
        name: str,
        replica: Replica,
        attempt: Any,
        place: tuple[int, int] | None = None,
        token: bytes = b"",
    ) -> bool:
        """Make a conditional change, and again where it is not known whether it was made: it is made once at the most,
        since it is conditional on where the namespace stands. Raises Moved if others changed it first, Renewed if it
        ends leases that have not run out. Returns whether it was made, and did not have to wait for others."""
        patience = self._client.patience()
        while True:
            try:
                answer = await attempt()
            except Passing as error:
                await patience.wait(error)
                continue
            if answer[0] == 3:
                raise Renewed
            if answer[0] != 0:
                return bool(answer[0] == 1)
            if patience.tries and place is not None and await self._is_mine(name, replica, place, token):
                await self._client.await_replicas(self._replicas.keys(name).meta)
                return True
            await self._replicas.advance(name)
            raise Moved

    async def _is_mine(self, name: str, replica: Replica, place: tuple[int, int], token: bytes) -> bool:
        """Whether the entry at a place is the one that an earlier attempt appended. Raises StoreUnavailable if nobody
        can tell any more."""
        key = self._replicas.keys(name).log(replica.meta.generation)
        id = f"{place[0]}-{place[1]}"
        found = await self._client.call("XRANGE", key, id, id)
        for _, fields in found:
            if token.hex().encode() in (fields.get(b"s", b"").partition(b":")[0], fields.get(b"e")):
                return True
            data = fields.get(b"d")
            if data is not None and codec.unpack_entry(data).token == token:
                return True
        meta = await self._replicas.meta(name)
        if not found and meta.generation == replica.meta.generation and meta.base >= place[0]:
            raise StoreUnavailable("it was compacted before it was known whether this was done")
        return False

    async def _stage(self, key: str, data: bytes) -> int:
        """Bring a long entry to Redis piece by piece: how many. If it is not appended, it goes by itself."""
        starts = range(0, len(data), PIECE)
        for number, start in enumerate(starts):
            arguments = [number, data[start : start + PIECE], KEPT_SECONDS]
            await self._client.repeated(partial(self._client.run, STAGE, [key], arguments))
        return len(starts)

    async def _unlink_large(self, of: Keys, generation: int, before: tuple[int, int]) -> None:
        """Free the long entries of a log before a place."""
        places: dict[bytes, bytes] = await self._client.call("HGETALL", of.large(generation))
        tokens = [token.decode() for token, place in places.items() if parse_id(place) < before]
        for some in (tokens[start : start + ROWS] for start in range(0, len(tokens), ROWS)):
            names = [of.meta, of.large(generation), *map(of.staged, some)]
            await self._client.repeated(partial(self._client.run, FREE, names, [generation, *before, *some]))

    async def _besides(self, of: Keys, generation: int) -> Sequence[str]:
        """The keys of a generation that nobody needs when it is deleted, but for those who share it."""
        large = await self._client.call("HKEYS", of.large(generation))
        staged = [of.staged(token.decode()) for token in large]
        return [of.base(generation), of.checkpoints(generation), of.large(generation), *staged]

    async def _collect(self, namespace: Namespace, collected: Collected) -> None:
        replica = self._replicas.known(namespace.name)
        if replica is None or replica.state is not namespace:
            return
        sets = [(_field(record), codec.pack_version(record)) for record in collected.kept]
        sets += [(codec.origin_field(revision), codec.pack_origin(said)) for revision, said in collected.origins]
        gone = [_field(record) for record in collected.versions]
        gone += [codec.origin_field(revision) for revision in collected.commits]
        clears = any(not record[VERSION] for record in collected.versions)
        since, mark = collected.since, replica.mark  # of all that is set here: with another one its steps count no more
        for some, fields in _steps(sets, gone):
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


def _beginning(draft: Draft) -> Sequence[Any]:
    """What meta says of a namespace from its first entry on."""
    state = draft.base
    fields: list[Any] = ["exists", 1, "floor", state.floor, "base", state.floor]
    fields += ["create_time", draft.commits[0].time]
    if state.parent is not None:
        of, revision, hold = state.parent
        fields += ["parent", of.name, "parent_generation", of.id, "fork_revision", revision, "hold", hold]
        fields += ["base_keys", draft.keys, "base_bytes", draft.size_bytes]
    return fields


def _leases(changes: LeaseChanges) -> Sequence[Any]:
    """What a group does with leases, as append.lua takes it."""
    if not changes:
        return (0, 0, 0)
    granted = [lease for id, lease in changes.granted.items() if id not in changes.ended]
    expired = [id for id, has_run_out in changes.ended.items() if has_run_out]
    others = [id for id, has_run_out in changes.ended.items() if not has_run_out]
    told = ((lease.id, changes.remaining(lease.id), codec.pack_lease(lease)) for lease in granted)
    return [len(granted), len(expired), len(others), *chain.from_iterable(told), *expired, *others]


def few(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    """As many at a time as one script call writes: so few rows, and bytes, that none holds Redis for long."""
    some: list[Row] = []
    size = 0
    for row in rows:
        length = sum(map(len, row))
        if some and (len(some) == ROWS or size + length > PIECE):
            yield some
            some, size = [], 0
        some.append(row)
        size += length
    if some:
        yield some


def _steps(sets: Iterable[Row], gone: Sequence[bytes]) -> Iterator[tuple[Sequence[Row], Sequence[bytes]]]:
    """What one script call after the other sets and drops."""
    last: Sequence[Row] = ()
    for some in few(sets):
        if last:
            yield last, ()
        last = some
    room = ROWS - len(last)
    if last or gone:
        yield last, gone[:room]
    for start in range(room, len(gone), ROWS):
        yield (), gone[start : start + ROWS]


def _field(record: Record) -> bytes:
    return codec.version_field(record[KEY], record[MOD_REVISION])
