"""Whether a store over Redis says that it can be written to."""

from collections.abc import AsyncIterator, Iterator

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
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
