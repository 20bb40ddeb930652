"""What a store keeps in Redis that it need not, when nothing but the newest states of its namespaces can be read."""

from collections.abc import AsyncIterator, Sequence

from comity_server.record import KEY, MOD_REVISION
from comity_server.stores.redis import codec
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.store import RedisStore


async def garbage(store: RedisStore, names: Sequence[str], *, spare: int = 0) -> list[str]:
    """All but the newest version of each key, more than some entries of a log, and what is left of deleted ones."""
    found: list[str] = []
    prefix = store._target.prefix
    call = store._client.call
    known = {key async for key in _scan(store, f"{prefix}:*")}
    for name in names:
        keys = Keys(prefix, name)
        own = {key for key in known if key.startswith(f"{prefix}:{{{name}}}:")}
        known -= own
        await store.position(name)
        generation = int(await call("HGET", keys.meta, "generation") or 1)
        expected = {keys.meta, keys.requests, keys.log(generation)}
        if name in store.namespaces_by_name:
            expected.add(keys.base(generation))
            if store.state(name).leases:
                expected |= {keys.leases(generation), keys.deadlines(generation)}
            live = set()
            for entry in (await store.list(name, "", limit=100_000, max_bytes=2**40)).entries:
                live.add(codec.version_field(entry[KEY], entry[MOD_REVISION]))
                live.add(codec.origin_field(entry[MOD_REVISION]))
            fields = set(await call("HKEYS", keys.base(generation)))
            lacking = [field for field in live - fields if not codec.is_origin(field)]
            if fields - live or lacking:
                found.append(f"the base of {name} has {fields - live}, and lacks {lacking}")
            if (length := await call("XLEN", keys.log(generation))) > spare:
                found.append(f"{length} entries of {name}")
        found += [key for key in own - expected if await call("TTL", key) < 0]
    found += known - {f"{prefix}:names", f"{prefix}:expiries", f"{prefix}:epoch", f"{prefix}:probes"}
    listed = {name.decode() for name in await call("ZRANGE", f"{prefix}:names", 0, -1)}
    if listed != {name for name in names if name in store.namespaces_by_name}:
        found.append(f"the names {listed}")
    return found


async def _scan(store: RedisStore, pattern: str) -> AsyncIterator[str]:
    cursor = 0
    while True:
        cursor, found = await store._client.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        for key in found:
            yield key.decode()
        if not int(cursor):
            return
