"""Appends what a namespace does to its log in Redis, and deletes it there."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final

import structlog

from comity_server.errors import StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.leases import LeaseChanges
from comity_server.stores.memory.log import history_bytes
from comity_server.stores.memory.namespace import Collected, Namespace, Parent
from comity_server.stores.redis import codec, compaction, steps
from comity_server.stores.redis.compaction import Compaction
from comity_server.stores.redis.deciding import decide
from comity_server.stores.redis.failures import Passing
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.loading import Meta, take_marks
from comity_server.stores.redis.names import Names
from comity_server.stores.redis.replicas import Moved, Replica, Replicas
from comity_server.stores.redis.script import Script

log = structlog.get_logger(__name__)

APPEND: Final = Script("append")
DELETE: Final = Script("delete")
DISINHERIT: Final = Script("disinherit")
OUTDATE: Final = Script("outdate")
STAGE: Final = Script("stage")

KEPT_SECONDS: Final = 600  # how long the log of a deleted namespace is there for those who follow it


class Busy(Exception):
    """Another server is about to delete the namespace."""


class RedisJournal:
    """Implements `stores.memory.journal.Journal`. Of a namespace that it is told of, the lock is held, except where
    something was collected."""

    def __init__(self, replicas: Replicas, names: Names, compaction: Compaction, limits: Limits) -> None:
        self._client = replicas.client
        self._compaction = compaction
        self._names = names
        self._limits = limits
        self._replicas = replicas
        # For the store, which takes them out when it is through with the same: a replica must not say that it stands
        # where its state does not yet.
        self.ended: dict[Namespace, bool] = {}  # what was deleted, and whether forks share it
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
            await self._names.register(name, draft.limits.share)
            fields += _beginning(draft)
        place = (draft.revision, 0) if draft.commits else (draft.revision, replica.meta.sub + 1)
        try:
            data = codec.pack_draft(token, draft)
            meta = await self._append(name, replica, token, place, data, fields, leases=_leases(draft.leases))
        except Moved:
            if begins:  # as it is judged anew it may be refused
                await self._names.unlist(name)
            raise
        if begins:
            await self._names.enlist_again(name)
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
            await self._compaction.collect(namespace, collected)
        except (StateError, Passing) as error:
            self._replicas.distrust(namespace.name)
            raise error.failure if isinstance(error, Passing) else error from error

    async def delete(self, namespace: Namespace, revision: int) -> None:
        """Raises Moved where others were faster."""
        name = namespace.name
        replica = self._replicas.find(name)
        of = self._replicas.keys(name)
        meta = replica.meta
        if not await self._compaction.persist(namespace, ends=True):  # the outcomes are remembered by the name
            raise Busy
        assert replica.mark is not None
        names = [of.meta, of.log(meta.generation), of.buried(meta.generation), of.heirs(meta.generation), of.requests]
        names += [of.leases(meta.generation), of.deadlines(meta.generation)]
        names += await self._besides(of, meta.generation)
        token = secrets.token_bytes(12)
        arguments = [*meta.stands, replica.mark.token, replica.mark.steps, revision, KEPT_SECONDS]
        arguments += [int(self._limits.request_window) + 1, token.hex(), *namespace.heirs]
        await decide(self._replicas, replica, lambda: self._client.run(DELETE, names, arguments), (revision, 0), token)
        self.ended[namespace] = bool(namespace.heirs)
        with suppress(StateError):  # it is deleted all the same: else whoever lists it does this
            await self._names.unlist(name)

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
        if len(data) > steps.PIECE:
            pieces = await self._stage(of.staged(token.hex()), data)
            field, value = "s", f"{token.hex()}:{pieces}".encode()
            names += [of.staged(token.hex()), of.large(meta.generation)]
        if any(leases):
            names += [of.leases(meta.generation), of.deadlines(meta.generation)]
        arguments = [*meta.stands, *place, token.hex(), int(frees), self._compaction.deleter]
        arguments += [int(compaction.CLAIM_SECONDS * 1000), field, value, *leases, *fields]
        deletion = Passing(StoreUnavailable(f"namespace {name} is about to be deleted"))
        patience = self._client.patience()
        try:
            append = partial(self._client.run, APPEND, names, arguments)
            while not await decide(self._replicas, replica, append, place, token):
                await patience.wait(deletion)
        except Moved:
            if field == "s":
                await self._client.call("UNLINK", of.staged(token.hex()))
            raise
        revision, sub = place
        return meta._replace(revision=revision, sub=sub, last=token.hex(), exists=True)

    async def _stage(self, key: str, data: bytes) -> int:
        """Bring a long entry to Redis piece by piece: how many. If it is not appended, it goes by itself."""
        starts = range(0, len(data), steps.PIECE)
        for number, start in enumerate(starts):
            arguments = [number, data[start : start + steps.PIECE], KEPT_SECONDS]
            await self._client.repeated(partial(self._client.run, STAGE, [key], arguments))
        return len(starts)

    async def _besides(self, of: Keys, generation: int) -> Sequence[str]:
        """The keys of a generation that nobody needs when it is deleted, but for those who share it."""
        large = await self._client.call("HKEYS", of.large(generation))
        staged = [of.staged(token.decode()) for token in large]
        return [of.base(generation), of.checkpoints(generation), of.large(generation), *staged]


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
