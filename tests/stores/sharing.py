"""Stores over one Redis, for tests of what others do between two steps of one of them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from comity_server.limits import Limits
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests.contract.space import Space

NAME = "n"


class Shared:
    """Opens stores over one Redis."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stores: list[RedisStore] = []

    async def open(self, limits: Limits = Limits()) -> RedisStore:  # noqa: B008 - it cannot be changed
        store = RedisStore(parse(self.url), limits)
        await store.open()
        self._stores.append(store)
        return store

    async def spaces(self, count: int = 2) -> list[Space]:
        """One namespace, by as many stores."""
        return [Space(await self.open(), NAME) for _ in range(count)]

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


def redis_store(space: Space) -> RedisStore:
    assert isinstance(space.store, RedisStore)
    return space.store


async def raise_floor(space: Space, floor: int) -> None:
    """As by a server that ends before it has compacted."""
    store = redis_store(space)
    async with store.lock(space.name):
        replica = await store._replicas.advance(space.name)
        await store._redis.floor(replica.state, floor)


def once(does: Callable[[], Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
    """What is done the first time only, whatever the arguments."""
    done = False

    async def hook(*_: Any, **__: Any) -> None:
        nonlocal done
        if not done:
            done = True
            await does()

    return hook


def before(patch: pytest.MonkeyPatch, owner: Any, method: str, hook: Callable[..., Awaitable[Any]]) -> None:
    """Have a hook called before each call of a method, with the same arguments."""
    original = getattr(owner, method)

    async def hooked(*arguments: Any, **named: Any) -> Any:
        await hook(*arguments, **named)
        return await original(*arguments, **named)

    patch.setattr(owner, method, hooked)


def after(patch: pytest.MonkeyPatch, owner: Any, method: str, hook: Callable[..., Awaitable[Any]]) -> None:
    """Likewise, after each call."""
    original = getattr(owner, method)

    async def hooked(*arguments: Any, **named: Any) -> Any:
        answer = await original(*arguments, **named)
        await hook(*arguments, **named)
        return answer

    patch.setattr(owner, method, hooked)
