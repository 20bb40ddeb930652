"""What other programs have put under the keys of a store keeps nothing from the namespaces that it does not touch."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from comity_server.compactor import Compactor
from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits, Retention
from comity_server.model import Commit
from comity_server.stores.redis import followers, keys
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from comity_server.telemetry.tally import Tally
from tests.contract.space import Space
from tests.redis_servers import RedisServer, program
from tests.stores.sharing import NAME, Shared, redis_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

ALIEN = "zz"  # after others in the order of names
Deed = Callable[["redis.Redis", keys.Keys], Any]

METAS: dict[str, Deed] = {
    "garbage": lambda client, of: client.hset(of.meta, mapping={"generation": "abc", "exists": 1}),
    "no text": lambda client, of: client.hset(of.meta, mapping={"epoch": b"\xff\xfe", "exists": 1}),
    "a string": lambda client, of: client.set(of.meta, "x"),
}
PARTS: dict[str, Deed] = {
    "log": lambda client, of: (
        client.xadd(of.log(1), {"d": b"\xc1garbage", "p": client.hget(of.meta, "last") or b""}, id="1000-0"),
        client.hset(of.meta, "revision", 1000),
    ),
    "base": lambda client, of: client.hset(of.base(1), "foo", "bar"),
    "checkpoints": lambda client, of: client.hset(of.checkpoints(1), "foo", "bar"),
    "requests": lambda client, of: client.hset(of.requests, b"foo\0bar", "bar"),
    "requests as a string": lambda client, of: client.set(of.requests, "bar"),
}


class Heard:
    def publish(self, commits: Sequence[Commit]) -> None:
        pass

    def reset(self) -> None:
        pass


def prefix_of(shared: Shared) -> str:
    return parse(shared.url).prefix


@pytest.mark.parametrize("what", METAS)
async def test_a_namespace_that_cannot_be_read_keeps_nothing_from_others(
    scanned_server: RedisServer, shared: Shared, what: str
) -> None:
    (space,) = await shared.spaces(1)
    for number in range(10):
        await space.put("k", b"%d" % number)
    prefix = prefix_of(shared)
    with scanned_server.client() as client:
        METAS[what](client, keys.Keys(prefix, ALIEN))
        client.zadd(keys.names(prefix), {ALIEN: 0, b"\xff\xfe": 0, "": 0})
    store = redis_store(space)
    await Compactor(store, lambda _: Retention(commits=5), 1, Tally())._compact_all()
    assert (await space.position()).floor == 5
    assert [info.name for info in await store.namespaces("", limit=100)] == [NAME]
    assert store.writable()
    for asked in (Space(store, ALIEN).get("k"), Space(store, ALIEN).put("k")):
        with pytest.raises(StoreUnavailable):
            await asked
    assert store.writable()


async def test_names_that_are_none_are_passed_over(scanned_server: RedisServer, shared: Shared) -> None:
    (space,) = await shared.spaces(1)
    await space.put("k")
    with scanned_server.client() as client:
        aliens = {b"\xff%d" % number: 0 for number in range(500)}
        client.zadd(keys.names(prefix_of(shared)), aliens)
    async with asyncio.timeout(10):
        assert [info.name for info in await space.store.namespaces("", limit=100)] == [NAME]


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_that_cannot_be_read(scanned_server: RedisServer, shared: Shared, part: str) -> None:
    (space,) = await shared.spaces(1)
    await space.put("k")
    with scanned_server.client() as client:
        PARTS[part](client, keys.Keys(prefix_of(shared), NAME))
    (new,) = await shared.spaces(1)
    with pytest.raises(StoreUnavailable):
        await new.get("k")
    assert await Space(new.store, "other").put("k") == 1


async def test_a_log_that_ends_with_what_no_server_wrote_is_followed_at_leisure(
    scanned_server: RedisServer, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    (space,) = await shared.spaces(1)
    await space.put("k")
    waits: list[int] = []

    def noted(attempt: int) -> float:
        waits.append(attempt)
        return 0.0

    monkeypatch.setattr(followers, "backoff", noted)
    await space.store.follow(NAME, Heard())
    with scanned_server.client() as client:
        client.xadd(keys.Keys(prefix_of(shared), NAME).log(1), {"foo": "bar"}, id="1000-0")
    await until(lambda: len(waits) > 5)
    assert waits[:6] == [0, 1, 2, 3, 4, 5], "it waits longer and longer"
    assert await space.get("k")
    await space.store.unfollow(NAME)


async def test_an_epoch_that_is_none_is_refused(scanned_server: RedisServer, shared: Shared) -> None:
    with scanned_server.client() as client:
        client.set(keys.epoch(prefix_of(shared)), b"\xff\xfe")
    store = RedisStore(parse(shared.url), Limits())
    with pytest.raises(StoreUnavailable, match="epoch"):
        await store.open()
