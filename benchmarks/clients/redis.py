"""Redis through redis-py: a command for each operation, MULTI for several, and for a compare-and-set WATCH or Lua."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import redis.asyncio as redis_py
from redis.exceptions import WatchError

SCAN: Final = 1_000  # keys that a step looks at, or reads the values of
COMPARE_AND_SET: Final = """
if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then
  return redis.call('GET', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[2])
return false
"""


@contextlib.asynccontextmanager
async def watching(address: str, namespace: str) -> AsyncIterator["Watching"]:
    async with _connected(address) as client:
        yield Watching(client, namespace)


@contextlib.asynccontextmanager
async def scripting(address: str, namespace: str) -> AsyncIterator["Scripting"]:
    async with _connected(address) as client:
        yield Scripting(client, namespace)


@contextlib.asynccontextmanager
async def _connected(address: str) -> AsyncIterator["redis_py.Redis"]:
    host, _, port = address.rpartition(":")
    client = redis_py.Redis(host=host, port=int(port))
    try:
        yield client
    finally:
        await client.aclose()


class Watching:
    """`add` is WATCH, GET, MULTI, SET, EXEC."""

    def __init__(self, client: "redis_py.Redis", namespace: str) -> None:
        self._redis = client
        self._prefix = f"{namespace}:"

    async def put(self, key: str, value: bytes) -> None:
        await self._redis.set(self._prefix + key, value)

    async def get(self, key: str) -> bytes | None:
        found = await self._redis.get(self._prefix + key)
        assert found is None or isinstance(found, bytes)
        return found

    async def put_all(self, keys: Sequence[str], value: bytes) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            for key in keys:
                pipeline.set(self._prefix + key, value)
            await pipeline.execute()

    async def add(self, key: str) -> None:
        name = self._prefix + key
        async with self._redis.pipeline() as pipeline:
            while True:
                await pipeline.watch(name)
                number = int(await pipeline.get(name) or 0)
                pipeline.multi()  # type: ignore[no-untyped-call]
                pipeline.set(name, number + 1)
                try:
                    await pipeline.execute()
                except WatchError:
                    continue
                return

    async def count(self, prefix: str) -> int:
        found, batch = 0, []
        async for name in self._redis.scan_iter(f"{self._prefix}{prefix}*", count=SCAN):
            batch.append(name)
            if len(batch) == SCAN:
                found += len(await self._redis.mget(batch))
                batch.clear()
        return found + (len(await self._redis.mget(batch)) if batch else 0)


class Scripting(Watching):
    """`add` is a script that compares and sets, by its digest; it tells what it found instead."""

    def __init__(self, client: "redis_py.Redis", namespace: str) -> None:
        super().__init__(client, namespace)
        self._script = client.register_script(COMPARE_AND_SET)

    async def add(self, key: str) -> None:
        number = 0
        while (found := await self._script(keys=[self._prefix + key], args=[number, number + 1])) is not None:
            number = int(found)
