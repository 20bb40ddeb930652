"""Whether a store over Redis says that it can be written to."""

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from structlog.testing import LogCapture
from structlog.typing import EventDict

from comity_server.errors import StoreFull, StoreUnavailable
from comity_server.limits import Limits
from comity_server.stores.redis import client, store
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests.contract.space import Space
from tests.redis_servers import RedisServer, program
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
    for module in (client, store):
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
