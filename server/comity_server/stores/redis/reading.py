"""Reads a Redis to be copied from. It is left as it is; servers may use it meanwhile."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Final

from comity_server.errors import StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.redis import keys, preflight
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.connection import Connection
from comity_server.stores.redis.failures import named
from comity_server.stores.redis.leasing import living, remaining
from comity_server.stores.redis.loading import ATTEMPTS, Loader, Meta
from comity_server.stores.redis.url import Target
from comity_server.stores.transfer import Ancestor, Loaded

SCANNED: Final = 1000  # keys that one call looks at


class RedisReader:
    """Implements `stores.transfer.Reader`."""

    least_revision = 0

    def __init__(self, target: Target) -> None:
        self.servers: Collection[str] = ()  # the ids of the primaries
        self._target = target
        self._client = Client(target)

    @property
    def place(self) -> tuple[str, int]:
        """Which store of the servers it is."""
        return self._target.prefix, self._target.database

    async def open(self) -> None:
        try:
            with named(self._target):
                self.servers = await preflight.look(self._client)
        except StateError:
            await self._client.close()
            raise

    async def close(self) -> None:
        await self._client.close()

    async def names(self, prefix: str = "") -> Sequence[str]:
        with named(self._target):
            metas = await self._client.repeated(partial(self._client.once, partial(_scan, self._target, prefix)))
        names = {keys.name_of(self._target.prefix, meta.decode()) for meta in metas}
        return sorted(name for name in names if name.startswith(prefix))  # a pattern may match more

    async def lineage(self, name: str) -> Sequence[Ancestor]:
        with named(self._target):
            return await self._lineage(name)

    async def load(self, names: Sequence[str]) -> Loaded:
        with named(self._target):
            return await self._load(names)

    async def remaining(self, name: str) -> Mapping[int, int]:
        with named(self._target):
            meta = await Loader(self._client, Limits(), _nothing).meta(name)
            of = keys.Keys(self._target.prefix, name)
            ids = [lease.id for lease in await living(self._client, of, meta.generation)]
            left = await remaining(self._client, of, meta.generation, ids)
            return {id: max(0, one) for id, one in zip(ids, left, strict=True) if one is not None}

    async def _lineage(self, name: str) -> Sequence[Ancestor]:
        loader = _Family(self._client).loader
        meta = await loader.meta(name)
        found = [Ancestor(name, meta.generation, meta.exists)]
        while meta.parent:
            name, generation = meta.parent, meta.parent_generation
            live = await loader.meta(name)
            exists = live.exists and live.generation == generation
            meta = live if exists else await loader.buried(name, generation)
            found.append(Ancestor(name, generation, exists))
        return found

    async def _load(self, names: Sequence[str]) -> Loaded:
        for _ in range(ATTEMPTS):
            family = _Family(self._client)
            for name in names:
                await family.load(name)
            if family.fits():
                return family.loaded()
        raise StoreUnavailable(f"{names[0]} is forked faster than it can be read")


class _Family:
    """One attempt to load namespaces that share what they have."""

    def __init__(self, client: Client) -> None:
        self.loader = Loader(client, Limits(), self._shared)
        self._states: dict[str, tuple[Meta, Namespace]] = {}

    async def load(self, name: str) -> tuple[Meta, Namespace]:
        known = self._states.get(name)
        if known is None:
            known = await self.loader.load(name, "")
            assert known is not None  # no generation was asked for
            self._states[name] = known
        return known

    def fits(self) -> bool:
        """Whether none is a fork that came after its parent was read: of that may be missing what it shares."""
        parents = [state.parent for _, state in self._states.values() if state.parent is not None]
        return all(parent.namespace.can_read(parent.revision) for parent in parents)

    def loaded(self) -> Loaded:
        store = MemoryStore(Limits())
        stands: dict[str, Hashable] = {}
        for name, (meta, state) in self._states.items():
            stands[name] = meta.stands
            if meta.exists:
                store.namespaces_by_name[name] = state
            else:
                store.keep_deleted(state)
        return Loaded(store, stands)

    async def _shared(self, name: str, generation: int) -> Namespace:
        # The one that has the name now is loaded only if it is meant: it may be a fork of what is being loaded.
        known = self._states.get(name) or await self.loader.load(name, "", generation)
        if known is None or known[0].generation != generation:
            return await self.loader.deleted(name, generation)
        self._states[name] = known
        return known[1]


async def _scan(target: Target, prefix: str, redis: Connection) -> Sequence[bytes]:
    """The keys of all metas whose namespaces' names begin so; of a Cluster from each of its primaries."""
    pattern = keys.metas(target.prefix, prefix)
    return [key async for key in redis.scan_iter(match=pattern, count=SCANNED)]


async def _nothing(name: str, generation: int) -> Namespace:
    raise AssertionError("nothing is loaded")
