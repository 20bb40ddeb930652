"""Whether a store over Redis says that it can be written to."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.stores.redis.keys import probes
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests.contract.space import Space
from tests.redis_servers import RedisCluster, RedisServer, program
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
async def space(redis: RedisServer) -> AsyncIterator[Space]:
    store = RedisStore(parse(redis.url), Limits())
    await store.open()
    yield Space(store, "n")
    await store.close()


async def test_after_a_read_that_failed(redis: RedisServer, space: Space) -> None:
    """Nobody asks for anything more: it finds out by itself."""
    await space.put("k")
    redis.kill()
    with pytest.raises(StoreUnavailable):
        await space.get("k")
    assert not space.store.writable()
    redis.start()
    await until(space.store.writable, 10)


async def test_a_redis_that_is_full_and_nobody_writes_to(redis: RedisServer, space: Space) -> None:
    with redis.client() as client:
        client.config_set("maxmemory", 1)
        await until(lambda: not space.store.writable(), 10)
        client.config_set("maxmemory", 0)
    await until(space.store.writable, 10)


async def test_what_is_tried_leaves_nothing_behind(redis: RedisServer, space: Space) -> None:
    """Else files and replicas would have work to do for nothing."""
    with redis.client() as client:
        await until(lambda: client.info("commandstats").get("cmdstat_set", {"calls": 0})["calls"] > 2)
        before = (redis.folder / "appendonly.aof").read_bytes()
        tried = client.info("commandstats")["cmdstat_set"]["calls"]
        await until(lambda: client.info("commandstats")["cmdstat_set"]["calls"] > tried + 5)
    assert (redis.folder / "appendonly.aof").read_bytes() == before


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as running:
        yield running


@contextmanager
def full(master: RedisServer, replica: RedisServer) -> Iterator[None]:
    with master.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def without_a_replica(master: RedisServer, replica: RedisServer) -> Iterator[None]:
    replica.stop()
    yield
    replica.start()


@contextmanager
def with_a_silent_replica(master: RedisServer, replica: RedisServer) -> Iterator[None]:
    replica.process.send_signal(signal.SIGSTOP)
    yield
    replica.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("cause", [full, without_a_replica, with_a_silent_replica])
async def test_a_master_of_a_cluster_that_takes_no_writes(
    cluster: RedisCluster, cause: Callable[[RedisServer, RedisServer], AbstractContextManager[None]]
) -> None:
    """Each of them counts, and what the others take does not make up for it."""
    first = cluster.master_of(probes("comity"))
    for master, replica in list(cluster.replicas()):
        if cause is not full and master is first:
            continue
        healthy = next(name for name in map(str, range(100)) if cluster.master_of(f"{{{name}}}") is not master)
        store = RedisStore(parse(cluster.url), Limits(), wait_replicas=1)
        await store.open()
        try:
            await Space(store, healthy).put("k")  # the list of names may be on the other one
            assert store.writable()
            with cause(master, replica):
                await until(lambda store=store: not store.writable(), 10)  # type: ignore[misc]
                for _ in range(100):
                    await Space(store, healthy).put("k")
                    assert not store.writable()
            await until(store.writable, 20)
        finally:
            await store.close()
