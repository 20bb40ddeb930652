"""A Redis whose memory is full at a time when what was asked for is done already."""

from collections.abc import Iterator

import pytest

from comity_server.limits import Limits
from comity_server.model import Increment, RequestId, Transaction
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests.contract.space import Space
from tests.redis_servers import RedisServer, program, wait_until
from tests.stores.sharing import NAME, Shared, before, redis_store

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")


@pytest.fixture
def filling() -> Iterator[RedisServer]:
    with RedisServer("--appendonly", "no") as running:
        yield running


def fill(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 1)


def make_room(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 0)


async def test_a_namespace_that_has_begun_is_answered_so(filling: RedisServer) -> None:
    shared = Shared(filling.url)
    space, other = await shared.spaces()
    store = redis_store(space)
    calls = 0

    async def fill_then(name: str) -> None:
        nonlocal calls
        calls += 1
        fill(filling)

    with pytest.MonkeyPatch.context() as patch:
        before(patch, store._names, "enlist", fill_then)
        assert await space.put("k") == 1
    assert calls == 1
    assert await other.contents() == await space.contents() == {"k": b"v"}
    make_room(filling)
    await store._client.call("ZREM", f"{store._target.prefix}:names", NAME)
    await store.sweep()
    assert [info.name for info in await other.store.namespaces("", limit=10)] == [NAME]
    await shared.close()


async def test_a_repeat_is_answered_when_the_replicas_have_what_it_did(filling: RedisServer) -> None:
    write = Transaction(then=[Increment("n", 1)], request_id=RequestId("client", 1))
    with RedisServer("--appendonly", "no", "--replicaof", "127.0.0.1", str(filling.port)) as replica:
        wait_until("a replica", replica.is_linked)
        store = RedisStore(parse(filling.url), Limits(), wait_replicas=1)
        await store.open()
        space = Space(store, NAME)
        first = await space.commit(write)
        fill(filling)
        again = await space.commit(write)
        assert (again.revision, list(again.results)) == (first.revision, list(first.results))
        await store.close()
