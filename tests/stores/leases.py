"""What tests of leases in Redis do."""

from collections.abc import Callable
from typing import Any

from comity_server.limits import Retention
from comity_server.model import Expire, Lease
from comity_server.stores.redis import keys
from tests.contract.space import Space
from tests.stores.sharing import once, redis_store

KEEP_ALL = Retention(commits=2**40, age=1e9, history_bytes=2**50)


def keys_of(space: Space) -> keys.Keys:
    return redis_store(space)._replicas.keys(space.name)


async def call(space: Space, *command: Any) -> Any:
    return await redis_store(space)._client.call(*command)


async def run_out(space: Space, *leases: Lease | int, generation: int = 1) -> None:
    """Have the time of leases be up, and the namespace looked into."""
    for lease in leases:
        id = lease if isinstance(lease, int) else lease.id
        await call(space, "ZADD", keys_of(space).deadlines(generation), "XX", 1, id)
    await look_into(space)


async def look_into(space: Space) -> None:
    await call(space, "ZADD", keys.expiries(redis_store(space)._target.prefix), 1, space.name)


async def looked_into_at(space: Space) -> int | None:
    """When servers look into a namespace, in µs by the clock of Redis."""
    found = await call(space, "ZSCORE", keys.expiries(redis_store(space)._target.prefix), space.name)
    return None if found is None else int(float(found))


async def expire(space: Space, *leases: Lease) -> None:
    await space.commit(Expire(lease_ids=tuple(lease.id for lease in leases)))


def at(script: Any, does: Callable[..., Any]) -> Callable[..., Any]:
    """A hook of `Client.run` that acts the first time that a script is run."""
    act = once(does)

    async def hook(run: Any, *_: Any) -> None:
        if run is script:
            await act()

    return hook


async def lives(space: Space, lease: Lease | int) -> bool:
    id = lease if isinstance(lease, int) else lease.id
    return not await space.store.ended(space.name, [id])
