"""A redis-server for stores that do what they do in small steps, and stores that share it."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.redis_servers import RedisServer
from tests.stores.sharing import Shared
from tests.stores.small import small_steps


@pytest.fixture(scope="session")
def scanned_server() -> Iterator[RedisServer]:
    """One whose hashes are tables as soon as can be, so that to scan one takes several calls."""
    with RedisServer("--hash-max-ziplist-entries", "2", "--appendonly", "no") as running:
        yield running


@pytest.fixture
async def shared(scanned_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    small_steps(monkeypatch)
    opened = Shared(f"{scanned_server.url}?prefix=t-{uuid.uuid4().hex}")
    yield opened
    await opened.close()
