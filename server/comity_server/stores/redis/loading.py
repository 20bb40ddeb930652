"""Loads a namespace from Redis: its base, which is what the log has no more, and then its log."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgpack
import structlog

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Commit, Event, Lease, NamespaceInfo, Provenance
from comity_server.record import LEASE_ID, MOD_REVISION, VERSION, Record
from comity_server.stores.memory import collector
from comity_server.stores.memory.actions import give_up_fork
from comity_server.stores.memory.draft import Named
from comity_server.stores.memory.namespace import Held, Namespace, Parent
from comity_server.stores.memory.pins import NOTHING, Totals
from comity_server.stores.memory.requests import Client as RequestClient
from comity_server.stores.redis import codec
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.failures import Unreadable
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.leasing import living
from comity_server.stores.redis.portions import entries_after, scan
from comity_server.turns import Pace

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 20  # to read a namespace while others compact it

FIGURES: Final = (
    *("generation", "revision", "sub", "last", "epoch", "exists", "floor", "base", "time", "create_time"),
    *("parent", "parent_generation", "fork_revision", "base_keys", "base_bytes", "hold", "trimmed", "cleared"),
    *("keys", "bytes", "history", "leases"),
)
_TEXTS: Final = ("epoch", "last", "parent", "hold", "trimmed")


class Trimmed(Exception):
    """The log begins after what is needed of it."""


class Meta(NamedTuple):
    """What Redis says of a namespace. Of one that it does not know all is empty, and the generation 1."""

    generation: int = 1
    revision: int = 0
    sub: int = 0
    last: str = ""  # the token of the last entry of the log, which tells histories apart that came to the same revision
    epoch: str = ""
    exists: bool = False
    floor: int = 0
    base: int = 0  # up to where the base holds it
    time: int = 0
    create_time: int = 0
    parent: str = ""
    parent_generation: int = 0
    fork_revision: int = 0
    base_keys: int = 0
    base_bytes: int = 0
    hold: str = ""  # what the parent knows it by
    cleared: int = 0  # how often tombstones of the base were dropped
    trimmed: str = "0-0"  # the id that the log was trimmed at: entries before it are there no more
    keys: int = 0
    bytes: int = 0
    history: int = 0  # bytes, about
    leases: int = 0  # that live

    @property
    def place(self) -> tuple[int, int]:
        return self.revision, self.sub

    def info(self, name: str) -> NamespaceInfo:
        """What is told of a namespace, without loading it."""
        return NamespaceInfo(
            name=name,
            revision=self.revision,
            floor=self.floor,
            key_count=self.keys,
            size_bytes=self.bytes,
            commit_count=self.revision - self.floor,
            history_size_bytes=self.history,
            create_time=self.create_time,
            update_time=self.time,
            epoch=self.epoch,
            parent=self.parent,
            fork_revision=self.fork_revision,
            lease_count=self.leases,
        )

    @property
    def stands(self) -> tuple[int, int, int, str, str]:
        return self.generation, self.revision, self.sub, self.epoch, self.last


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Raises Unreadable where something that was read in the block is not as servers write it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, msgpack.UnpackException) as error:
        log.debug("what Redis has cannot be read", what=what, exc_info=error)
        raise Unreadable(f"what Redis has of {what} is not what a server writes") from error


async def read_entry(client: Client, keys: Keys, fields: Mapping[bytes, bytes], pace: Pace) -> codec.Entry:
    """An entry of a log, from where it is staged if it is too large to be in the log itself. Raises Trimmed."""
    data = fields.get(b"d")
    if data is not None:
        return codec.unpack_entry(data)
    token, _, pieces = fields[b"s"].decode().partition(":")
    read = [await client.call("HGET", keys.staged(token), place) for place in range(int(pieces))]
    if None in read:
        raise Trimmed
    return await codec.unpack_long_entry(b"".join(read), pace)


class Loader:
    """Loads namespaces.

    Args:
        shared: finds what a fork shares, by the name and the generation of the namespace.
    """

    def __init__(self, client: Client, limits: Limits, shared: Callable[[str, int], Awaitable[Namespace]]) -> None:
        self._client = client
        self._limits = limits
        self._shared = shared
        self._deleted: dict[tuple[str, int], Namespace] = {}

    async def meta(self, name: str) -> Meta:
        """Where a namespace stands."""
        return await self._meta(self._keys(name).meta)

    async def metas(self, names: Sequence[str]) -> Sequence[Meta | Unreadable]:
        """Where namespaces stand, as far as it can be told."""
        found = await self._client.call_all([("HMGET", self._keys(name).meta, *FIGURES) for name in names])
        return [_meta_of(values) for values in found]

    async def buried(self, name: str, generation: int) -> Meta:
        """Where a deleted one stood that forks share."""
        return await self._meta(self._keys(name).buried(generation))

    async def load(self, name: str, epoch: str, generation: int | None = None) -> tuple[Meta, Namespace] | None:
        """A namespace as it stands, or the empty one that it would begin as, then in the epoch given. None: it is none
        of the generation that is wanted."""
        for _ in range(ATTEMPTS):
            meta = await self.meta(name)
            if generation not in (None, meta.generation):
                return None
            if not meta.exists:
                meta = meta._replace(epoch=meta.epoch or epoch)
            try:
                return await self._load(name, meta, self._keys(name).meta)
            except Trimmed:  # others compact it meanwhile
                continue
        raise StoreUnavailable(f"namespace {name} is compacted faster than it can be read")

    async def deleted(self, name: str, generation: int) -> Namespace:
        """A deleted namespace that forks share. It changes no more, so that it is loaded once, until `forget`. Raises
        Trimmed if it is gone."""
        known = self._deleted.get((name, generation))
        if known is None:
            meta, buried = await self.buried(name, generation), self._keys(name).buried(generation)
            if not meta.exists:  # then what was to share it is not there any more either
                raise Trimmed
            _, known = await self._load(name, meta, buried, ended=True)
            known.deleted = True
            self._deleted[name, generation] = known
        return known

    def forget(self, name: str, generation: int) -> None:
        """Nobody here shares a deleted namespace any more."""
        self._deleted.pop((name, generation), None)

    def _keys(self, name: str) -> Keys:
        return Keys(self._client.target.prefix, name)

    async def _meta(self, key: str) -> Meta:
        return _parse_meta(await self._client.call("HMGET", key, *FIGURES))

    async def _load(self, name: str, meta: Meta, meta_key: str, *, ended: bool = False) -> tuple[Meta, Namespace]:
        parent, totals = None, NOTHING
        if meta.parent:
            parent = Parent(await self._shared(meta.parent, meta.parent_generation), meta.fork_revision, meta.hold)
            totals = Totals(meta.base_keys, meta.base_bytes)
            parent.namespace.forks += 1  # from now on: it may be deleted meanwhile
        state = Namespace(
            name,
            self._limits,
            meta.epoch,
            id=meta.generation,
            revision=meta.base if meta.exists else meta.revision,
            time=meta.time,
            parent=parent,
            totals=totals,
        )
        loading = _Loading(self._client, self._keys(name), meta, state, self._limits.request_window)
        try:
            with collector.held_off(), understood(name):
                if meta.exists:
                    state.create_time = meta.create_time
                    if not ended:
                        await loading.load_leases()
                    await loading.load_base()
                    await loading.load_checkpoints()
                    meta = await loading.load_log(ended=ended)
                await loading.load_requests()
                after = await self._meta(meta_key)
                if (after.base, after.trimmed, after.cleared) != (meta.base, meta.trimmed, meta.cleared):
                    raise Trimmed
                await loading.finish()
        except BaseException:
            if state.parent is not None:
                give_up_fork(state)
            raise
        return meta, state


class _Loading:
    """One attempt to load one namespace."""

    def __init__(self, client: Client, keys: Keys, meta: Meta, state: Namespace, window: float) -> None:
        self._client = client
        self._keys = keys
        self._window = window  # of request ids, in seconds
        self._meta = meta
        self._state = state
        self._said: dict[int, Provenance] = {}  # by commits that are in the log no more
        self._commits: list[Commit] = []
        self._named: list[tuple[int, Sequence[Named]]] = []  # by entry, with its time
        self._pace = Pace()

    async def load_base(self) -> None:
        found: dict[bytes, Record] = {}  # since a scan may show a field more than once
        async for field, data in scan(self._client, self._keys.base(self._meta.generation)):
            if codec.is_origin(field):
                revision, said = codec.unpack_origin(field, data)
                self._said[revision] = said
            else:
                found[field] = codec.unpack_version(field, data)
        # What is above the base is in the log too: it is just being moved.
        records = [record for record in found.values() if record[MOD_REVISION] <= self._meta.base]
        records.sort(key=itemgetter(MOD_REVISION))
        kept: Counter[int] = Counter()
        for record in records:
            self._state.versions.load(record)
            kept[record[MOD_REVISION]] += record[VERSION] > 0
            await self._pace.step()
        for revision, said in self._said.items():
            self._state.origins.load(revision, said, kept[revision])

    async def load_leases(self) -> None:
        """Those that live. This comes before the log, which says what became of them since: one that is granted there
        may be here already, and one that ends there may be here no more."""
        for lease in await living(self._client, self._keys, self._meta.generation):
            self._state.leases.grant(lease, _until(lease))
            await self._pace.step()

    async def load_checkpoints(self) -> None:
        """Those of the last compaction: what came after is in the log."""
        async for field, data in scan(self._client, self._keys.checkpoints(self._meta.generation)):
            if codec.is_heir(field):
                self._state.add_heir(*codec.unpack_heir(field, data))
            else:
                made = codec.unpack_checkpoint(data)
                self._state.pin(made.revision, codec.totals(made))
                self._state.set_checkpoint(made.name, made)

    async def load_log(self, *, ended: bool) -> Meta:
        """Take in the log. Returns where the namespace stands then."""
        key = self._keys.log(self._meta.generation)
        # From where it was trimmed, and not from the base: what came before may not be written down yet.
        place, last = (0, 0), self._meta.last
        async for id, fields in entries_after(self._client, key, self._meta.trimmed):
            if b"e" in fields:
                if ended:
                    break
                raise Trimmed
            place = parse_id(id)
            entry = await read_entry(self._client, self._keys, fields, self._pace)
            last = entry.token.hex()
            await self._take(entry)
        reached = max(place, self._meta.place)
        if not ended and self._state.revision != reached[0]:
            raise Trimmed
        if ended:
            self._state.leases.clear()
        return self._meta._replace(revision=reached[0], sub=reached[1], last=last)

    async def load_requests(self) -> None:
        """Every client has the whole window before it, as if it was heard now; but for those that were silent for as
        long when the newest entry came. Else they would come back for as long as the log has something of them."""
        now = time.monotonic()
        silent = await self._silent()
        clients: dict[str, RequestClient] = {}
        outcomes: dict[str, dict[int, bytes]] = {}  # since a scan may show a field more than once
        async for field, data in scan(self._client, self._keys.requests):
            client, sequence = codec.split_outcome_field(field)
            if client in silent:
                continue
            if sequence is None:
                clients[client] = self._state.requests.load(client, *codec.unpack_client(data), now)
            else:
                outcomes.setdefault(client, {})[sequence] = data
        for client, known in clients.items():
            for sequence, data in sorted(outcomes.pop(client, {}).items()):
                if sequence >= known.awaited:
                    self._state.requests.load_outcome(known, sequence, *codec.unpack_outcome(data))
                await self._pace.step()
        for _, named in self._named:
            heard = [one for one in named if one.request.client not in silent]
            await take_outcomes(self._state, heard, now, self._pace)

    async def _silent(self) -> Collection[str]:
        """The clients that were silent for the window, by the times of the log."""
        last: dict[str, int] = {}
        for at, named in self._named:
            for one in named:
                last[one.request.client] = at
                await self._pace.step()
        if not self._named:
            return ()
        newest, _ = self._named[-1]
        return {client for client, at in last.items() if at < newest - int(self._window * 1e6)}

    async def finish(self) -> None:
        state = self._state
        await state.versions.load_end_paced(self._pace)
        if state.leases:
            for key in state.versions.own_keys():
                head = state.versions.head(key)
                if head is not None and head[LEASE_ID]:
                    state.leases.attach(key, head[LEASE_ID])
                await self._pace.step()
        totals = Totals(state.versions.key_count, state.versions.live_bytes)
        await state.log.load_paced(self._commits, totals, self._pace)
        state.floor = max(state.floor, self._meta.floor, self._meta.base)

    async def _take(self, entry: codec.Entry) -> None:
        state = self._state
        for head, changes in entry.commits:
            if head.revision <= state.revision:  # of a group that is in the base in part
                continue
            if head.revision != state.revision + 1:
                raise Trimmed
            events: list[Event] = []
            for packed in changes:
                change = codec.change(head, packed)
                events.append(codec.event(change, state.versions.load(change.record)))
                await self._pace.step()
            self._commits.append(head._replace(events=tuple(events)))
            state.revision, state.time = head.revision, head.time
        take_grants(state, entry)
        take_marks(state, entry)
        self._named.append((entry.time, entry.named))


def take_grants(state: Namespace, entry: codec.Entry) -> None:
    """The leases that an entry grants, before its commits are applied."""
    for lease in entry.leases.granted:
        if state.leases.get(lease.id) is None:
            state.leases.grant(lease, _until(lease))


def take_marks(state: Namespace, entry: codec.Entry) -> None:
    """What an entry does to checkpoints, to the floor, and to what forks hold, and which leases it ends."""
    for id in entry.leases.ended:
        state.leases.end(id)
    for name, made in entry.checkpoints:
        if made is not None:
            state.pin(made.revision, codec.totals(made))
        state.set_checkpoint(name, made)
    match entry.control:
        case codec.Control("floor", floor):
            state.floor = max(state.floor, floor)
        case codec.Control("pin", revision, hold, keys, size_bytes):
            state.add_heir(hold, Held(revision, Totals(keys, size_bytes)))
        case codec.Control("unpin", _, hold):
            state.drop_heir(hold)


async def take_outcomes(state: Namespace, named: Sequence[Named], now: float, pace: Pace) -> None:
    """The outcomes that an entry says are to be remembered."""
    for request, fingerprint, outcome in named:
        if not state.requests.has_seen(request):
            state.requests.remember(request, fingerprint, outcome, now)
        await pace.step()


def _until(lease: Lease) -> int:
    """No earlier than Redis says, which is asked before anything depends on it. By `MemoryStore.clock`."""
    return time.monotonic_ns() // 1000 + lease.ttl


def parse_id(id: bytes | str) -> tuple[int, int]:
    revision, _, sub = (id if isinstance(id, str) else id.decode()).partition("-")
    return int(revision), int(sub)


def _meta_of(values: Sequence[bytes | None] | Unreadable) -> Meta | Unreadable:
    try:
        return values if isinstance(values, Unreadable) else _parse_meta(values)
    except Unreadable as error:
        return error


def _parse_meta(values: Sequence[bytes | None]) -> Meta:
    """Raises Unreadable."""
    found: dict[str, Any] = {}
    for name, value in zip(FIGURES, values, strict=True):
        if value is not None:
            with understood("a namespace"):
                text = value.decode()
                found[name] = text if name in _TEXTS else int(text)
    return Meta(**found)._replace(exists=found.get("exists") == 1)
