"""Whether a store over Redis says that it can be written to."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import structlog
from structlog.testing import LogCapture
from structlog.typing import EventDict

from comity_server.errors import StoreFull, StoreUnavailable
from comity_server.limits import Limits
from comity_server.stores.redis import client, health, store
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
def logged(monkeypatch: pytest.MonkeyPatch) -> list[EventDict]:
    """What the modules that speak to Redis say."""
    capture = LogCapture()
    bound = structlog.wrap_logger(None, processors=[capture])
    for module in (client, health, store):
        monkeypatch.setattr(module, "log", bound)
    return capture.entries


def above_debug(logged: list[EventDict]) -> list[tuple[str, str]]:
    return [(entry["log_level"], entry["event"]) for entry in logged if entry["log_level"] != "debug"]


@pytest.fixture
async def space(redis: RedisServer, logged: list[EventDict]) -> AsyncIterator[Space]:
    opened = RedisStore(parse(redis.url), Limits())
    await opened.open()
    logged.clear()
    yield Space(opened, "n")
    await opened.close()


async def test_after_a_read_that_failed(redis: RedisServer, space: Space) -> None:
    """Nobody asks for anything more: it finds out by itself."""
    await space.put("k")
    redis.kill()
    with pytest.raises(StoreUnavailable):
        await space.get("k")
    assert not space.store.writable()
    redis.start()
    await until(space.store.writable, 10)


async def test_an_outage_is_logged_once_and_so_is_its_end(
    redis: RedisServer, space: Space, logged: list[EventDict]
) -> None:
    await space.put("k")
    redis.kill()
    await until(lambda: bool(logged) and not space.store.writable())
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await space.put("k")
    redis.start()
    await until(lambda: above_debug(logged)[-1][0] == "info")
    assert above_debug(logged) == [
        ("warning", "the store cannot be written"),
        ("info", "the store can be written again"),
    ]


async def test_refusals_are_logged_once_until_writes_succeed(
    redis: RedisServer, space: Space, logged: list[EventDict]
) -> None:
    def refusals() -> int:
        return len([entry for entry in logged if entry["event"] == "Redis refused"])

    for time in range(1, 3):
        with redis.client() as direct:
            direct.config_set("maxmemory", 1)
            before = refusals()
            for _ in range(5):
                with pytest.raises(StoreFull):
                    await space.put("k")
            await until(lambda before=before: refusals() >= before + 8)  # type: ignore[misc]
            direct.config_set("maxmemory", 0)
        await until(space.store.writable)
        await space.put("k")
        assert above_debug(logged).count(("warning", "Redis refused")) == time


async def test_a_redis_that_is_full_and_nobody_writes_to(redis: RedisServer, space: Space) -> None:
    with redis.client() as direct:
        direct.config_set("maxmemory", 1)
        await until(lambda: not space.store.writable(), 10)
        direct.config_set("maxmemory", 0)
    await until(space.store.writable, 10)


async def test_what_is_tried_leaves_nothing_behind(redis: RedisServer, space: Space) -> None:
    """Else files and replicas would have work to do for nothing."""
    with redis.client() as direct:
        await until(lambda: direct.info("commandstats").get("cmdstat_set", {"calls": 0})["calls"] > 2)
        before = (redis.folder / "appendonly.aof").read_bytes()
        tried = direct.info("commandstats")["cmdstat_set"]["calls"]
        await until(lambda: direct.info("commandstats")["cmdstat_set"]["calls"] > tried + 5)
    assert (redis.folder / "appendonly.aof").read_bytes() == before


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as running:
        yield running


@contextmanager
def full(master: RedisServer, replica: RedisServer) -> Iterator[None]:
    with master.client() as direct:
        direct.config_set("maxmemory", 1)
        yield
        direct.config_set("maxmemory", 0)


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
        opened = RedisStore(parse(cluster.url), Limits(), wait_replicas=1)
        await opened.open()
        try:
            await Space(opened, healthy).put("k")  # the list of names may be on the other one
            assert opened.writable()
            with cause(master, replica):
                await until(lambda opened=opened: not opened.writable(), 10)  # type: ignore[misc]
                for _ in range(100):
                    await Space(opened, healthy).put("k")
                    assert not opened.writable()
            await until(opened.writable, 20)
        finally:
            await opened.close()
